"""The report of a model: ledgers of a split, pictures at a size worth looking at, words for the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm.explain import Ledgers, explain
from sparsecbm.explain.report import build_report, render_report
from sparsecbm.runs.data import EmbeddedSplit
from sparsecbm.runs.measure import headline, spread
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
) -> tuple[str, Ledgers]:
    """Return the page of a model on one split, and the ledgers behind it."""
    rows = spread(len(split.vectors), MAX_REPORTED)
    classifier = model.classifier
    labels = None if split.labels is None else np.searchsorted(classifier.classes_, np.asarray(split.labels)[rows])
    ledgers = split_ledgers(model, split, rows, labels)
    figures = headline(metrics) if metrics is not None else []
    auc = {} if metrics is None else metrics.get("concept_auc", {}).get("each", {})
    limit = classifier.max_active_concepts
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
        concept_auc={name: value for name, value in auc.items() if value is not None},
        examples=examples,
        seed=seed,
    )
    return render_report(page), ledgers


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
        "Loss": f"{classifier.loss} ({classifier.variant})",
        "Most active concepts": str(classifier.max_active_concepts or "no limit"),
        "Head weights per class": str(classifier.concepts_per_class or "no limit"),
        "Concepts from": str((metadata.get("concepts") or {}).get("source", "unknown")),
    }
    rule = getattr(split.images, "split_rule", None)
    if rule:
        facts["Split"] = str(rule)
    return facts
