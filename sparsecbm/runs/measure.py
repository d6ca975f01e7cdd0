"""The metrics of a fitted model on one split, and how they are put into words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._errors import InputError
from sparsecbm.explain.report import Figure
from sparsecbm.runs.results import plain

if TYPE_CHECKING:
    from sparsecbm.estimators import SparseCBMClassifier
    from sparsecbm.runs.data import EmbeddedSplit

_ROWS = 8192
MAX_MEASURED = 20_000
"""Images, evenly spread, on which name alignment and concept AUC are measured: they need (n, M) arrays at once."""


def measure(classifier: SparseCBMClassifier, split: EmbeddedSplit) -> dict[str, Any]:
    """Measure accuracy, sparsity and meaning on one split.

    Parameters
    ----------
    classifier : SparseCBMClassifier
        Fitted on class indices.
    split : EmbeddedSplit
        With labels.

    Returns
    -------
    dict
        JSON values: ``accuracy`` and other classification metrics, ``active_concepts`` (mean, max, ...), ``nec``,
        ``name_alignment``, and ``warnings``; where the pictures know which concepts they show, also ``concept_auc``
        and ``leakage`` (how much more the activations know about the class than the true concepts do).

    Raises
    ------
    InputError
        If the split has no labels, or a label the model was not trained on.
    """
    from sparsecbm.evaluation import active_concepts, classification_metrics, concept_auc, disguise, name_alignment
    from sparsecbm.heads import nec

    if split.labels is None:
        raise InputError("these pictures have no labels: there is nothing to measure against; try `sparsecbm predict`")
    X, y = split.vectors, np.asarray(split.labels)
    unknown = np.setdiff1d(y, classifier.classes_)
    if len(unknown):
        raise InputError(
            f"label {unknown[0]} is not among the {len(classifier.classes_)} classes the model was trained on"
        )
    columns = np.searchsorted(classifier.classes_, y)
    proba = np.concatenate([classifier.predict_proba(X[i : i + _ROWS]) for i in range(0, len(X), _ROWS)])
    rows = spread(len(X), MAX_MEASURED)
    kept = np.asarray(X[rows])
    activations, units = classifier.transform(kept), classifier.units(kept)
    alignment, _ = name_alignment(units, classifier.concept_scores(kept))
    metrics: dict[str, Any] = {
        "n_images": len(X),
        "correct": int((proba.argmax(axis=1) == columns).sum()),
        **classification_metrics(columns, proba),
        "active_concepts": active_concepts(activations),
        "nec": nec(classifier.head_weights_),
        "name_alignment": alignment,
    }
    note = disguise(
        len(classifier.concept_names_), X.shape[1], classifier.head_weights_, metrics["active_concepts"]["mean"]
    )
    metrics["warnings"] = [] if note is None else [note]
    truth = concept_truth(classifier.concept_names_, split)
    if truth is not None:
        known, attributes = truth
        of_activations, each = concept_auc(activations[:, known], attributes[rows])
        of_units, _ = concept_auc(units[:, known], attributes[rows])
        names = [classifier.concept_names_[j] for j in known]
        metrics["concept_auc"] = {"mean": of_activations, "units": of_units, "each": dict(zip(names, each))}
    attributes = getattr(split.images, "attributes", None)
    if attributes is not None:
        metrics["leakage"] = _leakage(activations, attributes[rows], columns[rows])
    return plain(metrics)


def _leakage(activations: NDArray, attributes: NDArray[np.bool_], y: NDArray[np.int64]) -> dict[str, Any] | None:
    """Leakage report as scalars; None where there are too few images to tell."""
    from sparsecbm.evaluation import leakage

    counts = np.bincount(y)
    try:
        return leakage(activations, attributes, y, information=counts[counts > 0].min() >= 3).summary()
    except InputError:
        return None


def concept_truth(names: Sequence[str], split: EmbeddedSplit) -> tuple[list[int], NDArray[np.bool_]] | None:
    """Return which concepts the pictures know the truth of, and that truth, shape (n, len(known)); None without."""
    attributes = getattr(split.images, "attributes", None)
    if attributes is None:
        return None
    column = {name: j for j, name in enumerate(split.images.attribute_names)}  # type: ignore[union-attr]
    known = [j for j, name in enumerate(names) if name in column]
    if not known:
        return None
    return known, attributes[:, [column[names[j]] for j in known]]


def spread(n: int, limit: int) -> NDArray[np.int64]:
    """Return at most `limit` row numbers, evenly spread over n rows."""
    return np.arange(n) if n <= limit else np.linspace(0, n - 1, limit).round().astype(np.int64)


def headline(metrics: Mapping[str, Any]) -> list[Figure]:
    """Put the metrics of `measure` into words, leaving out what was not measured."""
    active = metrics["active_concepts"]
    n, most = metrics["n_images"], active["max"]
    figures = [
        Figure("Accuracy", f"{metrics['accuracy']:.1%}", f"{metrics['correct']:,} of {n:,} pictures"),
        Figure(
            "Active concepts per image", f"{active['mean']:.1f}", f"at most {most}; {active['zero_share']:.0%} zeros"
        ),
        Figure("NEC", f"{metrics['nec']:.1f}", "head weights per class"),
        Figure("Name alignment", f"{metrics['name_alignment']:.3f}", "unit j against concept j, correlation"),
    ]
    if "concept_auc" in metrics:
        auc = metrics["concept_auc"]
        figures.append(
            Figure("Concept AUC", f"{auc['mean']:.3f}", f"activations against truth; units {auc['units']:.3f}")
        )
    if "linear_probe" in metrics:
        figures.append(Figure("Linear probe", f"{metrics['linear_probe']:.1%}", "black box on the same embeddings"))
    return figures
