"""What the units mean, and whether that is what decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from sparsecbm._base.errors import InputError
from sparsecbm._base.ranks import pair_aucs
from sparsecbm._base.rows import unit_rows
from sparsecbm.evaluation.metrics import check_matrix

SURVIVAL_PICTURES = 20


class UnitScores(NamedTuple):
    """A score for each unit, and their mean.

    Attributes
    ----------
    mean : float
        Mean over the units that have a score.
    per_unit : ndarray of shape (M,)
        One score a unit.
    """

    mean: float
    per_unit: np.ndarray


def _same_shape(units: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    units, scores = check_matrix("units", units).astype(float), check_matrix("scores", scores).astype(float)
    if units.shape != scores.shape:
        raise InputError(f"units have shape {units.shape}, scores {scores.shape}: expected the same shape")
    return units, scores


def name_alignment(units: ArrayLike, scores: ArrayLike) -> UnitScores:
    """Does unit j still mean concept j? Pearson correlation of each unit with its own concept score over images.

    Parameters
    ----------
    units : array-like of shape (n, M)
        Values of the bottleneck's units on held-out images.
    scores : array-like of shape (n, M)
        Concept scores of the same images.

    Returns
    -------
    UnitScores
        ``mean`` over all units, in [-1, 1], and ``per_unit``, where a unit (or score) that is constant counts as 0.

    Raises
    ------
    InputError
        If the shapes differ.

    Examples
    --------
    >>> mean, per_unit = name_alignment([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [[0.0, 5.0], [2.0, 6.0], [4.0, 9.0]])
    >>> [round(float(value), 6) for value in (mean, *per_unit)]
    [0.5, 1.0, 0.0]
    """
    u, s = _same_shape(units, scores)
    constant = (np.ptp(u, axis=0) == 0) | (np.ptp(s, axis=0) == 0)
    u, s = u - u.mean(0), s - s.mean(0)
    per_unit = np.where(constant, 0.0, np.einsum("mn,mn->m", unit_rows(u.T), unit_rows(s.T)))
    per_unit = np.clip(per_unit, -1.0, 1.0)
    return UnitScores(float(per_unit.mean()), per_unit)


def survival(units: ArrayLike, scores: ArrayLike, k: int = SURVIVAL_PICTURES) -> UnitScores:
    """Do the pictures that show a concept most survive its unit?

    Of the `k` pictures with the highest score of concept j, the share that is among the `k` highest of unit j. A unit
    may correlate with its concept at .9 and yet put quite other pictures on top: it turned towards the classes.

    Parameters
    ----------
    units, scores : array-like of shape (n, M)
        As for `name_alignment`.
    k : int
        Pictures; at most a fifth of them all, so that few pictures do not survive by themselves.

    Returns
    -------
    UnitScores
        ``mean`` over all units and ``per_unit``, in [0, 1]; k / n is chance.

    Raises
    ------
    InputError
        If the shapes differ.

    Examples
    --------
    >>> scores = np.arange(100.0)[:, None]
    >>> survival(scores**3, scores).mean, survival(-scores, scores).mean
    (1.0, 0.0)
    """
    units, scores = _same_shape(units, scores)
    k = max(1, min(k, len(units) // 5))
    top = np.zeros(units.shape, dtype=bool)
    np.put_along_axis(top, np.argpartition(-scores, k - 1, axis=0)[:k], True, axis=0)
    per_unit = np.take_along_axis(top, np.argpartition(-units, k - 1, axis=0)[:k], axis=0).mean(axis=0)
    return UnitScores(float(per_unit.mean()), per_unit)


class Decisions(NamedTuple):
    """Which concepts take part in the decisions.

    Attributes
    ----------
    mean, most : float, int
        Concepts used in the decision of a picture: active in it, with a non-zero weight for the class it is given.
    concepts : ndarray of bool, shape (M,)
        Those used in at least one picture.
    """

    mean: float
    most: int
    concepts: np.ndarray


def used_in_decision(activations: ArrayLike, weights: ArrayLike, predicted: ArrayLike) -> Decisions:
    """Count the concepts that decide: active, and with a non-zero weight for the predicted class.

    Parameters
    ----------
    activations : array-like of shape (n, M)
    weights : array-like of shape (K, M)
        Of the head.
    predicted : array-like of int, shape (n,)
        Row of `weights` that each picture was given.

    Examples
    --------
    >>> used_in_decision([[1.0, 0.0, 2.0], [0.5, 1.0, 1.0]], [[3.0, 1.0, 0.0], [0.0, 1.0, 1.0]], [0, 1])[:2]
    (1.5, 2)
    """
    used = (check_matrix("activations", activations) != 0) & (np.asarray(weights) != 0)[np.asarray(predicted)]
    counts = used.sum(axis=1)
    return Decisions(float(counts.mean()), int(counts.max()), used.any(axis=0))


def plausibility(
    activations: ArrayLike,
    weights: ArrayLike,
    predicted: ArrayLike,
    class_texts: ArrayLike,
    concept_embeddings: ArrayLike,
) -> float:
    """Do the concepts that speak for a class belong to it, as far as texts can tell?

    For each class, concepts are ranked by cos(class text, concept text); a picture's plausibility is the mean
    percentile of the concepts that speak for its class, weighted by their contribution (activation times weight).

    Parameters
    ----------
    activations : array-like of shape (n, M)
    weights : array-like of shape (K, M)
        Of the head.
    predicted : array-like of int, shape (n,)
        Row of `weights` that each picture was given.
    class_texts : array-like of shape (K, d)
        Text embeddings of the classes.
    concept_embeddings : array-like of shape (M, d)

    Returns
    -------
    float
        Mean over the pictures for whose class anything speaks, in (0, 1); 0.5 is chance. NaN if there are none.

    Raises
    ------
    InputError
        If the shapes do not go together.

    Examples
    --------
    >>> concepts, classes = np.eye(3), np.array([[1.0, 0.2, 0.0]])
    >>> round(plausibility([[1.0, 0.0, 0.0]], [[1.0, 1.0, 1.0]], [0], classes, concepts), 3)
    0.833
    """
    A, W = check_matrix("activations", activations), check_matrix("weights", weights)
    texts, concepts = check_matrix("class_texts", class_texts), check_matrix("concept_embeddings", concept_embeddings)
    if texts.shape[0] != len(W) or concepts.shape[0] != A.shape[1] or texts.shape[1] != concepts.shape[1]:
        raise InputError(
            f"class texts {texts.shape} and concepts {concepts.shape}: expected {len(W)} and {A.shape[1]} rows of one "
            "width"
        )
    cosines = unit_rows(texts, "class_texts") @ unit_rows(concepts, "concept_embeddings").T
    percentile = (rankdata(cosines, axis=1) - 0.5) / A.shape[1]
    predicted = np.asarray(predicted)
    speaking = np.maximum(A * W[predicted], 0.0)
    total = speaking.sum(axis=1)
    said = total > 0
    if not said.any():
        return float("nan")
    return float(((speaking * percentile[predicted]).sum(axis=1)[said] / total[said]).mean())


def concept_auc(A: ArrayLike, attributes: ArrayLike) -> UnitScores:
    """Area under the ROC curve of each activation against the true attribute of the same number.

    Parameters
    ----------
    A : array-like of shape (n, M)
        Activations; ties (exact zeros above all) count half.
    attributes : array-like of bool, shape (n, M)
        Truth.

    Returns
    -------
    UnitScores
        ``mean`` over the attributes that have both values, in [0, 1] (NaN if there are none), and ``per_unit``, NaN
        where all images agree on the attribute.

    Examples
    --------
    >>> concept_auc([[0.1], [0.4], [0.9]], [[False], [False], [True]]).mean
    1.0
    """
    A, truth = check_matrix("A", A), _truth(attributes, np.shape(A))
    per_concept = pair_aucs(A, truth)
    mean = float("nan") if np.isnan(per_concept).all() else float(np.nanmean(per_concept))
    return UnitScores(mean, per_concept)


def _truth(attributes: ArrayLike, shape: Sequence[int]) -> np.ndarray:
    truth = np.asarray(attributes)
    if truth.shape != tuple(shape):
        raise InputError(f"A has shape {shape}, attributes {truth.shape}: expected one attribute for each activation")
    if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
        raise InputError("attributes hold values other than 0 and 1: expected booleans")
    return truth.astype(bool)


def clarity(accuracy: float, activations: ArrayLike, attributes: ArrayLike) -> Mapping[str, float]:
    """One score of accuracy, sparsity and precision of concepts, where the truth of the concepts is known.

    Their harmonic mean: none of the three can make up for another. Sparsity is the share of concepts that a picture
    leaves out; precision is the share of active concepts that are right: in the picture where the activation is
    positive, absent where it is negative.

    Parameters
    ----------
    accuracy : float
        Of the classes, in [0, 1].
    activations : array-like of shape (n, M)
    attributes : array-like of bool, shape (n, M)
        Truth.

    Returns
    -------
    dict
        ``clarity``, ``sparsity`` and ``precision``, in [0, 1].

    Notes
    -----
    After the idea of Panousis & Marcos 2026, "Clarity" (arXiv 2601.21944): a metric of "the interplay between
    downstream performance and the sparsity and precision of concept activations". The definition above is this
    package's own, so its numbers are not to be compared with theirs.

    Examples
    --------
    >>> clarity(1.0, [[1.0, 0.0], [0.0, 2.0]], [[True, False], [True, True]])
    {'clarity': 0.75, 'sparsity': 0.5, 'precision': 1.0}
    """
    A, truth = check_matrix("activations", activations), _truth(attributes, np.shape(activations))
    active = A != 0
    sparsity = float(1 - active.mean())
    precision = float((truth == (A > 0))[active].mean()) if active.any() else 0.0
    parts = (float(accuracy), sparsity, precision)
    joint = 0.0 if min(parts) <= 0 else 3 / sum(1 / part for part in parts)
    return {"clarity": joint, "sparsity": sparsity, "precision": precision}
