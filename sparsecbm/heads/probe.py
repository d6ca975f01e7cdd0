"""The dense linear classifier of embeddings that every sparse or named one is measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._errors import InputError
from sparsecbm.heads.multinomial import make_problem, multinomial_logistic


def fit_linear_probe(
    X: ArrayLike,
    labels: NDArray[np.int64],
    *,
    C: float = 0.1,
    sample_weight: ArrayLike | None = None,
    tol: float = 1e-6,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression on embeddings, centred and scaled by one number.

    Minimises ``C * sum_i s_i CE(y_i, W z_i + b) + ||W||^2 / 2``, z = sqrt(d) (x - mean): unit rows of d dimensions have
    coordinates of variance about 1 / d, and the factor makes `C` comparable across encoders. The intercepts are not
    penalised.

    Parameters
    ----------
    X : array-like of shape (n, d)
    labels : ndarray of int64, shape (n,)
        Class numbers 0..K-1.
    C : float
        Inverse of the penalty, above 0.
    sample_weight : array-like of shape (n,), optional
        Non-negative.
    tol : float
        Relative duality gap.

    Returns
    -------
    coef : ndarray of shape (K, d)
        For X as it comes in.
    intercept : ndarray of shape (K,)

    Raises
    ------
    InputError
        If `C` is not a finite number above 0, or data are invalid.

    Examples
    --------
    >>> coef, intercept = fit_linear_probe([[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]], np.array([0, 0, 1, 1]))
    >>> ([0.0, 0.9] @ coef.T + intercept).argmax()
    np.int64(0)
    """
    if not np.isfinite(C) or C <= 0:
        raise InputError(f"C={C!r}: expected a finite number above 0")
    X = np.asarray(X, dtype=np.float64)
    weights = np.ones(len(X)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    total = float(weights.sum())
    if total <= 0:
        raise InputError("sample_weight: the weights add up to 0; expected some above 0")
    mean = weights @ X / total
    scale = np.sqrt(X.shape[1])
    problem = make_problem((X - mean) * scale, labels, weights)
    found = multinomial_logistic(problem, l1=0.0, l2=1.0 / (C * total), tol=tol)
    coef = found.coef * scale
    return coef, found.intercept - coef @ mean
