"""Exact non-negative lasso of many vectors over one dictionary, by working sets, in batches.

For each row x and a dictionary C of M rows, with one penalty alpha > 0 a row:

    minimise over w >= 0:   P(w) = 1/2 ||x - C'w||^2 + alpha sum_j w_j

The support of a solution is small, so nothing of size M x M is ever solved. A row keeps a working set, the minimiser on
which comes from one Cholesky factor; concepts whose correlation with the residual exceeds alpha join it, concepts whose
coefficient would turn negative leave it (Lawson & Hanson 1974, chapter 23, with several exchanges at a time). Every
step lowers P, so no support returns and the method ends at the exact solution; the duality gap says how near it came.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm.estimators.matrix_search.pursuit import MAX_SHARED_GRAM, SparseCodes

_ROWS = 128
"""Rows at a time: their Gram blocks should stay in the cache."""
_JITTER = 1e-11
"""Added to the diagonal of unit-row Gram matrices, so that equal concepts that join together share one coefficient."""
_ENTRANTS = 24
_MAX_ROUNDS = 500
_STRIDE, _RESOLUTION = 0.35, 0.02
"""Of the search for a penalty, in its logarithm."""
_SMALLEST = 1e-4
"""It is not made smaller than this times the least that gives an empty code."""


@dataclass(frozen=True, eq=False)
class LassoCodes(SparseCodes):
    """Codes, whose values are positive, and their certificate.

    Attributes
    ----------
    alpha : ndarray of float64, shape (n,)
        Penalty of each row.
    objective : ndarray of float64, shape (n,)
        P(w), as above.
    gap : ndarray of float64, shape (n,)
        Duality gap: P(w) is at most this much above the minimum.
    """

    alpha: NDArray[np.float64]
    objective: NDArray[np.float64]
    gap: NDArray[np.float64]


class NonnegativeLasso:
    """The problems of one dictionary.

    Parameters
    ----------
    dictionary : ndarray of shape (M, d)
        Unit rows.
    tolerance : float
        A row is solved when its duality gap is at most this times half its squared length.
    share_gram : bool
        Whether to make the Gram matrix of all rows, where they are not too many: worth it for many X.

    Examples
    --------
    >>> solver = NonnegativeLasso(np.eye(3))
    >>> codes = solver.solve(np.array([[0.8, 0.6, 0.0]]), 0.5)
    >>> codes.dense().round(6).tolist()
    [[0.3, 0.1, 0.0]]
    """

    def __init__(self, dictionary: NDArray[np.floating], tolerance: float = 1e-9, *, share_gram: bool = True) -> None:
        self.dictionary = torch.from_numpy(np.require(dictionary, np.float64, ["C", "W"]))
        self.tolerance = tolerance
        self._gram = (
            self.dictionary @ self.dictionary.T if share_gram and len(self.dictionary) <= MAX_SHARED_GRAM else None
        )

    def solve(
        self, X: NDArray[np.floating], alpha: float | NDArray[np.float64], *, progress: bool | int | None = False
    ) -> LassoCodes:
        """Solve one problem a row.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        alpha : float or ndarray of shape (n,)
            Positive penalties.
        progress : bool or None
            See `ProgressBar`.
        """
        penalties = torch.from_numpy(np.broadcast_to(np.asarray(alpha, dtype=np.float64), len(X)).copy())
        if not bool((penalties > 0).all()) or not bool(penalties.isfinite().all()):
            raise InputError(f"alpha={alpha!r}: expected a positive, finite penalty")
        return self._by_blocks(
            X, lambda rows, start: (self._solve(rows, part := penalties[start : start + _ROWS]), part), progress
        )

    def at_most(self, X: NDArray[np.floating], k: int, *, progress: bool | int | None = False) -> LassoCodes:
        """Solve each row at the smallest penalty found by bisection whose solution has at most `k` concepts.

        Parameters
        ----------
        X : ndarray of shape (n, d)
        k : int
            At least 1.
        progress : bool or None
            See `ProgressBar`.

        Notes
        -----
        Penalties are resolved to 2% (in steps of a geometric bisection); along the path of one row the support is
        nearly, not always, monotone, so a smaller penalty with at most k concepts can exist.
        """
        return self._by_blocks(X, lambda rows, start: self._bisect(rows, k), progress)

    def _by_blocks(
        self, X: NDArray[np.floating], solve: Callable[[Tensor, int], tuple[_Codes, Tensor]], progress: Any
    ) -> LassoCodes:
        """Codes of some rows at a time; `solve` takes rows and the number of the first, and gives penalties as well."""
        parts = [(_Codes.empty(0), torch.zeros(0, dtype=torch.float64))]
        with ProgressBar("Decomposing", len(X), progress) as bar:
            for start in range(0, len(X), _ROWS):
                rows = torch.from_numpy(np.array(X[start : start + _ROWS], dtype=np.float64))
                parts.append(solve(rows, start))
                bar.update(len(rows))
        codes, penalties = zip(*parts)
        width = max(part.support.shape[1] for part in codes)
        return LassoCodes(
            torch.cat([_widen(part.support, width, -1) for part in codes]).numpy(),
            torch.cat([_widen(part.values, width, 0) for part in codes]).numpy(),
            len(self.dictionary),
            torch.cat(penalties).numpy(),
            torch.cat([part.objective for part in codes]).numpy(),
            torch.cat([part.gap for part in codes]).numpy(),
        )

    def _bisect(self, X: Tensor, k: int) -> tuple[_Codes, Tensor]:
        top = (X @ self.dictionary.T).amax(dim=1).clamp(min=1e-12)
        best = self._solve(X, top)  # empty: at most k, whatever k
        last, alpha = best.select(slice(None)), top.clone()
        high, floor = top.log(), (top * _SMALLEST).log()
        low = floor.clone()  # from above, in steps that never visit a support much larger than k
        reached = torch.zeros(len(X), dtype=torch.bool)
        while True:
            open_rows = torch.nonzero(high - low > _RESOLUTION)[:, 0]
            if not len(open_rows):
                return best, alpha
            halfway = (high + low) / 2
            middle = torch.where(reached, halfway, torch.maximum(high - _STRIDE, halfway))[open_rows]
            tried = self._solve(X[open_rows], middle.exp(), start=last.select(open_rows))
            fits = (tried.support >= 0).sum(dim=1) <= k
            good, over = open_rows[fits], open_rows[~fits]
            best = best.put(good, tried.select(fits))
            last = last.put(open_rows, tried)
            alpha[good], high[good] = middle[fits].exp(), middle[fits]
            low[over], reached[over] = middle[~fits], True

    def _solve(self, X: Tensor, alpha: Tensor, start: _Codes | None = None) -> _Codes:
        n, device = len(X), X.device
        done = _Codes.empty(n)
        rows = torch.arange(n)
        squared = (X * X).sum(dim=1)
        target = X @ self.dictionary.T
        support = torch.full((n, 0), -1, dtype=torch.int64) if start is None else start.support
        values = torch.zeros(support.shape, dtype=X.dtype) if start is None else start.values
        if support.shape[1]:
            # Another penalty has another solution on the same support: settle it before asking who is missing.
            support, values = self._settle(target, alpha, support, values)
        entrants = torch.full((n,), _ENTRANTS, dtype=torch.int64)
        before = torch.full((n,), torch.inf, dtype=X.dtype)
        for turn in range(_MAX_ROUNDS):
            residual = X - self._combine(support, values)
            correlation = residual @ self.dictionary.T
            norm, total = (residual * residual).sum(dim=1), values.sum(dim=1)
            objective = 0.5 * norm + alpha * total
            largest = correlation.amax(dim=1)
            scale = torch.where(largest > alpha, alpha / largest, 1.0)
            along = (X * residual).sum(dim=1)
            gap = (objective - (scale * along - 0.5 * scale * scale * norm)).clamp(min=0.0)
            # A turn that gained nothing asks for the one most violating concept, which must gain.
            stalled = objective >= before - 1e-14 * squared
            solved = (gap <= self.tolerance * 0.5 * squared) | (stalled & (entrants == 1)) | (turn == _MAX_ROUNDS - 1)
            entrants = torch.where(stalled, 1, _ENTRANTS)
            if bool(solved.any()):
                done = done.put(rows[solved], _Codes(support[solved], values[solved], objective[solved], gap[solved]))
                left = ~solved
                if not bool(left.any()):
                    break
                rows, X, alpha, squared = rows[left], X[left], alpha[left], squared[left]
                target = target[left]
                support, values, correlation = support[left], values[left], correlation[left]
                objective, entrants = objective[left], entrants[left]
            before = objective
            support, values = _pack(support, values)
            held = torch.where(support >= 0, support, 0)
            correlation.scatter_reduce_(
                1, held, torch.where(support >= 0, -torch.inf, torch.inf).to(correlation.dtype), "amin"
            )
            best, who = correlation.topk(min(_ENTRANTS, correlation.shape[1]), dim=1)
            joins = (best > alpha[:, None]) & (torch.arange(best.shape[1], device=device) < entrants[:, None])
            support = torch.cat([support, torch.where(joins, who, -1)], dim=1)
            values = torch.cat([values, torch.zeros_like(best)], dim=1)
            support, values = self._settle(target, alpha, support, values)
        return done

    def _combine(self, support: Tensor, values: Tensor) -> Tensor:
        if not support.shape[1]:
            return torch.zeros(len(support), self.dictionary.shape[1], dtype=self.dictionary.dtype)
        return torch.nn.functional.embedding_bag(
            support.clamp(min=0), self.dictionary, per_sample_weights=values, mode="sum"
        )

    def _settle(self, target: Tensor, alpha: Tensor, support: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Lower P over the working sets until no coefficient is negative and each set has its minimiser."""
        support, values = _pack(support, values)
        if not support.shape[1]:  # no concept joins any row
            return support, values
        inside = support >= 0
        chosen = support.clamp(min=0)
        if self._gram is not None:
            gram = self._gram[chosen[:, :, None], chosen[:, None, :]]
        else:
            atoms = self.dictionary[chosen]
            gram = atoms @ atoms.transpose(1, 2)
        gram = torch.where(inside[:, :, None] & inside[:, None, :], gram, 0.0)
        diagonal = gram.diagonal(dim1=1, dim2=2)
        diagonal += _JITTER
        linear = torch.where(inside, target.gather(1, chosen) - alpha[:, None], 0.0)
        values = torch.where(inside, values, 0.0)
        open_rows = torch.arange(len(target))
        while len(open_rows):
            g, b, now, free = gram[open_rows], linear[open_rows], values[open_rows], inside[open_rows]
            system = torch.where(free[:, :, None] & free[:, None, :], g, 0.0)
            system.diagonal(dim1=1, dim2=2).add_((~free).to(g.dtype))
            wanted = torch.cholesky_solve((b * free)[:, :, None], torch.linalg.cholesky(system))[:, :, 0]
            wanted = torch.where(free, wanted, 0.0)
            negative = free & (wanted <= 0.0)
            settled = ~negative.any(dim=1)
            clipped = wanted.clamp(min=0.0)
            gains = _value(g, b, clipped) < _value(g, b, now)
            # Where cutting off all negative ones at once would not lower P, go only as far as the first becomes zero.
            at_zero = negative & (now <= 0.0)
            ratio = torch.where(negative & (now > 0.0), now / (now - wanted), torch.inf)
            step = torch.where(at_zero.any(dim=1), 0.0, ratio.amin(dim=1).clamp(max=1.0))
            stepped = now + step[:, None] * (wanted - now)
            leaves = torch.where(at_zero.any(dim=1, keepdim=True), at_zero, negative & (ratio <= step[:, None]))
            take = settled | gains
            moved = torch.where(take[:, None], clipped, stepped)
            leaves = torch.where(take[:, None], negative, leaves)
            moved = torch.where(leaves, 0.0, moved)
            values[open_rows] = moved
            inside[open_rows] = free & ~leaves
            open_rows = open_rows[~settled]
        return torch.where(inside, support, -1), torch.where(inside, values, 0.0)


@dataclass
class _Codes:
    support: Tensor
    values: Tensor
    objective: Tensor
    gap: Tensor

    @classmethod
    def empty(cls, n: int) -> _Codes:
        numbers = torch.zeros(n, dtype=torch.float64)
        return cls(torch.full((n, 0), -1), torch.zeros(n, 0, dtype=torch.float64), numbers, numbers.clone())

    def select(self, rows: Tensor | slice) -> _Codes:
        fields = (self.support, self.values, self.objective, self.gap)
        return _Codes(*(field[rows].clone() for field in fields))

    def put(self, rows: Tensor, other: _Codes) -> _Codes:
        support, values = _pack(other.support, other.values)
        width = max(self.support.shape[1], support.shape[1])
        self.support, self.values = _widen(self.support, width, -1), _widen(self.values, width, 0)
        self.support[rows], self.values[rows] = _widen(support, width, -1), _widen(values, width, 0)
        self.objective[rows], self.gap[rows] = other.objective, other.gap
        return self


def _value(gram: Tensor, linear: Tensor, w: Tensor) -> Tensor:
    return 0.5 * (torch.bmm(gram, w[:, :, None])[:, :, 0] * w).sum(dim=1) - (linear * w).sum(dim=1)


def _widen(values: Tensor, width: int, fill: int) -> Tensor:
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=fill)


def _pack(support: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Move the concepts of each row to the front and drop columns that nobody needs."""
    inside = support >= 0
    width = int(inside.sum(dim=1).max()) if len(support) else 0
    order = inside.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :width]
    return support.gather(1, order), values.gather(1, order)
