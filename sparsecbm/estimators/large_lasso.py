"""The non-negative lasso over vocabularies that stay on disk, certified: candidates grow until nothing else can enter.

First candidates come from a sketch, a product in the few dimensions that keep most of it; the lasso is solved on them
(`NonnegativeLasso`). Then a pass is one matrix product of residuals r with all phrases, in blocks; each row lists those
of the largest correlation b with r. Those above alpha join the candidates, which are solved again, and the residual
moves to r'. A phrase has length one, so it correlates with r' by at most b + |r' - r|: those listed for which that is
above alpha are multiplied with r', and join where they must, until none does. Where the same bound for the smallest
listed b is at most alpha, none of the others can enter (gap-safe: the candidates' dual point is feasible for the whole
vocabulary), and the solution on the candidates, with its duality gap, is that over the whole vocabulary. Only rows that
are not so certified take part in another pass.
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
from sparsecbm._base.rows import evenly_spaced, row_lengths
from sparsecbm.estimators.nonnegative_lasso import LassoCodes, NonnegativeLasso

LARGE = 50_000
"""Vocabularies of more phrases stay where they are."""
_BLOCK, _ROWS = 4096, 1024
_UNION = 2048
"""Candidates of the rows that are solved together, about."""
_KEPT, _LISTED = 128, 4096
_MARGIN = 0.07
"""Phrases whose correlation with the residual is smaller than the penalty by more are not listed."""
_ROUNDING = 1e-6
"""Products in float32 of rows of length at most one are as right."""
_SKETCH = 64
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
    seen : ndarray of shape (n, d), optional
        Rows such as will be decomposed: a sketch keeps the directions in which they and the phrases vary.
    """

    def __init__(
        self, rows: NDArray[np.floating], center: bool = True, seen: NDArray[np.floating] | None = None
    ) -> None:
        self.rows, self.seen, self.mean = rows, seen, np.zeros(rows.shape[1])
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
    def axes(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Of rows and of phrases, each (d, at most `_SKETCH`): products along them come nearest to the whole ones."""
        some = self.take(evenly_spaced(len(self), 8 * _BLOCK))
        kind = np.eye(len(self.mean))
        if self.seen is not None:
            centred = self.seen - self.seen.mean(axis=0)
            # Few rows say little of others.
            kind = centred.T @ centred + (10 + len(centred) / 20) / len(kind) * kind
        of_rows, of_phrases = _root(kind), _root(some.T @ some)
        left, size, right = np.linalg.svd(of_rows @ of_phrases)
        size = size[:_SKETCH][size[:_SKETCH] > 1e-6 * size[0]]
        left, right = left[:, : len(size)] / np.sqrt(size), right[: len(size)].T / np.sqrt(size)
        return of_phrases @ right, of_rows @ left

    @cached_property
    def _sketch(self) -> NDArray[np.float32]:
        axes = self.axes[1].astype(np.float32)
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
        seen = (rows @ self.axes[0] if sketch else rows).astype(np.float32)
        n, barred = len(seen), np.zeros(0, dtype=np.int64) if forbidden is None else forbidden
        floor = np.full(n, -np.inf, dtype=np.float32) if above is None else above.astype(np.float32)
        lowest = floor.copy()
        # Each row has room for what is kept and for what came since; when one is full, all forget the rest.
        best = np.full((n, keep + max(_BLOCK, 2 * keep)), -np.inf, dtype=np.float32)
        who, used = np.full(best.shape, -1, dtype=np.int32), np.zeros(n, dtype=np.int64)
        product = np.empty(n * _BLOCK, dtype=np.float32)

        def forget() -> None:
            width = int(used.max(initial=0))
            most = min(keep, width)
            top = torch.from_numpy(best[:, :width]).topk(most, dim=1)
            who[:, :most] = np.take_along_axis(who[:, :width], top.indices.numpy(), 1)
            best[:, :most], best[:, most:width] = top.values.numpy(), -np.inf
            np.maximum(floor, best[:, keep - 1], out=floor)
            used[:] = np.minimum(used, keep)

        for start, phrases in self.sketches() if sketch else self.blocks():
            width = len(phrases)
            made = np.matmul(seen, phrases.T, out=product[: n * width].reshape(n, width))
            made[:, barred[(barred >= start) & (barred < start + width)] - start] = -np.inf
            if not start and above is None:
                best[:, :width], who[:, :width], used[:] = made, np.arange(width), width
                forget()
                continue
            flat = np.flatnonzero(made > floor[:, None])
            row = flat // width
            counts = np.bincount(row, minlength=n)
            if (used + counts).max(initial=0) > best.shape[1]:
                forget()
            place = np.arange(len(row)) + (used - np.cumsum(counts) + counts)[row]
            best[row, place], who[row, place] = product[flat], start + flat - row * width
            used += counts
        forget()
        best, is_one = best[:, :keep], best[:, :keep] > lowest[:, None]
        return np.where(is_one, who[:, :keep], np.int64(-1)), np.where(is_one, best, lowest[:, None])


def _root(squares: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root of a positive semi-definite matrix."""
    values, axes = np.linalg.eigh(squares)
    return (axes * np.sqrt(np.maximum(values, 0.0))) @ axes.T


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
        found: list[tuple[NDArray, NDArray, float, float, float]] = [None] * n  # type: ignore[list-item]
        residual, open_rows = X.copy(), np.arange(n)
        keep = min(_KEPT, len(self.vocabulary))
        sketched, _ = self.vocabulary.nearest(X, keep, forbidden=self.forbidden, sketch=True)
        held = [row[row >= 0] for row in sketched]
        self._solve(X, open_rows, held, found, residual, alpha, k)
        for _ in range(_PASSES):
            self.passes += len(open_rows)
            before = residual[open_rows].copy()
            floor = np.array([found[i][2] for i in open_rows]) - _MARGIN
            keep = min(_LISTED, len(self.vocabulary))
            who, best = self.vocabulary.nearest(before, keep, above=floor, forbidden=self.forbidden)
            moved, growing, first = np.zeros(len(open_rows)), np.arange(len(open_rows)), True
            while len(growing):
                joined = []
                for j in growing:
                    i = open_rows[j]
                    support, _, penalty, *_ = found[i]
                    some = who[j, (best[j] > penalty - moved[j] - _ROUNDING) & (who[j] >= 0)]
                    if moved[j]:
                        now = self.vocabulary.take(some, np.float32) @ residual[i].astype(np.float32)
                        some = some[now > penalty - _ROUNDING]
                    # What was a candidate is in the solution if it must be.
                    some = np.setdiff1d(some, held[i])
                    if len(some):
                        held[i] = np.union1d(support if first else held[i], some)
                        joined.append(j)
                growing, first = np.array(joined, dtype=np.int64), False
                self._solve(X, open_rows[growing], held, found, residual, alpha, k)
                moved[growing] = np.linalg.norm(residual[open_rows[growing]] - before[growing], axis=1)
            penalty = np.array([found[i][2] for i in open_rows])
            open_rows = open_rows[best[:, -1] + moved + _ROUNDING > penalty]
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
        """Solve rows on their candidates and those of their neighbours."""
        share = max(1, _UNION * len(rows) // max(1, sum(len(held[i]) for i in rows)))
        for some in (rows[start : start + share] for start in range(0, len(rows), share)):
            union = np.unique(np.concatenate([held[i] for i in some]))
            atoms = self.vocabulary.take(union)
            solver = NonnegativeLasso(atoms, self.tolerance, share_gram=False)
            codes = solver.solve(X[some], alpha) if k is None else solver.at_most(X[some], k)  # type: ignore[arg-type]
            residual[some] = X[some] - codes.times(atoms)
            for i, index, value, *rest in zip(
                some, codes.indices, codes.values, codes.alpha, codes.objective, codes.gap
            ):
                inside = index >= 0
                found[i] = (union[index[inside]], value[inside], *rest)
