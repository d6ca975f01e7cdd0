"""Codes with at most k concepts, found greedily: orthogonal least squares in batches.

For a row z, atoms A (M rows) and a metric Q, choose concepts one at a time so that

    || z - sum_{j in S} a_j A_j ||_Q^2

falls most at each step once *all* coefficients of S are solved for again (orthogonal least squares: Chen, Billings &
Luo 1989; orthogonal matching pursuit compares correlations without that look ahead). Coefficients are signed, or kept
non-negative. Lasso codes shrink coefficients and choose k only through a penalty; these do neither.

The metric is the same for all rows, with, optionally, terms of each row's own (`Focus`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsecbm._base.errors import InputError

MAX_SHARED_GRAM = 6000
"""Up to so many atoms their Gram matrix is kept; above it, its rows are made when needed."""
_WORKSPACE = 48_000_000
"""Numbers (float32) of the largest array of a batch."""
_DEPENDENT = 1e-3
"""An atom is no candidate when less than this share of its squared length is left outside the span of those chosen."""
_JITTER = 1e-9


@dataclass(frozen=True, eq=False)
class SparseCodes:
    """At most k concepts a row.

    Attributes
    ----------
    indices : ndarray of int64, shape (n, k)
        Concepts, in the order in which a pursuit chose them; -1 where a row needs no more.
    values : ndarray of float64, shape (n, k)
        Their coefficients; 0 where padded.
    n_concepts : int
        M.
    """

    indices: NDArray[np.int64]
    values: NDArray[np.float64]
    n_concepts: int

    @property
    def counts(self) -> NDArray[np.int64]:
        """Number of concepts of each row, shape (n,)."""
        return (self.indices >= 0).sum(axis=1)

    def first(self, k: int) -> SparseCodes:
        """The first `k` concepts of each row, their coefficients as they are."""
        return SparseCodes(self.indices[:, :k], self.values[:, :k], self.n_concepts)

    def dense(self) -> NDArray[np.float64]:
        """Codes as an array of shape (n, M), exactly zero outside the supports."""
        codes = np.zeros((len(self.indices), self.n_concepts))
        rows, columns = np.nonzero(self.indices >= 0)
        codes[rows, self.indices[rows, columns]] = self.values[rows, columns]
        return codes

    def times(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Product of the codes with a matrix of M rows, without making them dense: shape (n, columns)."""
        return torch.nn.functional.embedding_bag(
            torch.from_numpy(np.maximum(self.indices, 0)),
            torch.from_numpy(np.ascontiguousarray(matrix)),
            per_sample_weights=torch.from_numpy(self.values),
            mode="sum",
        ).numpy()


@dataclass(frozen=True, eq=False)
class Focus:
    """Terms of the metric that belong to each row: the squared length gains ``||G_i (z - sum_j a_j A_j)||^2``.

    Attributes
    ----------
    atoms : Tensor of shape (n, m, M)
        ``G_i A_j`` for every row and atom.
    targets : Tensor of shape (n, m)
        ``G_i z``.
    """

    atoms: Tensor
    targets: Tensor


class Pursuit:
    """The problems of one dictionary.

    Parameters
    ----------
    atoms : ndarray of shape (M, r)
        Atoms, already multiplied by the square root of the metric.

    Examples
    --------
    >>> codes = Pursuit(np.eye(3)).codes(np.array([[0.5, -2.0, 1.0]]), 2)
    >>> codes.dense().round(6).tolist()
    [[0.0, -2.0, 1.0]]
    >>> Pursuit(np.eye(3)).codes(np.array([[0.5, -2.0, 1.0]]), 2, nonnegative=True).dense().round(6).tolist()
    [[0.5, 0.0, 1.0]]
    """

    def __init__(self, atoms: NDArray[np.floating]) -> None:
        self.atoms = torch.from_numpy(np.array(atoms, dtype=np.float64))
        self._small = self.atoms.float()
        self._gram = self._small @ self._small.T if len(self.atoms) <= MAX_SHARED_GRAM else None
        self._squared = (self._small * self._small).sum(dim=1)

    def codes(
        self,
        targets: NDArray[np.floating],
        k: int,
        *,
        nonnegative: bool = False,
        focus: Callable[[slice], Focus] | None = None,
        focus_size: int = 0,
    ) -> SparseCodes:
        """Choose at most `k` atoms for each row and solve for their coefficients.

        Parameters
        ----------
        targets : ndarray of shape (n, r)
            Rows, multiplied by the square root of the metric.
        k : int
            At least 1.
        nonnegative : bool
            Only concepts that are there, none that are missing.
        focus : callable, optional
            Terms of the metric that belong to some rows.
        focus_size : int
            Numbers an atom that they take beside the k of the pursuit, for each row.

        Raises
        ------
        InputError
            If `k` is not at least 1.
        """
        if k < 1:
            raise InputError(f"k={k!r}: expected at least one concept")
        k = min(k, len(self.atoms))
        step = max(1, _WORKSPACE // (max(k + focus_size, 8) * len(self.atoms)))
        indices, values = [np.zeros((0, k), dtype=np.int64)], [np.zeros((0, k))]
        for start in range(0, len(targets), step):
            some = slice(start, start + step)
            rows, own = (
                torch.from_numpy(np.array(targets[some], dtype=np.float64)),
                None if focus is None else focus(some),
            )
            support = self._select(rows.float(), k, nonnegative, own)
            support, coefficients = self._solve(rows, support, nonnegative, own)
            indices.append(support.numpy())
            values.append(coefficients.numpy())
        return SparseCodes(np.concatenate(indices), np.concatenate(values), len(self.atoms))

    def _select(self, rows: Tensor, k: int, nonnegative: bool, focus: Focus | None) -> Tensor:
        n, n_atoms = len(rows), len(self.atoms)
        every = torch.arange(n)
        correlation = rows @ self._small.T
        squared = self._squared.expand(n, n_atoms).clone()
        if focus is not None:
            correlation += torch.einsum("bm,bmj->bj", focus.targets, focus.atoms)
            squared += (focus.atoms * focus.atoms).sum(dim=1)
        least = (_DEPENDENT * squared).clamp(min=1e-12)
        directions = torch.zeros(n, k, n_atoms)  # inner products of each new orthonormal direction with every atom
        support = torch.full((n, k), -1)
        for step in range(k):
            gain = (correlation.clamp(min=0.0) if nonnegative else correlation) ** 2 / squared.clamp(min=1e-30)
            gain.masked_fill_(squared <= least, -1.0)
            best, chosen = gain.max(dim=1)
            found = best > 0.0
            if not bool(found.any()):
                break
            support[:, step] = torch.where(found, chosen, -1)
            row = self._small[chosen] @ self._small.T if self._gram is None else self._gram[chosen]
            if focus is not None:
                row = row + torch.bmm(focus.atoms[every, :, chosen][:, None], focus.atoms)[:, 0]
            if step:
                before = directions[every, :step, chosen]
                row = row - torch.bmm(before[:, None], directions[:, :step])[:, 0]
            length = squared[every, chosen].clamp(min=1e-30).sqrt()
            direction = torch.where(found[:, None], row / length[:, None], 0.0)
            directions[:, step] = direction
            correlation -= (correlation[every, chosen] / length)[:, None] * direction
            squared -= direction * direction
        return support

    def _solve(self, rows: Tensor, support: Tensor, nonnegative: bool, focus: Focus | None) -> tuple[Tensor, Tensor]:
        held = support.clamp(min=0)
        atoms = self.atoms[held]
        gram = atoms @ atoms.transpose(1, 2)
        linear = torch.bmm(atoms, rows[:, :, None])[:, :, 0]
        if focus is not None:
            own = focus.atoms.gather(2, held[:, None].expand(-1, focus.atoms.shape[1], -1)).double()
            gram += own.transpose(1, 2) @ own
            linear += torch.bmm(own.transpose(1, 2), focus.targets.double()[:, :, None])[:, :, 0]
        free = support >= 0
        while True:
            pairs = free[:, :, None] & free[:, None, :]
            system = torch.where(pairs, gram, 0.0)
            diagonal = system.diagonal(dim1=1, dim2=2)
            diagonal += torch.where(free, _JITTER * diagonal.amax(dim=1, keepdim=True), 1.0)
            values = torch.linalg.solve(system, torch.where(free, linear, 0.0)[:, :, None])[:, :, 0]
            negative = free & (values < 0.0)
            if not nonnegative or not bool(negative.any()):
                break
            free &= ~negative  # few rows, one or two rounds: every atom joined with a positive coefficient
        return torch.where(free, support, -1), torch.where(free, values, 0.0)
