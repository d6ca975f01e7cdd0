"""The report of a model: ledgers of a split, pictures at a size worth looking at, words for the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm.explain import Ledgers, explain
from sparsecbm.explain.cues import find_cues
from sparsecbm.explain.interventions import (
    ConceptTruth,
    InterventionCurve,
    ModelEdits,
    concept_uncertainty,
    intervention_curve,
)
from sparsecbm.explain.interventions.curves import ORDERS
from sparsecbm.explain.report import build_report, render_report
from sparsecbm.runs.data import EmbeddedSplit
from sparsecbm.runs.measure import concept_truth, headline, spread
from sparsecbm.runs.models import StoredModel

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_REPORTED = 10_000
"""Images behind a report's tables, evenly spread; the headline numbers are of all."""


def make_report(
    model: StoredModel,
    split: EmbeddedSplit,
    metrics: Mapping[str, Any] | None,
    *,
    title: str,
    examples: int = 12,
    seed: int = 0,
    train: EmbeddedSplit | None = None,
    controls: Sequence[Mapping[str, Any]] = (),
) -> tuple[str, Ledgers]:
    """Return the page of a model on one split, and the ledgers behind it.

    With the training split the page also says which concepts do not keep what they promised in training, and, where the
    truth of the concepts is known, how true values would help.
    """
    rows = spread(len(split.vectors), MAX_REPORTED)
    classifier = model.classifier
    labels = _columns(model, split, rows)
    ledgers = split_ledgers(model, split, rows, labels)
    known = concept_truth(classifier.concept_names_, split)
    truth = None if known is None else (known[0], known[1][rows])
    cues, curves = None, []
    if labels is not None:
        train_rows = np.arange(0) if train is None else spread(len(train.vectors), MAX_REPORTED)
        train_labels = None if train is None else _columns(model, train, train_rows)
        train_ledgers = None if train_labels is None else split_ledgers(model, train, train_rows, train_labels)
        cues = find_cues(ledgers, labels, train_ledgers, train_labels)
        if train_ledgers is not None and truth is not None:
            curves = _curves(model, split, rows, ledgers, labels, truth, train, train_rows, train_ledgers, seed)
    figures = headline(metrics) if metrics is not None else []
    auc = {} if metrics is None else metrics.get("concept_auc", {}).get("each", {})
    limit = getattr(classifier, "max_active_concepts", None)
    kept = f", at most {limit} of them active in a picture" if limit else ""
    page = build_report(
        ledgers,
        title=title,
        summary=f"A sparse concept bottleneck that tells {len(ledgers.classes):,} classes apart by "
        f"{len(ledgers.concepts):,} named concepts{kept}.",
        figures=figures,
        facts=_facts(model, split),
        labels=labels,
        picture=lambda i: _picture(split, int(rows[i])),
        controls=controls,
        cues=cues,
        edits=ModelEdits(classifier).to_text().splitlines() if "edits" in model.metadata else (),
        curves=curves,
        truth=truth,
        concept_auc={name: value for name, value in auc.items() if value is not None},
        examples=examples,
        seed=seed,
    )
    return render_report(page), ledgers


def _columns(model: StoredModel, split: EmbeddedSplit, rows: np.ndarray) -> np.ndarray | None:
    """Labels as columns of the model's scores."""
    if split.labels is None:
        return None
    return np.searchsorted(model.classifier.classes_, np.asarray(split.labels)[rows])


def _curves(
    model: StoredModel,
    split: EmbeddedSplit,
    rows: np.ndarray,
    ledgers: Ledgers,
    labels: np.ndarray,
    truth: tuple[list[int], np.ndarray],
    train: EmbeddedSplit,
    train_rows: np.ndarray,
    train_ledgers: Ledgers,
    seed: int,
) -> list[InterventionCurve]:
    """Accuracy as concepts are set to their true values, in each order; empty where training has no truth."""
    classifier, (known, flags) = model.classifier, truth
    of_train = concept_truth(classifier.concept_names_, train)
    if of_train is None or of_train[0] != known or not hasattr(classifier, "units"):
        return []
    translated = ConceptTruth.fit(train_ledgers.activations, of_train[1][train_rows], known)
    if not len(translated.known):
        return []
    units = (classifier.units(np.asarray(held.vectors[at])) for held, at in ((split, rows), (train, train_rows)))
    unsure = concept_uncertainty(*units, of_train[1][train_rows], known)
    values = translated.values(flags, known)
    return [intervention_curve(ledgers, labels, values, order=order, uncertainty=unsure, seed=seed) for order in ORDERS]


def split_ledgers(
    model: StoredModel, split: EmbeddedSplit, rows: np.ndarray, labels: np.ndarray | None = None
) -> Ledgers:
    """Return the ledgers of the predicted classes of some rows of a split."""
    names = model.class_names
    return explain(
        model.classifier.transform(np.asarray(split.vectors[rows])),
        model.classifier.head_weights_,
        model.classifier.head_intercept_,
        model.classifier.concept_names_,
        names,
        sources=[split.ids[i] for i in rows],
        truths=None if labels is None else [names[k] for k in labels],
    )


def _picture(split: EmbeddedSplit, i: int) -> Image | None:
    images = split.images
    if images is None:
        return None
    from sparsecbm.data.birds import BirdImages

    if isinstance(images, BirdImages):
        # The painter can paint the same bird larger; 64 pixels are enough for an encoder, not for a reader.
        images = BirdImages(images.split, seed=images.seed, n_images=len(images), size=256, habitat=images.habitat)
    return images[i]


def _facts(model: StoredModel, split: EmbeddedSplit) -> dict[str, str]:
    classifier, metadata = model.classifier, model.metadata
    encoder = metadata.get("encoder") or {}
    images = metadata.get("images") or {}
    facts = {
        "Pictures": f"{images.get('spec', 'embeddings made elsewhere')}, {len(split.vectors):,} shown here",
        "Encoder": f"{encoder.get('spec') or 'unknown'} (frozen)",
        "Model": type(classifier).__name__,
        "Loss": f"{classifier.loss} ({classifier.variant})",
        "Most active concepts": str(classifier.max_active_concepts or "no limit"),
        "Head weights per class": str(classifier.concepts_per_class or "no limit"),
        "Concepts from": str((metadata.get("concepts") or {}).get("source", "unknown")),
    }
    rule = getattr(split.images, "split_rule", None)
    if rule:
        facts["Split"] = str(rule)
    return facts
