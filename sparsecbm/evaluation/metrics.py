"""Numbers that every evaluation reports: accuracy and calibration, sparsity, intervals."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import bootstrap, norm, t
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    log_loss,
    roc_auc_score,
    top_k_accuracy_score,
)

from sparsecbm._base.errors import InputError

_BINS = 15


def check_matrix(name: str, value: Any) -> np.ndarray:
    """Return `value` as a matrix of finite numbers, or say what is wrong with it."""
    value = np.asarray(value)
    if value.ndim != 2 or 0 in value.shape:
        raise InputError(f"{name} has shape {value.shape}: expected two dimensions, none of them empty")
    if not np.isfinite(value).all():
        raise InputError(f"{name} holds NaN or infinite values: expected finite numbers")
    return value


def classification_metrics(y: ArrayLike, proba: ArrayLike) -> dict[str, float]:
    """Accuracy, top-5, balanced accuracy, log loss and calibration error.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Column of `proba` that is right.
    proba : array-like of shape (n, K)
        Class probabilities, rows summing to 1.

    Returns
    -------
    dict
        ``accuracy``, ``balanced_accuracy``, ``top_5_accuracy`` (for more than five classes), ``log_loss`` (nats),
        ``ece``; all but the log loss in [0, 1].

    Raises
    ------
    InputError
        If rows are no probabilities, or labels do not fit them.

    Examples
    --------
    >>> classification_metrics([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])["accuracy"]
    0.6666666666666666
    """
    table, y = check_matrix("proba", proba), np.asarray(y)
    if table.min() < 0 or np.abs(table.sum(1) - 1).max() > 1e-3:
        raise InputError("proba holds rows that are not probabilities: expected non-negative rows that sum to 1")
    columns = np.arange(table.shape[1])
    if y.shape != (len(table),) or not np.isin(y, columns).all():
        raise InputError(f"y has shape {y.shape}: expected a label a row, {len(table)} of 0 to {len(columns) - 1}")
    with warnings.catch_warnings():  # a class that is predicted but absent from y is no news here
        warnings.simplefilter("ignore", UserWarning)
        balanced = float(balanced_accuracy_score(y, table.argmax(1)))
    out = {"accuracy": float(accuracy_score(y, table.argmax(1))), "balanced_accuracy": balanced}
    if len(columns) > 5:
        out["top_5_accuracy"] = float(top_k_accuracy_score(y, table, k=5, labels=columns))
    normalised = table.astype(float) / table.sum(1, keepdims=True, dtype=float)
    out["log_loss"] = float(log_loss(y, normalised, labels=columns))
    out["ece"] = expected_calibration_error(y, normalised)
    return out


def multilabel_metrics(Y: ArrayLike, proba: ArrayLike) -> dict[str, float]:
    """Of classes that do not exclude each other.

    Parameters
    ----------
    Y : array-like of shape (n, K)
        0 and 1.
    proba : array-like of shape (n, K)
        Probability of each class by itself.

    Returns
    -------
    dict
        ``map``: average precision, mean over classes with a positive; ``f1`` and ``f1_micro`` at probability .5, mean
        over classes and of all entries; ``exact``: rows with every class right; ``ece``: calibration error, mean over
        classes.

    Raises
    ------
    InputError
        If shapes do not fit, or labels are not 0 and 1.
    """
    table, truth = check_matrix("proba", proba), np.asarray(Y)
    if truth.shape != table.shape or not np.isin(truth, (0, 1)).all():
        raise InputError(f"Y has shape {truth.shape}: expected 0 and 1 of shape {table.shape}")
    truth, said = truth.astype(int), table > 0.5
    names = list(map(str, range(table.shape[1])))
    held = truth.any(axis=0)
    return {
        "map": float(average_precision_score(truth[:, held], table[:, held])) if held.any() else 0.0,
        "f1": float(f1_score(truth, said, average="macro", zero_division=0)),
        "f1_micro": float(f1_score(truth, said, average="micro", zero_division=0)),
        "exact": float((said == truth).all(axis=1).mean()),
        "ece": float(concept_reliability(truth, np.clip(table, 0, 1), names)["ece"]),
    }


def expected_calibration_error(y: ArrayLike, proba: ArrayLike) -> float:
    """Expected calibration error of the predicted class (Guo et al. 2017, eq. 3), 15 bins of equal width.

    Parameters
    ----------
    y : array-like of int, shape (n,)
        Column of `proba` that is right.
    proba : array-like of shape (n, K)
        Class probabilities.

    Returns
    -------
    float
        In [0, 1]; 0 where confidence equals accuracy in every bin (i / 15, (i + 1) / 15].
    """
    proba = check_matrix("proba", proba)
    confidence, right = proba.max(1), (proba.argmax(1) == np.asarray(y)).astype(float)
    bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
    return float(np.abs(np.bincount(bins, right - confidence, minlength=_BINS)).sum() / len(right))


def concept_reliability(C: ArrayLike, proba: ArrayLike, names: Sequence[str]) -> dict[str, Any]:
    """How far probabilities of concepts can be trusted, over labelled entries.

    Parameters
    ----------
    C : array-like of shape (n, M)
        Truth in [0, 1]; NaN where it is not known.
    proba : array-like of shape (n, M)
        Predicted presence in [0, 1].
    names : sequence of str, length M

    Returns
    -------
    dict
        ``ece``: calibration error (`expected_calibration_error`, of presence itself), mean over concepts; ``bins``: for
        all concepts together, mean probability, share present and number of entries of each of 15 bins of equal width
        that holds any; ``each``: by name ``ece``, ``auc`` (None where truth does not vary), ``labelled``, ``present``.

    Examples
    --------
    >>> found = concept_reliability([[1], [0], [np.nan]], [[0.9], [0.2], [0.3]], ["crest"])
    >>> round(found["ece"], 3), found["each"]["crest"]["labelled"]
    (0.15, 2)
    """
    truth, p = np.asarray(C, dtype=float), check_matrix("proba", proba).astype(float)
    if truth.shape != p.shape or len(names) != p.shape[1]:
        raise InputError(
            f"C {truth.shape}, proba {p.shape} and {len(names)} names do not fit: expected one shape (n, M)"
        )
    known = ~np.isnan(truth)
    truth = np.where(known, truth, 0.0)
    cell = np.minimum((p * _BINS).astype(int), _BINS - 1)
    each: dict[str, dict[str, Any]] = {}
    for j in np.flatnonzero(known.any(axis=0)).tolist():
        rows = known[:, j]
        t, q = truth[rows, j], p[rows, j]
        gaps = np.abs(np.bincount(cell[rows, j], t - q, minlength=_BINS))
        varies = 0 < (t >= 0.5).sum() < len(t)
        auc = float(roc_auc_score(t >= 0.5, q)) if varies else None
        counts = {"labelled": len(t), "present": int((t >= 0.5).sum())}
        each[names[j]] = {"ece": float(gaps.sum() / len(t)), "auc": auc, **counts}
    sums = [np.bincount(cell[known], part, minlength=_BINS) for part in (p[known], truth[known], np.ones(known.sum()))]
    bins = [[float(a / n), float(b / n), int(n)] for a, b, n in zip(*sums) if n]
    mean = float(np.mean([found["ece"] for found in each.values()])) if each else 0.0
    return {"ece": mean, "bins": bins, "each": each}


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
    used = check_matrix("A", A) != 0
    rows = used.sum(1)
    return {
        "mean": float(rows.mean()),
        "max": int(rows.max()),
        "zero_share": float(1 - used.mean()),
        "never": int((~used.any(0)).sum()),
    }


def paired_bootstrap(
    first: ArrayLike,
    second: ArrayLike,
    *,
    n_resamples: int = 2000,
    random_state: int | np.random.Generator | None = 0,
) -> dict[str, float]:
    """Difference of two methods on the same images, with a percentile interval over resampled images.

    Parameters
    ----------
    first, second : array-like of shape (n,)
        A number for each image (1 for right, 0 for wrong), in the same order.
    n_resamples : int
        Bootstrap samples.
    random_state : int, Generator or None
        Seed of the resampling.

    Returns
    -------
    dict
        ``difference`` (mean of first minus second), ``low`` and ``high`` (95% interval), ``p_value`` (two-sided, of no
        difference, by the share of resampled differences on the other side of zero; at least 1 / n_resamples).
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or first.size == 0:
        raise InputError(f"shapes {first.shape} and {second.shape}: expected one number for each of the same images")
    gaps = first - second
    if gaps.size == 1:  # one picture has no spread to resample
        low = high = gaps.item()
        draws = gaps
    else:
        found = bootstrap(
            (gaps,),
            np.mean,
            n_resamples=n_resamples,
            batch=max(1, 2**21 // gaps.size),
            method="percentile",
            random_state=np.random.default_rng(random_state),
        )
        (low, high), draws = found.confidence_interval, found.bootstrap_distribution
    tail = min((draws <= 0).mean(), (draws >= 0).mean())
    return {
        "difference": float(gaps.mean()),
        "low": float(low),
        "high": float(high),
        "p_value": float(min(1.0, max(2 * tail, 1 / n_resamples))),
    }


def paired_difference(
    first: ArrayLike, draws: Sequence[Any], *, random_state: int | np.random.Generator | None = 0
) -> dict[str, float]:
    """Difference of a method from a random one, drawn once or several times, on the same images.

    One draw: `paired_bootstrap` over the images. R draws: `first` is compared with their mean, and under "no
    difference" it is one draw more. The variance is that over images (bootstrap) plus (1 + 1/R) times the variance of
    the draws' means; the interval is Student's, its degrees of freedom after Welch and Satterthwaite.

    Parameters
    ----------
    first : array-like of shape (n,)
        A number for each image (1 for right, 0 for wrong).
    draws : sequence of R array-likes of shape (n,)
        The same of each draw.
    random_state : int, Generator or None
        Seed of the resampling.

    Returns
    -------
    dict
        As `paired_bootstrap`, at 95%.
    """
    found = paired_bootstrap(first, np.mean(draws, axis=0), random_state=random_state)
    of_draws = float(np.var(np.mean(draws, axis=1), ddof=1)) * (1 + 1 / len(draws)) if len(draws) > 1 else 0.0
    if of_draws == 0:
        return found
    over_images = ((found["high"] - found["low"]) / (2 * norm.ppf(0.975))) ** 2
    total = over_images + of_draws
    student = t(total**2 / of_draws**2 * (len(draws) - 1))
    width = float(student.ppf(0.975) * np.sqrt(total))
    return {
        "difference": found["difference"],
        "low": found["difference"] - width,
        "high": found["difference"] + width,
        "p_value": float(2 * student.sf(abs(found["difference"]) / np.sqrt(total))),
    }
