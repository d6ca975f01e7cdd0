"""What is measured of a model on a split, the truth that its pictures know, and the words for the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import plain
from sparsecbm._base.rows import evenly_spaced
from sparsecbm.explain.pages.base import Figure

if TYPE_CHECKING:
    from sparsecbm.embeddings import Embeddings
    from sparsecbm.estimators import SparseCBMClassifier

_ROWS = 8192

MAX_MEASURED = 20_000
"""Images, evenly spread, on which name alignment and concept AUC are measured: they need (n, M) arrays at once."""


def measure(
    classifier: SparseCBMClassifier, split: Embeddings, class_texts: NDArray[np.float32] | None = None
) -> dict[str, Any]:
    """Measure accuracy, sparsity and meaning on one split.

    Parameters
    ----------
    classifier : SparseCBMClassifier
        Fitted on class indices.
    split : Embeddings
        With labels.
    class_texts : ndarray of shape (K, d), optional
        Texts of the model's classes, for their plausibility.

    Returns
    -------
    dict
        JSON values: ``accuracy`` and other classification metrics (where classes do not exclude each other those of
        `multilabel_metrics`, and the most probable class counts as predicted), ``active_concepts`` (mean, max, ...),
        ``nec``, ``used_concepts`` (active and with a weight for the predicted class: mean and max),
        ``name_alignment``, its mean, 5th percentile and least value over the concepts that decide (``alignment``),
        their ``survival``, and ``warnings``; with class texts ``plausibility``; where the pictures know which concepts
        they show, also ``concept_auc``, ``clarity``, ``concepts`` (`concept_reliability`) and ``leakage`` (how much
        more the activations know about the class than the true concepts do).

    Raises
    ------
    InputError
        If the split has no labels, or a label the model was not trained on.
    """
    from sparsecbm.evaluation import (
        active_concepts,
        clarity,
        classification_metrics,
        concept_auc,
        concept_reliability,
        disguise,
        multilabel_metrics,
        name_alignment,
        plausibility,
        survival,
        used_in_decision,
    )
    from sparsecbm.heads import nec

    if split.labels is None:
        raise InputError("these pictures have no labels: there is nothing to measure against; try `sparsecbm predict`")
    X, y = split.vectors, np.asarray(split.labels)
    many = classifier.multilabel_
    if many != split.multilabel:
        held, theirs = ("one class a picture", "a column of 0 and 1 a class") if many else ("several", "one class")
        raise InputError(f"these pictures have {held}, and the model was trained on {theirs}: the labels do not match")
    unknown = np.setdiff1d(y, np.arange(2) if many else classifier.classes_)
    if len(unknown):
        raise InputError(
            f"label {unknown[0]} is not among the {len(classifier.classes_)} classes the model was trained on"
        )
    columns = y if many else np.searchsorted(classifier.classes_, y)
    proba = np.concatenate([classifier.predict_proba(X[i : i + _ROWS]) for i in range(0, len(X), _ROWS)])
    rows = evenly_spaced(len(X), MAX_MEASURED)
    kept = np.asarray(X[rows])
    activations, units = classifier.transform(kept), classifier.units(kept)
    scores, predicted = classifier.concept_scores(kept), proba[rows].argmax(axis=1)
    alignment, of_units = name_alignment(units, scores)
    used = used_in_decision(activations, classifier.head_weights_, predicted)
    metrics: dict[str, Any] = {
        "n_images": len(X),
        **(
            multilabel_metrics(columns, proba)
            if many
            else {
                "correct": int((proba.argmax(axis=1) == columns).sum()),
                **classification_metrics(columns, proba),
            }
        ),
        "active_concepts": active_concepts(activations),
        "nec": nec(classifier.head_weights_),
        "used_concepts": {"mean": used.mean, "max": used.most},
        "name_alignment": alignment,
    }
    if used.concepts.any():
        of_units = of_units[used.concepts]
        metrics["alignment"] = {"mean": of_units.mean(), "p5": np.percentile(of_units, 5), "min": of_units.min()}
        metrics["survival"] = survival(units[:, used.concepts], scores[:, used.concepts]).mean
    if class_texts is not None and classifier.concept_embeddings_ is not None:
        metrics["plausibility"] = plausibility(
            activations, classifier.head_weights_, predicted, class_texts, classifier.concept_embeddings_
        )
    note = disguise(
        len(classifier.concept_names_), X.shape[1], classifier.head_weights_, metrics["active_concepts"]["mean"]
    )
    metrics["warnings"] = [] if note is None else [note]
    truth = concept_truth(classifier.concept_names_, split)
    if truth is not None:
        known, flags = truth
        of_activations, each = concept_auc(activations[:, known], flags[rows])
        auc_of_units, _ = concept_auc(units[:, known], flags[rows])
        names = [classifier.concept_names_[j] for j in known]
        metrics["concept_auc"] = {"mean": of_activations, "units": auc_of_units, "each": dict(zip(names, each))}
        if not many:
            metrics["clarity"] = clarity(metrics["accuracy"], activations[:, known], flags[rows])
    labels = split.attributes_of(classifier.concept_names_)
    if labels is not None and getattr(classifier, "presence_", None) is not None:
        metrics["concepts"] = concept_reliability(
            labels[rows], classifier.predict_concepts_proba(kept), classifier.concept_names_
        )
    attributes = None if split.attributes is None else split.attributes[1]
    if attributes is not None and not many and not np.isnan(attributes).any():
        metrics["leakage"] = _leakage(activations, attributes[rows] >= 0.5, columns[rows])
    return plain(metrics)


def _leakage(activations: NDArray, attributes: NDArray[np.bool_], y: NDArray[np.int64]) -> dict[str, Any] | None:
    """Leakage report as scalars; None where there are too few images to tell."""
    from sparsecbm.evaluation import leakage

    counts = np.bincount(y)
    try:
        return leakage(activations, attributes, y, information=counts[counts > 0].min() >= 3).summary()
    except InputError:
        return None


def meaningless_map(classifier: Any, train: Embeddings, test: Embeddings) -> dict[str, float]:
    """Mean average precision of the same recipe on as many meaningless directions."""
    from sparsecbm._base.directions import matched_directions
    from sparsecbm.embeddings import cache_dir
    from sparsecbm.evaluation import multilabel_metrics, refit, unfitted

    drawn = matched_directions(
        np.asarray(classifier.concept_embeddings), np.random.default_rng(classifier.random_state)
    )
    recipe = unfitted(classifier).set_params(concept_embeddings=drawn)
    model = refit(recipe, np.asarray(train.vectors), np.asarray(train.labels), cache_dir=cache_dir() / "controls")
    return {"meaningless": multilabel_metrics(np.asarray(test.labels), model.predict_proba(test.vectors))["map"]}


def concept_truth(names: Sequence[str], split: Embeddings) -> tuple[list[int], NDArray[np.bool_]] | None:
    """Return of which concepts every picture knows the truth, and that truth, shape (n, len(known)); None without."""
    labels = split.attributes_of(names)
    known = [] if labels is None else np.flatnonzero(~np.isnan(labels).any(axis=0)).tolist()
    return None if labels is None or not known else (known, labels[:, known] >= 0.5)


def headline(metrics: Mapping[str, Any]) -> list[Figure]:
    """Put the metrics of `measure`, and of the controls beside it, into words, leaving out what was not measured."""
    return list(_figures(metrics))


def _figures(metrics: Mapping[str, Any]) -> Iterator[Figure]:
    active, n = metrics["active_concepts"], metrics["n_images"]
    if "map" in metrics:
        yield Figure("Mean average precision", f"{metrics['map']:.3f}", f"over classes; {n:,} pictures")
        yield Figure("F1", f"{metrics['f1']:.3f}", f"mean over classes; {metrics['f1_micro']:.3f} of all labels")
        yield Figure("All classes right", f"{metrics['exact']:.1%}", "of the pictures")
        if "meaningless" in metrics:
            yield Figure("Meaningless directions", f"{metrics['meaningless']:.3f}", "their mean average precision")
    else:
        yield Figure("Accuracy", f"{metrics['accuracy']:.1%}", f"{metrics['correct']:,} of {n:,} pictures")
    for key, found in (metrics.get("advantage") or {}).items():
        if key == "equal_freedom" and found == metrics["advantage"]["own_recipe"]:
            continue
        free = ", as free to turn as the concepts" if key == "equal_freedom" else ""
        yield Figure("Meaningless directions", f"{found['accuracy']:.1%}", f"as many, by the same recipe{free}")
        gap, low, high = (f"{100 * found[part]:+.1f}" for part in ("difference", "low", "high"))
        over = "95% interval" if found.get("draws", 1) > 1 else "95% interval over pictures, one draw:"
        yield Figure("Owed to what concepts mean", gap, f"points of accuracy; {over} {low} to {high}")
    if (used := metrics.get("used_concepts")) is not None:
        yield Figure("Concepts in a decision", f"{used['mean']:.1f}", "active, with a weight for the class; mean")
    note = f"at most {active['max']}; {active['zero_share']:.0%} zeros"
    yield Figure("Active concepts per image", f"{active['mean']:.1f}", note)
    yield Figure("NEC", f"{metrics['nec']:.1f}", "head weights per class")
    if "survival" in metrics:
        note = "of a concept's top 20 pictures stay its unit's top 20"
        yield Figure("Survival", f"{metrics['survival']:.0%}", note)
    note = "unit j against concept j, correlation"
    if (tail := metrics.get("alignment")) is not None:
        note = f"unit against concept; of those that decide {tail['p5']:.2f} (5%), least {tail['min']:.2f}"
    yield Figure("Name alignment", f"{metrics['name_alignment']:.3f}", note)
    if metrics.get("plausibility") is not None:
        yield Figure("Plausibility", f"{metrics['plausibility']:.2f}", "of the reasons, going by texts; 0.5 is chance")
    if (auc := metrics.get("concept_auc")) is not None:
        yield Figure("Concept AUC", f"{auc['mean']:.3f}", f"activations against truth; units {auc['units']:.3f}")
    if (found := metrics.get("concepts")) is not None:
        worst = max(found["each"], key=lambda name: found["each"][name]["ece"])
        most = f"most of {worst}, {found['each'][worst]['ece']:.3f}"
        note = f"error (ECE) of the probabilities of {len(found['each'])} concepts; {most}"
        yield Figure("Concept calibration", f"{found['ece']:.3f}", note)
    if (parts := metrics.get("clarity")) is not None:
        note = f"accuracy, sparsity {parts['sparsity']:.2f} and precision {parts['precision']:.2f} in one"
        yield Figure("Clarity", f"{parts['clarity']:.2f}", note)
    if "linear_probe" in metrics:
        yield Figure("Linear probe", f"{metrics['linear_probe']:.1%}", "black box on the same embeddings")
