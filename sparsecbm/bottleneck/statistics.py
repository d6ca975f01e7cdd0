"""Mean and shrunk covariance of embeddings, streamed over the rows in two passes, and the whitening they define."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm.bottleneck.rows import Rows

_ROWS = 8192  # rows at a time: a memory-mapped matrix larger than memory is read in pieces


@dataclass(frozen=True)
class Whitening:
    """The affine map h = (x - center) @ matrix that makes training embeddings uncorrelated with unit variance.

    Attributes
    ----------
    center : ndarray of shape (d,), float64
        Mean training embedding.
    covariance : ndarray of shape (d, d), float64
        Sample covariance, not shrunk.
    matrix : ndarray of shape (d, d), float64
        S^(-1/2), S the shrunk covariance; symmetric.
    inverse : ndarray of shape (d, d), float64
        S^(1/2).
    """

    center: np.ndarray
    covariance: np.ndarray
    matrix: np.ndarray
    inverse: np.ndarray


def whitening(X: ArrayLike | Rows, shrinkage: float) -> Whitening:
    """Estimate the whitening of the rows of `X`.

    Parameters
    ----------
    X : array-like or Rows of shape (n, d)
        Embeddings; memory-mapped arrays are read in pieces, sums are float64.
    shrinkage : float
        In [0, 1]: S = (1 - shrinkage) * covariance + shrinkage * (trace / d) * I (Ledoit & Wolf 2004, with a given
        intensity).

    Raises
    ------
    InputError
        If `shrinkage` is outside [0, 1].
    """
    if not 0.0 <= shrinkage <= 1.0:
        raise InputError(f"covariance_shrinkage={shrinkage!r}: expected a number in [0, 1]")
    if not isinstance(X, Rows):
        X = np.asanyarray(X)
    n, d = X.shape
    center = np.zeros(d)
    for start in range(0, n, _ROWS):
        center += X[start : start + _ROWS].sum(axis=0, dtype=np.float64)
    center /= n
    scatter = np.zeros((d, d))
    for start in range(0, n, _ROWS):
        rows = X[start : start + _ROWS].astype(np.float64) - center
        scatter += rows.T @ rows
    covariance = scatter / n
    variance = np.trace(covariance) / d
    # Float32 tells numbers of this size apart by 6e-8 of it: what differs by less than 100 times that is noise.
    floor = (6e-6 * float(np.abs(center).max())) ** 2
    if variance < floor:
        warnings.warn(
            "the rows of X are nearly all the same: what tells them apart is little more than their rounding; "
            "are these the embeddings you meant?",
            stacklevel=4,
        )
    mean_variance = max(variance, floor) or 1.0
    shrunk = (1.0 - shrinkage) * covariance + shrinkage * mean_variance * np.eye(d)
    values, vectors = np.linalg.eigh(shrunk)
    values = np.maximum(values, max(1e-10 * mean_variance, floor))  # shrinkage 0 on fewer rows than columns is singular
    return Whitening(center, covariance, (vectors * values**-0.5) @ vectors.T, (vectors * values**0.5) @ vectors.T)


def class_means(X: np.ndarray | Rows, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Mean rows (K, d), float64, of each class in one pass; zero for a class without rows.

    Labels are class numbers (n,), or 0 and 1 (n, K).
    """
    from scipy.sparse import csr_matrix

    sums = np.zeros((n_classes, X.shape[1]))
    for start in range(0, len(labels), _ROWS):
        some = labels[start : start + _ROWS]
        if some.ndim == 2:
            members = csr_matrix(some.T)
        else:
            members = csr_matrix((np.ones(len(some)), (some, np.arange(len(some)))), (n_classes, len(some)))
        sums += members @ X[start : start + _ROWS].astype(np.float64)
    counts = labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=n_classes)
    return sums / np.maximum(counts, 1)[:, None]
