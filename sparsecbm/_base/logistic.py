"""Many logistic regressions on one signal each, all of them by Newton steps at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


def sigmoid(z: FloatArray) -> FloatArray:
    """1 / (1 + exp(-z)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * z))


def logistic_columns(
    x: FloatArray,
    y: NDArray,
    weight: FloatArray | None = None,
    slope: FloatArray | float = 0.0,
    intercept: FloatArray | float = 0.0,
    precision: tuple[FloatArray | float, FloatArray | float] = (1.0, 0.0),
    iterations: int = 100,
) -> tuple[FloatArray, FloatArray]:
    """Fit P(y_ij = 1) = sigmoid(a_j x_ij + b_j) for every column j (Platt 1999), in a hundredth of a loop's time.

    Minimises the sum of cross-entropies plus half of ``precision`` times the squared distance of (a_j, b_j) from
    ``slope`` and ``intercept``: a normal prior around them. The defaults are scikit-learn's LogisticRegression.

    Parameters
    ----------
    x : ndarray of shape (n, M)
    y : ndarray of shape (n, M)
        In [0, 1]; anything where the weight is 0.
    weight : ndarray of shape (n, M), optional
        0 leaves an entry out.
    slope, intercept : ndarray of shape (M,) or float
        Centre of the prior, and the start.
    precision : tuple of ndarray of shape (M,) or float
        Of the prior, for slope and intercept; 0 is none.
    iterations : int
        Newton steps at most.

    Returns
    -------
    slope, intercept : ndarray of shape (M,)
    """
    w = np.ones(x.shape) if weight is None else weight
    # An entry left out may be NaN, and NaN times 0 is not 0.
    x, y = np.where(w > 0, x, 0.0), np.where(w > 0, y, 0.0)
    a0, b0 = (np.broadcast_to(np.asarray(value, dtype=np.float64), x.shape[1:]) for value in (slope, intercept))
    a, b = a0.copy(), b0.copy()

    def loss(a: FloatArray, b: FloatArray) -> FloatArray:
        z = x * a + b
        prior = precision[0] * (a - a0) ** 2 + precision[1] * (b - b0) ** 2
        return (w * (np.logaddexp(0.0, z) - z * y)).sum(axis=0) + 0.5 * prior

    now = loss(a, b)
    for _ in range(iterations):
        p = sigmoid(x * a + b)
        curvature, error = w * np.maximum(p * (1 - p), 1e-12), w * (p - y)
        g1 = (x * error).sum(axis=0) + precision[0] * (a - a0)
        g0 = error.sum(axis=0) + precision[1] * (b - b0)
        h11 = (curvature * x * x).sum(axis=0) + precision[0]
        h10, h00 = (curvature * x).sum(axis=0), curvature.sum(axis=0) + precision[1]
        determinant = np.maximum(h11 * h00 - h10**2, 1e-300)
        d1, d0 = (h00 * g1 - h10 * g0) / determinant, (h11 * g0 - h10 * g1) / determinant
        if (d1 * g1 + d0 * g0).max(initial=0.0) < 1e-10:
            break
        step = np.ones_like(a)
        for _ in range(30):  # halve the step where it does not go down: Newton may overshoot far from the minimum
            after = loss(a - step * d1, b - step * d0)
            worse = after > now + 1e-12
            if not worse.any():
                break
            step[worse] /= 2
        a, b, now = a - step * d1, b - step * d0, after
    return a, b
