"""Rows of a matrix that are chosen and scaled only as they are used."""

from __future__ import annotations

from typing import Any

import numpy as np


class Rows:
    """Some rows of a matrix, each divided by a number, without a copy of them.

    Slices and lists of row numbers give float32 arrays; so a memory-mapped matrix larger than memory can be split,
    normalised and trained on.

    Parameters
    ----------
    matrix : ndarray of shape (N, d)
        Floating-point numbers, memory-mapped or not.
    index : ndarray of int, shape (n,), optional
        The rows, in their order; all if None.
    divisors : ndarray of shape (N,), optional
        Of the rows of `matrix`.

    Examples
    --------
    >>> rows = Rows(np.array([[3.0, 4.0], [0.0, 2.0], [1.0, 0.0]]), np.array([1, 0]), np.array([5.0, 2.0, 1.0]))
    >>> rows.shape, rows[:1].tolist(), rows[[1]].round(1).tolist()
    ((2, 2), [[0.0, 1.0]], [[0.6000000238418579, 0.800000011920929]])
    """

    def __init__(self, matrix: np.ndarray, index: np.ndarray | None = None, divisors: np.ndarray | None = None) -> None:
        self.matrix, self.index, self.divisors = matrix, index, divisors
        self.shape = (len(matrix) if index is None else len(index), matrix.shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, which: Any) -> np.ndarray:
        kept = which if self.index is None else self.index[which]
        rows = self.matrix[kept]
        if self.divisors is not None:
            rows = rows / self.divisors[kept][:, None]
        return np.asarray(rows, dtype=np.float32)

    def take(self, index: np.ndarray) -> Rows:
        """Some of these rows."""
        return Rows(self.matrix, index if self.index is None else self.index[index], self.divisors)

    @property
    def parts(self) -> tuple[np.ndarray | None, ...]:
        """The arrays that the rows depend on."""
        return self.matrix, self.index, self.divisors
