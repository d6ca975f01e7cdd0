"""The non-negative lasso over vocabularies that stay on disk, certified: candidates grow until nothing else can enter.

First candidates come from a sketch, a product in a few principal dimensions. Then a pass is one matrix product of
residuals r with all phrases, in blocks; each row keeps those of the largest correlation with r, and remembers the
largest correlation b of any that it left out. The lasso is solved on all candidates so far (`NonnegativeLasso`), which
moves the residual to r'. A phrase has length one, so no phrase left out correlates with r' by more than b + |r' - r|.
Where that is at most alpha, none can enter (gap-safe: the candidates' dual point is feasible for the whole vocabulary),
and the solution on the candidates, with its duality gap, is that over the whole vocabulary. Only rows that are not so
certified take part in another pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import row_lengths
from sparsecbm.estimators.nonnegative_lasso import LassoCodes, NonnegativeLasso

LARGE = 50_000
"""Vocabularies of more phrases stay where they are."""
_BLOCK, _ROWS, _SOLVED = 8192, 1024, 16
_KEPT = 256
_MARGIN = 0.1
"""Phrases whose correlation with the residual is smaller than the penalty by more are no candidates."""
_SKETCH = 96
"""Dimensions in which first candidates are looked for."""
_PASSES = 20
_FLOOR = 1e-12


class Vocabulary:
    """Phrases (M, d), memory-mapped or not, float16 or wider, read as centred unit rows a block at a time.

    Parameters
    ----------
    rows : ndarray of shape (M, d)
    center : bool
        Whether their mean is taken off.
    """

    def __init__(self, rows: NDArray[np.floating], center: bool = True) -> None:
        self.rows, self.mean = rows, np.zeros(rows.shape[1])
        lengths, total = np.ones(len(rows)), np.zeros(rows.shape[1])
        for start, block in self._read():
            lengths[start : start + _BLOCK] = row_lengths(block, "concept_embeddings", first=start)
            total += (block / lengths[start : start + _BLOCK, None]).sum(axis=0)
        along = np.ones(len(rows))
        if center:
            self.mean = total / len(rows)
            squared = float(self.mean @ self.mean)
            for start, block in self._read():
                found = block @ self.mean.astype(np.float32) / lengths[start : start + _BLOCK]
                along[start : start + _BLOCK] = np.sqrt(np.maximum(1.0 - 2.0 * found + squared, 0.0))
        # A phrase is its row times the one number less the mean times the other; zero where nothing is left.
        self._of_mean = np.divide(1.0, along, out=np.zeros(len(rows)), where=along > 1e-6)
        self._of_row = self._of_mean / lengths

    def _read(self) -> Iterator[tuple[int, NDArray[Any]]]:
        for start in range(0, len(self), _BLOCK):
            # torch widens float16 three times as fast as NumPy; a copy, since what is mapped cannot be written.
            yield start, torch.from_numpy(np.array(self.rows[start : start + _BLOCK])).float().numpy()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int]:
        """(M, d)."""
        return self.rows.shape[0], self.rows.shape[1]

    def take(self, which: NDArray[Any] | slice, dtype: type = np.float64) -> NDArray[Any]:
        """Some phrases, centred and of length one (zero where nothing is left)."""
        some = torch.from_numpy(np.array(self.rows[which])).to(getattr(torch, np.dtype(dtype).name))
        of_row, of_mean, mean = (
            torch.from_numpy(part.astype(dtype)) for part in (self._of_row[which], self._of_mean[which], self.mean)
        )
        return some.mul_(of_row[:, None]).addr_(of_mean, mean, alpha=-1).numpy()

    def blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Number of the first phrase, and float32 phrases."""
        for start in range(0, len(self), _BLOCK):
            yield start, self.take(slice(start, start + _BLOCK), np.float32)

    @cached_property
    def axes(self) -> NDArray[np.float64]:
        """Principal axes (d, `_SKETCH`) of some of the phrases."""
        some = self.take(np.unique(np.linspace(0, len(self) - 1, 4 * _BLOCK).astype(np.int64)))
        return np.linalg.eigh(some.T @ some)[1][:, : -_SKETCH - 1 : -1]

    @cached_property
    def _sketch(self) -> NDArray[np.float32]:
        axes = self.axes.astype(np.float32)
        made = np.empty((len(self), axes.shape[1]), dtype=np.float32)
        for start, block in self.blocks():
            made[start : start + len(block)] = block @ axes
        return made

    def sketches(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """As `blocks`, of what the phrases are along `axes`."""
        for start in range(0, len(self), _BLOCK):
            yield start, self._sketch[start : start + _BLOCK]

    def nearest(
        self,
        rows: NDArray[np.floating],
        keep: int,
        *,
        above: NDArray[np.floating] | None = None,
        forbidden: NDArray[np.int64] | None = None,
        sketch: bool = False,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Phrases whose product with each row is largest, and the products, falling: each (n, keep).

        Parameters
        ----------
        rows : ndarray of shape (n, d)
        keep : int
            At most M.
        above : ndarray of shape (n,), optional
            Products up to these are not asked for: -1 and this value stand where there are no `keep` above it.
        forbidden : ndarray of int, optional
            Phrases that count as minus infinity.
        sketch : bool
            Whether to look along `axes` only.
        """
        seen = (rows @ self.axes if sketch else rows).astype(np.float32)
        n, barred = len(seen), np.zeros(0, dtype=np.int64) if forbidden is None else forbidden
        best, who = np.full((n, keep), -np.inf, dtype=np.float32), np.full((n, keep), -1)
        if above is not None:
            best[:] = above[:, None]
        for start, phrases in self.sketches() if sketch else self.blocks():
            made = seen @ phrases.T
            made[:, barred[(barred >= start) & (barred < start + len(phrases))] - start] = -np.inf
            if start or above is not None:  # few are above what is kept
                row, column = np.divmod(np.flatnonzero(made > best[:, -1:]), made.shape[1])
                if not len(row):
                    continue
                counts = np.bincount(row, minlength=n)
                place = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
                value = np.full((n, int(counts.max(initial=0))), -np.inf, dtype=np.float32)
                index = np.full(value.shape, -1)
                value[row, place], index[row, place] = made[row, column], start + column
                value, index = np.hstack([best, value]), np.hstack([who, index])
            else:
                value, index = made, np.broadcast_to(np.arange(made.shape[1]), made.shape)
            top = torch.from_numpy(value).topk(min(keep, value.shape[1]), dim=1)
            best[:, : top.values.shape[1]] = top.values.numpy()
            who[:, : top.values.shape[1]] = np.take_along_axis(index, top.indices.numpy(), 1)
        return who, best


class LargeLasso:
    """The problems of one large vocabulary; `solve` and `at_most` as of `NonnegativeLasso`.

    Parameters
    ----------
    vocabulary : Vocabulary
    forbidden : ndarray of int
        Phrases that may not be used.
    tolerance : float
        As of `NonnegativeLasso`.
    """

    def __init__(self, vocabulary: Vocabulary, forbidden: NDArray[np.int64], tolerance: float = 1e-9) -> None:
        self.vocabulary, self.forbidden, self.tolerance = vocabulary, forbidden, tolerance
        self.passes = 0.0

    def solve(self, X: NDArray[np.floating], alpha: float, *, progress: bool | int | None = False) -> LassoCodes:
        """Solve one problem a row at a penalty."""
        return self._certified(X, alpha, None, progress)

    def at_most(self, X: NDArray[np.floating], k: int, *, progress: bool | int | None = False) -> LassoCodes:
        """Solve each row at a penalty whose solution has at most `k` phrases: the smallest found on its candidates."""
        return self._certified(X, None, k, progress)

    def _certified(self, X: NDArray[np.floating], alpha: float | None, k: int | None, progress: object) -> LassoCodes:
        parts = []
        self.passes = 0.0
        with ProgressBar("Decomposing", len(X), progress) as bar:  # type: ignore[arg-type]
            for start in range(0, len(X), _ROWS):
                block = np.asarray(X[start : start + _ROWS], dtype=np.float64)
                parts.append(self._block(block, alpha, k))
                bar.update(len(block))
        self.passes /= max(1, len(X))
        width = max((part.indices.shape[1] for part in parts), default=0)

        def pad(values: NDArray, fill: int) -> NDArray:
            return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=fill)

        if not parts:
            none = np.zeros(0)
            return LassoCodes(np.zeros((0, 0), np.int64), np.zeros((0, 0)), len(self.vocabulary), none, none, none)
        return LassoCodes(
            np.concatenate([pad(part.indices, -1) for part in parts]),
            np.concatenate([pad(part.values, 0) for part in parts]),
            len(self.vocabulary),
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("alpha", "objective", "gap")),
        )

    def _block(self, X: NDArray[np.float64], alpha: float | None, k: int | None) -> LassoCodes:
        n = len(X)
        held: list[NDArray[np.int64]] = [np.zeros(0, dtype=np.int64)] * n
        found: list[tuple[NDArray, NDArray, float, float, float]] = [None] * n  # type: ignore[list-item]
        residual, open_rows = X.copy(), np.arange(n)
        for turn in range(_PASSES):
            self.passes += len(open_rows) * (turn > 0)
            # One more than is kept: the largest that is left out. A sketch certifies nothing.
            keep, floor = min(_KEPT + 1, len(self.vocabulary)), None
            if turn:
                floor = np.array([found[i][2] for i in open_rows]) - _MARGIN
            who, best = self.vocabulary.nearest(
                residual[open_rows], keep, above=floor, forbidden=self.forbidden, sketch=turn == 0
            )
            left_out = np.full(len(who), -np.inf) if floor is None else floor
            if keep > _KEPT:
                left_out = np.maximum(left_out, best[:, _KEPT])
            before = residual[open_rows].copy()
            for i, new in zip(open_rows, who[:, :_KEPT]):
                support = found[i][0] if turn else new[:0]
                held[i] = np.union1d(support, new[new >= 0])
            for start in range(0, len(open_rows), _SOLVED):
                self._solve(X, open_rows[start : start + _SOLVED], held, found, residual, alpha, k)
            moved = np.linalg.norm(residual[open_rows] - before, axis=1)
            penalty = np.array([found[i][2] for i in open_rows])
            # Products in float32 of rows of length at most one are right to 1e-6.
            if turn:
                open_rows = open_rows[left_out + moved + 1e-6 > penalty]
            if not len(open_rows):
                break
        else:
            raise InputError(
                f"{len(open_rows)} rows are not certified after {_PASSES} passes over the vocabulary: give a larger "
                "alpha, or fewer concepts"
            )
        most = max(len(one[0]) for one in found)
        indices, values = np.full((n, most), -1, dtype=np.int64), np.zeros((n, most))
        for row, (support, weights, *_) in enumerate(found):
            indices[row, : len(support)], values[row, : len(support)] = support, weights
        return LassoCodes(
            indices, values, len(self.vocabulary), *(np.array([one[j] for one in found]) for j in (2, 3, 4))
        )

    def _solve(
        self,
        X: NDArray[np.float64],
        rows: NDArray[np.int64],
        held: list[NDArray[np.int64]],
        found: list[tuple[NDArray, NDArray, float, float, float]],
        residual: NDArray[np.float64],
        alpha: float | None,
        k: int | None,
    ) -> None:
        """Solve some rows on the union of their candidates."""
        union = np.unique(np.concatenate([held[i] for i in rows]))
        atoms = self.vocabulary.take(union)
        solver = NonnegativeLasso(atoms, self.tolerance, share_gram=False)
        codes = solver.solve(X[rows], alpha) if k is None else solver.at_most(X[rows], k)  # type: ignore[arg-type]
        residual[rows] = X[rows] - codes.times(atoms)
        for i, index, value, *rest in zip(rows, codes.indices, codes.values, codes.alpha, codes.objective, codes.gap):
            inside = index >= 0
            found[i] = (union[index[inside]], value[inside], *rest)
