"""NEC: how many concepts a class effectively uses.

NEC is the number of non-zero head weights per class (Srivastava et al. 2024, VLG-CBM, arXiv 2408.01432). Published
numbers count in three ways, which agree only when every class uses equally many concepts; `counting_rules` gives all.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError


def _weights(coef: ArrayLike) -> np.ndarray:
    coef = np.asarray(coef)
    if coef.ndim != 2 or coef.size == 0:
        raise InputError(f"coef has shape {coef.shape}: expected (classes, concepts); pass the weight matrix of a head")
    return coef


def nec(coef: ArrayLike) -> float:
    """Average number of non-zero weights per class (the published definition).

    Parameters
    ----------
    coef : array-like of shape (K, M)
        Head weights; exact zeros are unused.

    Examples
    --------
    >>> nec([[0.0, 1.0, 2.0], [0.0, 0.0, 3.0]])
    1.5
    """
    coef = _weights(coef)
    return float(np.count_nonzero(coef) / coef.shape[0])


def counting_rules(coef: ArrayLike) -> dict[str, float]:
    """The three usual counts side by side.

    Parameters
    ----------
    coef : array-like of shape (K, M)
        Head weights.

    Returns
    -------
    dict
        ``average``: non-zero weights / K. ``strict``: the most that any class uses.
        ``distinct``: concepts used by at least one class / K (every class may then look at all of them).

    Examples
    --------
    >>> counting_rules([[0.0, 1.0, 2.0], [0.0, 0.0, 3.0]])
    {'average': 1.5, 'strict': 2.0, 'distinct': 1.0}
    """
    used = _weights(coef) != 0
    classes = used.shape[0]
    return {
        "average": float(used.sum() / classes),
        "strict": float(used.sum(1).max()),
        "distinct": float(used.any(0).sum() / classes),
    }


def largest(scores: np.ndarray, concepts_per_class: int, counting: str = "average") -> np.ndarray:
    """Mask of the best positive scores (K, M) under a counting rule; a score <= 0 is never taken."""
    classes, concepts = scores.shape
    if counting == "average":
        return top(scores, concepts_per_class * classes)
    if counting != "strict":
        raise InputError(f"counting={counting!r}: expected 'average' (k * K in all) or 'strict' (at most k a class)")
    mask = np.zeros(scores.shape, bool)
    order = np.argsort(-scores, axis=1, kind="stable")[:, : min(concepts_per_class, concepts)]
    np.put_along_axis(mask, order, True, axis=1)
    return mask & (scores > 0)


def top(scores: np.ndarray, count: int) -> np.ndarray:
    """Mask of the `count` largest positive scores (K, M) of all; ties go to the lower class and concept."""
    mask = np.zeros(scores.shape, bool)
    positive = np.flatnonzero(scores > 0)
    values = scores.ravel()[positive]
    if 0 < count < len(values):  # sort only what can be among them
        edge = np.partition(values, len(values) - count)[len(values) - count]
        positive, values = positive[values >= edge], values[values >= edge]
    mask.flat[positive[np.argsort(-values, kind="stable")[:count]]] = True
    return mask


def anec(accuracies: Sequence[float]) -> float:
    """Mean accuracy over the NEC values of a path (ANEC; VLG-CBM averages NEC = 5, 10, 15, 20, 25, 30)."""
    values = np.asarray(accuracies, dtype=float)
    if values.size == 0:
        raise InputError("accuracies is empty: expected one accuracy for each NEC of a path")
    return float(values.mean())
