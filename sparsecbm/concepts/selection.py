"""A small set of concepts that covers the classes: facility location by lazy greedy search."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError


@dataclass(frozen=True, eq=False)
class Selection:
    """What `select_covering` chose.

    Attributes
    ----------
    indices : tuple of int
        Chosen concepts in the order of choice: every prefix is the choice of a smaller size.
    gains : tuple of float
        What each added to the coverage; never increasing.
    value : float
        Coverage F of the whole choice.
    upper_bound : float
        No choice of this size has a larger coverage (Minoux 1978): F plus the largest remaining gains.
    """

    indices: tuple[int, ...]
    gains: tuple[float, ...]
    value: float
    upper_bound: float

    @property
    def guarantee(self) -> float:
        """At least this share of the best coverage is reached; never below 1 - 1/e = 0.632 (Nemhauser et al. 1978)."""
        floor = 1.0 - np.exp(-1.0)
        return 1.0 if self.upper_bound <= 0 else float(max(floor, self.value / self.upper_bound))


def coverage(relevance: ArrayLike, chosen: ArrayLike, *, times: int = 1, weights: ArrayLike | None = None) -> float:
    """Return the coverage F of a choice of concepts; see `select_covering`.

    Examples
    --------
    >>> coverage([[3.0, 1.0], [0.0, 2.0]], [0]), coverage([[3.0, 1.0], [0.0, 2.0]], [0, 1])
    (3.0, 5.0)
    """
    matrix, each = _checked(relevance, weights)
    columns = np.asarray(chosen, dtype=np.int64)
    if not len(columns):
        return 0.0
    best = -np.sort(-matrix[:, columns], axis=1)[:, :times]
    return float(each @ best.sum(axis=1))


def select_covering(relevance: ArrayLike, size: int, *, times: int = 1, weights: ArrayLike | None = None) -> Selection:
    """Choose concepts so that every class has relevant ones among them.

    Greedily maximises

        F(S) = sum_k weight_k * (sum of the `times` largest relevance_kj over j in S)

    which for ``times=1`` is facility location. F is monotone and submodular, so the greedy choice reaches at least
    1 - 1/e of the best coverage of that size; gains only shrink, so most are never computed again (Minoux 1978).

    Parameters
    ----------
    relevance : array-like of shape (K, M)
        How relevant concept j is for class k; not negative. Any rows that should be covered will do: images, say.
    size : int
        Concepts to choose, 1 to M.
    times : int
        How many concepts each class should have; a class counts its `times` best.
    weights : array-like of shape (K,), optional
        Importance of each class; 1 if None.

    Returns
    -------
    Selection
        Ties go to the concept that comes first.

    Raises
    ------
    InputError
        If a value is negative or not finite, or a number is out of range.

    Examples
    --------
    >>> found = select_covering([[0.9, 0.8, 0.1], [0.0, 0.7, 0.2], [0.1, 0.0, 0.6]], 2)
    >>> found.indices, round(found.value, 6)
    ((1, 2), 2.1)
    """
    matrix, each = _checked(relevance, weights)
    n_classes, n_concepts = matrix.shape
    if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or not 1 <= size <= n_concepts:
        raise InputError(f"size={size!r}: expected 1 to {n_concepts}, the number of concepts")
    if isinstance(times, bool) or not isinstance(times, (int, np.integer)) or times < 1:
        raise InputError(f"times={times!r}: expected a whole number of at least 1")
    columns = np.ascontiguousarray(matrix.T)
    held = np.zeros((n_classes, int(times)))  # the best values of each class so far, smallest first

    def gain(j: int) -> float:
        return float(each @ np.maximum(columns[j] - held[:, 0], 0.0))

    heap = [(-float(value), j, 0) for j, value in enumerate(columns @ each)]
    heapq.heapify(heap)
    chosen: list[int] = []
    gains: list[float] = []
    while len(chosen) < size:
        value, j, computed = heapq.heappop(heap)
        if computed < len(chosen):
            heapq.heappush(heap, (-gain(j), j, len(chosen)))
            continue
        chosen.append(j)
        gains.append(-value)
        held[:, 0] = np.maximum(held[:, 0], columns[j])
        held.sort(axis=1)
    value = float(np.sum(gains))
    rest = sorted((gain(j) for _, j, _ in heap), reverse=True)[:size]
    return Selection(tuple(chosen), tuple(gains), value, value + float(np.sum(rest)))


def _checked(relevance: ArrayLike, weights: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    matrix = np.asarray(relevance, dtype=np.float64)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise InputError(f"relevance has shape {matrix.shape}: expected (classes, concepts), at least one of each")
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        k, j = np.argwhere(~np.isfinite(matrix) | (matrix < 0))[0]
        raise InputError(f"relevance[{k}, {j}] is {matrix[k, j]}: expected a finite number that is not negative")
    each = np.ones(len(matrix)) if weights is None else np.asarray(weights, dtype=np.float64)
    if each.shape != (len(matrix),) or not np.isfinite(each).all() or (each < 0).any():
        raise InputError(f"weights: expected {len(matrix)} finite numbers that are not negative, one a class")
    return matrix, each
