"""The part of a plain vocabulary that has to do with the task: ranked by embeddings of class names or of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.rows import as_numpy, unit_rows
from sparsecbm.concepts.concept_set import ConceptSet

_BLOCK = 1024
_FLOOR = 1e-12  # a difference from the mean this short is rounding


def relevance_to_classes(concept_embeddings: ArrayLike, class_embeddings: ArrayLike) -> NDArray[np.float64]:
    """Return how near each concept is to each class text, shape (K, M): cosine after removing the concepts' mean.

    Texts of one encoder share a large component, in which all cosines are alike; without it they tell concepts apart.
    Negative values are set to zero.
    """
    concepts, classes = _unit(concept_embeddings, "concept_embeddings"), _unit(class_embeddings, "class_embeddings")
    mean = concepts.mean(axis=0)
    return np.maximum(unit_rows(classes - mean, floor=_FLOOR) @ unit_rows(concepts - mean, floor=_FLOOR).T, 0.0)


def relevance_to_images(
    concept_embeddings: ArrayLike, image_embeddings: ArrayLike, *, top_images: int = 20
) -> NDArray[np.float64]:
    """Return how strongly each concept shows, shape (M,): mean cosine to its `top_images` nearest pictures.

    Both sides are centred by their own means, which removes the gap between pictures and texts. Negative values are set
    to zero.
    """
    concepts, images = _unit(concept_embeddings, "concept_embeddings"), _unit(image_embeddings, "image_embeddings")
    concepts = unit_rows(concepts - concepts.mean(axis=0), floor=_FLOOR)
    centre = images.mean(axis=0)
    count = min(top_images, len(images))
    best = np.full((count, len(concepts)), -np.inf)
    for start in range(0, len(images), _BLOCK):
        cosine = unit_rows(images[start : start + _BLOCK] - centre, floor=_FLOOR) @ concepts.T
        best = np.partition(np.concatenate([best, cosine]), -count, axis=0)[-count:]
    return np.maximum(best.mean(axis=0), 0.0)


def vocabulary_concepts(
    names: Sequence[str],
    concept_embeddings: ArrayLike,
    *,
    class_names: Sequence[str] | None = None,
    class_embeddings: ArrayLike | None = None,
    image_embeddings: ArrayLike | None = None,
    per_class: int = 20,
    top: int | None = None,
    provenance: dict[str, Any] | None = None,
) -> ConceptSet:
    """Keep the names of a vocabulary that belong to the classes, or that show in the pictures.

    Parameters
    ----------
    names : sequence of str of length M
    concept_embeddings : array-like of shape (M, d)
    class_names, class_embeddings : sequence of str of length K, array-like of shape (K, d), optional
        Keep the `per_class` nearest names of each class.
    image_embeddings : array-like of shape (n, d), optional
        Keep the `top` names that show most; with classes too, both must be given a place.
    per_class : int
    top : int, optional
        At most so many names in all, those of the largest relevance.
    provenance : dict, optional

    Returns
    -------
    ConceptSet
        In the order of the vocabulary, with relevance where there are classes.

    Raises
    ------
    InputError
        If neither classes nor pictures are given, or shapes do not fit.
    """
    if class_embeddings is None and image_embeddings is None:
        raise InputError("a vocabulary is ranked by class names or by pictures: give one of them")
    keep = np.ones(len(names), dtype=bool)
    score = np.zeros(len(names))
    relevance = near = positive = None
    if class_embeddings is not None:
        relevance = relevance_to_classes(concept_embeddings, class_embeddings)
        if relevance.shape != (len(class_names or ()), len(names)):
            raise InputError(
                f"{relevance.shape[0]} class and {relevance.shape[1]} concept embeddings for {len(class_names or ())} "
                f"classes and {len(names)} names: expected one each"
            )
        order = np.argsort(-relevance, axis=1, kind="stable")[:, :per_class]
        near = np.zeros(relevance.shape, dtype=bool)
        np.put_along_axis(near, order, True, axis=1)
        positive = relevance > 0
        near &= positive
        keep &= near.any(axis=0)
        score = np.where(near, relevance, 0.0).max(axis=0)
        relevance = np.where(near, relevance, 0.0)
    if image_embeddings is not None:
        shown = relevance_to_images(concept_embeddings, image_embeddings)
        score = shown if class_embeddings is None else score * shown
        keep &= shown > 0
    candidates = np.flatnonzero(keep)
    if not len(candidates):
        raise InputError(f"none of the {len(names)} names is nearer to a class than the average one: try another file")
    if top is not None:
        candidates = np.sort(candidates[np.argsort(-score[candidates], kind="stable")[:top]])
    made = ConceptSet(
        [names[int(j)] for j in candidates],
        relevance=None if relevance is None else relevance[:, candidates],
        class_names=None if relevance is None else class_names,
        provenance=provenance,
    )
    reasons = (
        "nearer to no class than the average word",
        f"not among the {per_class} nearest words of any class",
        "shows in no picture more than the average word",
        f"not among the {top} that show most",
    )
    why = np.where(keep, 3, 2)
    if near is not None and positive is not None:
        why = np.where(near.any(axis=0), why, np.where(positive.any(axis=0), 1, 0))
    return made.noted((names[j], reasons[why[j]]) for j in np.setdiff1d(np.arange(len(names)), candidates).tolist())


def _unit(values: ArrayLike, what: str) -> NDArray[np.float64]:
    rows = np.asarray(as_numpy(values), dtype=np.float64)
    if rows.ndim != 2 or 0 in rows.shape:
        raise InputError(f"{what} has shape {rows.shape}: expected a filled matrix of finite numbers")
    return unit_rows(rows, what)
