"""Numbers that every evaluation reports: accuracy and calibration, sparsity, and what the units mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from scipy.stats import rankdata
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    confusion_matrix,
    log_loss,
    top_k_accuracy_score,
)

from sparsecbm._base.errors import InputError


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


def _matrix(name: str, value: ArrayLike) -> np.ndarray:
    value = np.asarray(value)
    if value.ndim != 2 or 0 in value.shape:
        raise InputError(f"{name} has shape {value.shape}: expected two dimensions, none of them empty")
    if not np.isfinite(value).all():
        raise InputError(f"{name} holds NaN or infinite values: expected finite numbers")
    return value


def classification_metrics(
    y: ArrayLike,
    proba: ArrayLike | None = None,
    *,
    scores: ArrayLike | None = None,
    classes: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    top_k: Sequence[int] = (5,),
    n_bins: int = 15,
) -> dict[str, float]:
    """Accuracy, top-k, balanced accuracy, log loss and calibration error.

    Parameters
    ----------
    y : array-like of shape (n,)
        True labels.
    proba : array-like of shape (n, K)
        Class probabilities, rows summing to 1. Give this or `scores`.
    scores : array-like of shape (n, K)
        Class scores (logits); turned into probabilities by softmax.
    classes : array-like of shape (K,), optional
        Label of each column; by default 0..K-1.
    sample_weight : array-like of shape (n,), optional
        Non-negative weights, used by every number.
    top_k : sequence of int
        Which top-k accuracies to report; those with k >= K are left out.
    n_bins : int
        Bins of the calibration error.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy``, ``top_5_accuracy`` (for each k), ``log_loss`` (nats), ``ece``; all but
        the log loss in [0, 1].

    Raises
    ------
    InputError
        If neither or both of `proba` and `scores` are given, or shapes or labels do not fit.

    Examples
    --------
    >>> classification_metrics([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], top_k=())["accuracy"]
    0.6666666666666666
    """
    if (proba is None) == (scores is None):
        raise InputError("give either proba (n, K) or scores (n, K), and not both")
    table = _matrix("proba", proba) if proba is not None else softmax(_matrix("scores", scores).astype(float), axis=1)
    if proba is not None and (table.min() < 0 or np.abs(table.sum(1) - 1).max() > 1e-3):
        raise InputError("proba holds rows that are not probabilities: give unnormalised values as scores=")
    labels, codes = _codes(y, table, classes)
    weight = None if sample_weight is None else np.asarray(sample_weight, dtype=float)
    predicted = table.argmax(1)
    out = {
        "accuracy": float(accuracy_score(codes, predicted, sample_weight=weight)),
        "balanced_accuracy": _balanced(codes, predicted, weight),
    }
    for k in top_k:
        if k < len(labels):
            hit = top_k_accuracy_score(codes, table, k=k, labels=np.arange(len(labels)), sample_weight=weight) \
                if len(labels) > 2 else out["accuracy"]  # fmt: skip
            out[f"top_{k}_accuracy"] = float(hit)
    normalised = table.astype(float) / table.sum(1, keepdims=True, dtype=float)
    out["log_loss"] = float(log_loss(codes, normalised, labels=np.arange(len(labels)), sample_weight=weight))
    out["ece"] = expected_calibration_error(codes, normalised, sample_weight=weight, n_bins=n_bins)
    return out


def _codes(y: ArrayLike, table: np.ndarray, classes: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    y = np.asarray(y)
    labels = np.arange(table.shape[1]) if classes is None else np.asarray(classes)
    if y.shape != (len(table),) or labels.shape != (table.shape[1],):
        raise InputError(
            f"y has shape {y.shape} and classes {labels.shape} for scores of shape {table.shape}: "
            "expected one label a row and one class a column"
        )
    order = np.argsort(labels, kind="stable")
    position = np.searchsorted(labels[order], y)
    found = order[np.minimum(position, len(labels) - 1)]
    if (labels[found] != y).any():
        stranger = y[labels[found] != y][0]
        raise InputError(f"label {stranger.item()!r} is not among the {len(labels)} classes: pass classes=")
    return labels, found


def _balanced(codes: np.ndarray, predicted: np.ndarray, weight: np.ndarray | None) -> float:
    import warnings

    with warnings.catch_warnings():  # a class that is predicted but absent from y is no news here
        warnings.simplefilter("ignore", UserWarning)
        return float(balanced_accuracy_score(codes, predicted, sample_weight=weight))


def expected_calibration_error(
    y: ArrayLike, proba: ArrayLike, *, sample_weight: ArrayLike | None = None, n_bins: int = 15
) -> float:
    """Expected calibration error of the predicted class (Guo et al. 2017, eq. 3), bins of equal width.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Column of `proba` that is right.
    proba : array-like of shape (n, K)
        Class probabilities.
    sample_weight : array-like of shape (n,), optional
        Weights.
    n_bins : int
        Bins (i / n_bins, (i + 1) / n_bins].

    Returns
    -------
    float
        In [0, 1]; 0 where confidence equals accuracy in every bin.
    """
    proba = _matrix("proba", proba)
    y = np.asarray(y)
    weight = np.ones(len(y)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
    confidence, right = proba.max(1), (proba.argmax(1) == y).astype(float)
    bins = np.clip(np.ceil(confidence * n_bins).astype(int) - 1, 0, n_bins - 1)
    difference = np.bincount(bins, weight * (right - confidence), minlength=n_bins)
    return float(np.abs(difference).sum() / weight.sum())


def confusion(y: ArrayLike, predicted: ArrayLike, classes: ArrayLike | None = None) -> np.ndarray:
    """Confusion matrix (K, K): rows true, columns predicted, in the order of `classes` (by default sorted labels)."""
    return confusion_matrix(y, predicted, labels=classes)


def active_concepts(A: ArrayLike) -> dict[str, float]:
    """How many concepts an image uses: exact non-zeros of its activations, no threshold.

    Parameters
    ----------
    A : array-like of shape (n, M)
        Activations at inference.

    Returns
    -------
    dict
        ``mean`` and ``max`` non-zeros a row, ``zero_share`` (share of entries that are exactly zero, in [0, 1]) and
        ``never`` (concepts that no image uses).

    Examples
    --------
    >>> active_concepts([[0.0, 2.0, 0.0], [1.0, 1.0, 0.0]])
    {'mean': 1.5, 'max': 2, 'zero_share': 0.5, 'never': 1}
    """
    used = _matrix("A", A) != 0
    rows = used.sum(1)
    return {
        "mean": float(rows.mean()),
        "max": int(rows.max()),
        "zero_share": float(1 - used.mean()),
        "never": int((~used.any(0)).sum()),
    }


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
    units, scores = _matrix("units", units).astype(float), _matrix("scores", scores).astype(float)
    if units.shape != scores.shape:
        raise InputError(f"units have shape {units.shape}, scores {scores.shape}: expected the same shape")
    constant = (np.ptp(units, axis=0) == 0) | (np.ptp(scores, axis=0) == 0)
    units, scores = units - units.mean(0), scores - scores.mean(0)
    norms = np.sqrt(np.einsum("nm,nm->m", units, units) * np.einsum("nm,nm->m", scores, scores))
    products = np.einsum("nm,nm->m", units, scores)
    per_unit = np.where(constant | (norms == 0), 0.0, products / np.where(norms == 0, 1.0, norms))
    per_unit = np.clip(per_unit, -1.0, 1.0)
    return UnitScores(float(per_unit.mean()), per_unit)


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
    A, truth = _matrix("A", A), np.asarray(attributes)
    if truth.shape != A.shape:
        raise InputError(f"A has shape {A.shape}, attributes {truth.shape}: expected one attribute for each activation")
    if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
        raise InputError("attributes hold values other than 0 and 1: expected booleans")
    truth = truth.astype(bool)
    positive = truth.sum(0).astype(float)
    negative = len(truth) - positive
    # Mann-Whitney: the rank sum of the positives, ties at their mean rank, for all concepts at once.
    ranks = rankdata(A, axis=0)
    pairs = positive * negative
    wins = np.where(truth, ranks, 0.0).sum(0) - positive * (positive + 1) / 2
    per_concept = np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1.0), np.nan)
    return UnitScores(float(np.nanmean(per_concept)) if (pairs > 0).any() else float("nan"), per_concept)


def mean_sd(values: ArrayLike) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1; NaN for a single value) over seeds."""
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or values.size == 0:
        raise InputError(f"values have shape {values.shape}: expected one number for each seed")
    return float(values.mean()), float(values.std(ddof=1)) if values.size > 1 else float("nan")


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    random_state: int | np.random.Generator | None = 0,
) -> dict[str, float]:
    """Difference of two methods on the same images, with a percentile interval over resampled images.

    Parameters
    ----------
    first, second : array-like of shape (n,)
        A number for each image (1 for right, 0 for wrong), in the same order.
    confidence : float
        Level of the interval, in (0, 1).
    n_resamples : int
        Bootstrap samples.
    random_state : int, Generator or None
        Seed of the resampling.

    Returns
    -------
    dict
        ``difference`` (mean of first minus second), ``low`` and ``high`` (interval), ``p_value`` (two-sided, of no
        difference, by the share of resampled differences on the other side of zero; at least 1 / n_resamples).
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise InputError(f"shapes {first.shape} and {second.shape}: expected one number for each of the same images")
    if not 0 < confidence < 1:
        raise InputError(f"confidence={confidence!r}: expected a number between 0 and 1")
    rng = np.random.default_rng(random_state)
    gaps = first - second
    draws = np.empty(n_resamples)
    for start in range(0, n_resamples, 256):
        count = min(256, n_resamples - start)
        draws[start : start + count] = gaps[rng.integers(gaps.size, size=(count, gaps.size))].mean(1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    tail = min((draws <= 0).mean(), (draws >= 0).mean())
    return {
        "difference": float(gaps.mean()),
        "low": float(low),
        "high": float(high),
        "p_value": float(min(1.0, max(2 * tail, 1 / n_resamples))),
    }
