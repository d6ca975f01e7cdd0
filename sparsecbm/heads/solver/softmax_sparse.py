"""Softmax regression on sparse activations, where the dense matrix of them would not fit in memory.

The objective is that of `sparsecbm.heads.solver.softmax`. With few weights a class and few active concepts a sample,
the logits of sample i equal the intercepts b except for the classes of which some weight meets an active concept. Call
such a sample and class a pair, and s_ik the pair's sum of weights times activations. Then

    Z_i = sum_k exp(b_k)  +  sum_{pairs (i, k)} (exp(b_k + s_ik) - exp(b_k)),

and the loss, its derivatives (also those with respect to all K x M weights) and its curvature split in the same way
into a background, which has rank one over samples and classes, and corrections on the pairs. All of it costs sparse
products alone and is exact: no sample, class or concept is left out, and no (n, K) matrix is made.

Activations are not centred, which would fill them; the intercepts, which are not penalised, take up the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix, issparse, vstack

from sparsecbm.heads.solver.softmax import PER_CLASS, STRIDE, Layout, Problem

#: Sparse activations stay sparse where a dense float64 copy of them would take more bytes than this; the dense solvers
#: make about six.
DENSE_BYTES = 2**29
#: Samples in a block: bounds the temporary arrays.
ROWS = 2**16
#: Partition sums below this share of their background are summed again without the cancellation.
CANCELLED = 1e-3


@dataclass(frozen=True)
class SparseProblem:
    """Data of a softmax regression on sparse activations.

    Parameters
    ----------
    blocks : tuple of csc_matrix, each of shape (rows, M)
        Consecutive rows of the activations.
    labels : ndarray of int64, shape (n,)
        Class numbers.
    weights : ndarray of shape (n,)
        Non-negative sample weights that sum to 1.
    n_classes : int
        K.
    usable : ndarray of bool, shape (M,)
        Concepts that vary over the samples; a constant one only shifts the intercepts.
    variances : ndarray of shape (M,)
        Weighted variance of the activations of each concept.
    """

    blocks: tuple[csc_matrix, ...]
    labels: np.ndarray
    weights: np.ndarray
    n_classes: int
    usable: np.ndarray
    variances: np.ndarray

    @classmethod
    def of(cls, A: csr_matrix, *data: Any) -> SparseProblem:
        """Lay out the rows of `A`; the other fields follow in their order."""
        return cls(tuple(A[start : start + ROWS].tocsc() for start in range(0, A.shape[0], ROWS)), *data)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return len(self.labels)

    @property
    def n_concepts(self) -> int:
        """Number of concepts M."""
        return self.blocks[0].shape[1]

    @property
    def product(self) -> float:
        """Multiplications in the logits of all samples, at most."""
        return float(sum(block.nnz for block in self.blocks)) * self.n_classes

    @property
    def single(self) -> SparseProblem:
        """The data for selection: these, since sparse products gain little from float32."""
        return self

    def parts(self) -> Iterator[tuple[csc_matrix, np.ndarray, np.ndarray]]:
        """Activations, labels and weights of each block."""
        start = 0
        for block in self.blocks:
            stop = start + block.shape[0]
            yield block, self.labels[start:stop], self.weights[start:stop]
            start = stop

    @cached_property
    def fewer(self) -> SparseProblem | None:
        """A part of the samples that is enough to select by, or None if that is no saving (as `Problem.fewer`)."""
        stride = min(STRIDE, self.n_samples // (PER_CLASS * self.n_classes))
        if stride < 3 or not self.weights.all():
            return None
        order = np.argsort(self.labels, kind="stable")
        kept = np.sort(order[stride // 2 :: stride])
        edges = np.cumsum([0] + [block.shape[0] for block in self.blocks])
        rows = [
            block.tocsr()[kept[(kept >= start) & (kept < stop)] - start]
            for block, start, stop in zip(self.blocks, edges, edges[1:])
        ]
        weights = self.weights[kept]
        return SparseProblem.of(
            vstack(rows, "csr"), self.labels[kept], weights / weights.sum(), self.n_classes, self.usable, self.variances
        )

    @cached_property
    def prior(self) -> np.ndarray:
        """Weight (K,) of each class."""
        return np.bincount(self.labels, self.weights, self.n_classes)

    def log_prior(self) -> np.ndarray:
        """Intercepts (K,) of the model without concepts, centred."""
        prior = np.log(np.maximum(self.prior, 1e-12))
        return prior - prior.mean()

    @cached_property
    def label_sums(self) -> np.ndarray:
        """Weighted sums (M, K) of the activations of each class."""
        out = np.zeros((self.n_concepts, self.n_classes))
        for block, labels, weights in self.parts():
            rows = len(labels)
            _add(out, block.T, csr_matrix((weights, labels, np.arange(rows + 1)), (rows, self.n_classes)))
        return out

    def support(self, mask: np.ndarray) -> SparseSupport:
        """The weights of a mask (K, M), and products with them."""
        return SparseSupport(self, mask)


#: Data of a softmax regression, whatever the activations are stored in.
AnyProblem = Problem | SparseProblem


def stays_sparse(shape: tuple[int, int]) -> bool:
    """Whether sparse activations of shape (n, M) stay so in a head, as too large to be made dense.

    Examples
    --------
    >>> stays_sparse((10_000, 1000)), stays_sparse((1_281_167, 4500))
    (False, True)
    """
    return 8 * shape[0] * shape[1] > DENSE_BYTES


def sparse_problem(
    A: csr_matrix, labels: np.ndarray, weights: np.ndarray | None, n_classes: int, scaling: str | None
) -> tuple[SparseProblem, np.ndarray]:
    """Scaled activations laid out for the solver, and the scales (M,) that they were divided by.

    Parameters
    ----------
    A : csr_matrix of shape (n, M)
        Activations, finite.
    labels : ndarray of int, shape (n,)
        Class numbers.
    weights : ndarray of shape (n,) or None
        Non-negative sample weights.
    n_classes : int
        K.
    scaling : {"global", "column", None}
        As in `SparseHead`.
    """
    if not A.has_canonical_format:
        A = A.copy()
        A.sum_duplicates()
    if weights is None:
        weights = np.ones(A.shape[0])
    elif not weights.all():
        kept = np.flatnonzero(weights)
        A, labels, weights = A[kept], labels[kept], weights[kept]
    share = weights / weights.sum()
    mean, second = (_column_sums(A, share, power) for power in (1, 2))
    n_samples = A.shape[0]
    stored = np.bincount(A.indices, A.data != 0, A.shape[1])
    varying = (stored > 0) & (stored < n_samples)
    for j in np.flatnonzero(stored == n_samples):  # a concept that is active in every sample may still be constant
        column = A[:, [j]].toarray()
        varying[j] = np.ptp(column) > 1e-12 * np.abs(column).max()
    deviation = np.sqrt(np.maximum(second - mean * mean, 0.0))
    varying &= deviation > 0
    scale = np.ones(A.shape[1])
    if scaling == "global" and varying.any():
        scale[:] = np.sqrt((deviation[varying] ** 2).mean())
    elif scaling == "column":
        scale[varying] = deviation[varying]
    data = A.data / scale.astype(A.dtype)[A.indices]
    scaled = csr_matrix((data, A.indices, A.indptr), A.shape)
    variances = (deviation / scale) ** 2
    return SparseProblem.of(scaled, labels.astype(np.int64), share, n_classes, varying, variances), scale


def _column_sums(A: csr_matrix, share: np.ndarray, power: int) -> np.ndarray:
    out = np.zeros(A.shape[1])
    for start in range(0, A.shape[0], ROWS):
        rows = A[start : start + ROWS].astype(np.float64)
        out += (rows if power == 1 else rows.power(power)).T @ share[start : start + ROWS]
    return out


def class_scores(A: np.ndarray | csr_matrix, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    """Scores (n, K) of activations (n, M), dense or sparse."""
    if not issparse(A):
        return A @ coef.T + intercept
    scores = (A @ csr_matrix(coef.T)).toarray() if 10 * np.count_nonzero(coef) < coef.size else A @ coef.T
    return np.asarray(scores) + intercept


def _add(out: np.ndarray, left: Any, right: Any) -> None:
    """Add a product of sparse matrices to a dense one."""
    product = left @ right
    out += product.toarray(order="C")


@dataclass
class _Pairs:
    """Pairs of one block of samples, sorted by sample and class."""

    activations: csc_matrix
    labels: np.ndarray
    weights: np.ndarray
    design: csr_matrix  # (pairs, size): activations of the pair's sample for the weights of its class
    classes: np.ndarray  # (pairs,)
    counts: np.ndarray  # (rows,) pairs of each sample
    filled: np.ndarray  # samples with pairs
    starts: np.ndarray  # their first pairs
    own: np.ndarray  # pairs of a sample and its true class

    @classmethod
    def of(
        cls, block: csc_matrix, labels: np.ndarray, weights: np.ndarray, rows: np.ndarray, cols: np.ndarray
    ) -> _Pairs:
        """Pairs of a block for the weights of classes `rows` and concepts `cols`, sorted by class."""
        entries = block[:, cols].tocsr()
        per_sample = np.diff(entries.indptr)
        sample = np.repeat(np.arange(len(labels), dtype=np.int32), per_sample)
        classes = rows[entries.indices]
        new = np.ones(len(sample), bool)
        new[1:] = (sample[1:] != sample[:-1]) | (classes[1:] != classes[:-1])
        first = np.flatnonzero(new)
        sample, classes = sample[first], classes[first].astype(np.min_scalar_type(int(classes.max(initial=0))))
        pointers = np.append(first, entries.nnz).astype(entries.indptr.dtype)
        design = csr_matrix((entries.data, entries.indices, pointers), (len(first), len(cols)))
        counts = np.bincount(sample, minlength=len(labels))
        filled = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[filled]
        own = np.flatnonzero(classes == labels[sample])
        return cls(block, labels, weights, design, classes, counts, filled, starts, own)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values of samples, at their pairs."""
        return np.repeat(values, self.counts)

    def row_sums(self, values: np.ndarray) -> np.ndarray:
        """Sums (rows,) of values over each sample's pairs."""
        out = np.zeros(len(self.labels))
        if self.filled.size:
            out[self.filled] = np.add.reduceat(values, self.starts)
        return out

    def matrix(self, values: np.ndarray, n_classes: int) -> csr_matrix:
        """Values of pairs as a sparse matrix (rows, K)."""
        pointers = np.concatenate([[0], np.cumsum(self.counts)]).astype(np.int32)
        return csr_matrix((values, self.classes, pointers), (len(self.labels), n_classes))

    def scaled(self, values: np.ndarray) -> csr_matrix:
        """The design with the row of every pair times a value."""
        data = self.design.data * np.repeat(values, np.diff(self.design.indptr))
        return csr_matrix((data, self.design.indices, self.design.indptr), self.design.shape)

    def evaluate(self, w: np.ndarray, b: np.ndarray) -> tuple[float, _Probabilities]:
        """Weighted cross-entropy of the block and its probabilities."""
        highest = b.max()
        relative = np.exp(b - highest)
        logits = self.design @ w
        logits += b[self.classes]
        top = np.full(len(self.labels), highest)
        if self.filled.size:
            top[self.filled] = np.maximum(highest, np.maximum.reduceat(logits, self.starts))
        true = b[self.labels]
        true[np.repeat(np.arange(len(self.labels)), self.counts)[self.own]] = logits[self.own]
        back = np.exp(highest - top)
        p = np.exp(logits - self.spread(top))
        background = back * relative.sum()
        total = background + self.row_sums(p - self.spread(back) * relative[self.classes])
        cancelled = np.flatnonzero(total < CANCELLED * background)
        if cancelled.size:
            total[cancelled] = self._without_cancellation(cancelled, p, back, relative)
        loss = float(self.weights @ (np.log(total) + top - true))
        p /= self.spread(total)
        return loss, _Probabilities(p, back / total)

    def _without_cancellation(
        self, rows: np.ndarray, p: np.ndarray, back: np.ndarray, relative: np.ndarray
    ) -> np.ndarray:
        out = self.row_sums(p)[rows]
        matrix = self.matrix(np.ones(len(p)), len(relative))
        step = max(1, 2**22 // len(relative))
        for start in range(0, len(rows), step):
            some = slice(start, start + step)
            absent = matrix[rows[some]].toarray() == 0
            out[some] += back[rows[some]] * (absent @ relative)
        return out


@dataclass
class _Probabilities:
    """Probabilities of one block: ``p`` at the pairs, elsewhere ``c_i * exp(b_k - max b)``."""

    p: np.ndarray
    c: np.ndarray


@dataclass
class SparseFit:
    """State of a fit on a support (see `sparsecbm.heads.solver.softmax.Fit`)."""

    support: SparseSupport
    w: np.ndarray
    b: np.ndarray
    objective: float
    kkt: float
    made: list[_Probabilities] | None
    logits: None = None

    @property
    def blocks(self) -> list[_Probabilities]:
        """Probabilities of each block, made again after `release`."""
        if self.made is None:
            _, self.made = self.support.evaluate(self.w, self.b)
        return self.made

    def release(self) -> None:
        """Free what grows with the samples."""
        self.made = None
        self.support.__dict__.pop("pairs", None)

    @cached_property
    def relative(self) -> np.ndarray:
        """Exponentials (K,) of the intercepts, the largest being 1."""
        return np.exp(self.b - self.b.max())


class SparseSupport(Layout):
    """A layout, and products of its weights with sparse activations."""

    problem: SparseProblem

    @cached_property
    def pairs(self) -> list[_Pairs]:
        """Pairs of each block."""
        return [_Pairs.of(*part, self.rows, self.cols) for part in self.problem.parts()]

    def bends(self, fit: SparseFit) -> SparseFit:
        """What the curvature at a fit is computed from: the fit."""
        return fit

    dtype = np.dtype(np.float64)

    def point(self, w: np.ndarray, b: np.ndarray, logits: None = None) -> SparseFit:
        """Loss and probabilities at weights (size,) and intercepts (K,)."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            loss, blocks = self.evaluate(w, b)
        return SparseFit(self, w, b, loss, np.inf, blocks)

    def shift(self, w: np.ndarray, b: np.ndarray) -> None:
        """No logits are kept: every point is evaluated from its weights."""

    def spare(self, fit: SparseFit) -> None:
        """Make room for the probabilities of the next point; these are made again if no step is taken."""
        fit.made = None

    def hessian(self, fit: SparseFit) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Product of the loss's Hessian with a direction."""
        return partial(self.product, fit)

    def evaluate(self, w: np.ndarray, b: np.ndarray) -> tuple[float, list[_Probabilities]]:
        """Loss and probabilities."""
        loss, blocks = 0.0, []
        for pairs in self.pairs:
            part, probabilities = pairs.evaluate(w, b)
            loss += part
            blocks.append(probabilities)
        return loss, blocks

    def slopes(self, fit: SparseFit) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives (size,) and (K,) of the loss with respect to weights and intercepts."""
        relative = fit.relative
        slope, constant = np.zeros(self.size), -self.problem.prior
        for pairs, at in zip(self.pairs, fit.blocks):
            weights = pairs.spread(pairs.weights)
            residual = weights * at.p
            correction = residual - weights * pairs.spread(at.c) * relative[pairs.classes]
            constant = constant + relative * float(pairs.weights @ at.c)
            constant += np.bincount(pairs.classes, correction, len(relative))
            residual[pairs.own] -= weights[pairs.own]
            slope += pairs.design.T @ residual
        return slope, constant

    def product(self, fit: SparseFit, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Hessian of the loss times a direction of the weights (size,) and intercepts (K,)."""
        relative = fit.relative
        mean_background = float(relative @ v)
        out, constant = np.zeros(self.size), np.zeros(len(v))
        for pairs, at in zip(self.pairs, fit.blocks):
            base = pairs.spread(at.c) * relative[pairs.classes]
            shift = v[pairs.classes]
            change = pairs.design @ u
            change += shift
            mean = at.c * mean_background + pairs.row_sums(at.p * change - base * shift)
            means, weights = pairs.spread(mean), pairs.spread(pairs.weights)
            change -= means
            change *= at.p
            change *= weights
            out += pairs.design.T @ change
            shift -= means
            shift *= base
            shift *= weights
            change -= shift
            weighted = pairs.weights * at.c
            constant += relative * (v * weighted.sum() - float(weighted @ mean))
            constant += np.bincount(pairs.classes, change, len(v))
        return out, constant

    def _curvature(self, pairs: _Pairs, at: _Probabilities, relative: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Curvature s_i p (1 - p) of the pairs, and what it exceeds the background's by."""
        weights = pairs.spread(pairs.weights)
        bend = weights * at.p * (1 - at.p)
        base = pairs.spread(at.c) * relative[pairs.classes]
        return bend, bend - weights * base * (1 - base)

    def inverses(self, fit: SparseFit, l2: float) -> np.ndarray:
        """Inverses (K, S, S) of the per-class Hessian blocks, padded by unit rows (`slots`)."""
        return self._inverses(fit, l2)[0]

    def _inverses(self, fit: SparseFit, l2: float) -> tuple[np.ndarray, np.ndarray]:
        """Those, and the sums (K,) of the curvature of each class."""
        classes, width = self.slots.shape
        relative = fit.relative
        out = np.zeros((classes, width, width))
        totals, cross = np.zeros(classes), np.zeros(self.size)
        inner = csr_matrix((self.size, self.size))
        for pairs, at in zip(self.pairs, fit.blocks):
            bend, excess = self._curvature(pairs, at, relative)
            first, second = float(pairs.weights @ at.c), float(pairs.weights @ (at.c * at.c))
            totals += relative * first - relative**2 * second
            totals += np.bincount(pairs.classes, excess, classes)
            if self.size:
                cross += pairs.design.T @ bend
                inner = inner + (pairs.design.T @ pairs.scaled(bend))
        if self.size:
            inner = inner.tocoo()
            place = np.arange(self.size) - self.offsets[self.rows]
            out[self.rows[inner.row], place[inner.row], place[inner.col]] = inner.data
            out[self.rows, place, -1] = out[self.rows, -1, place] = cross
        return self.invert(out, totals, l2), totals

    def gradient(self, fit: SparseFit) -> np.ndarray:
        """Derivative (K, M) of the loss with respect to all weights."""
        relative, problem = fit.relative, self.problem
        out = -problem.label_sums
        for pairs, at in zip(self.pairs, fit.blocks):
            weights = pairs.spread(pairs.weights)
            excess = weights * (at.p - pairs.spread(at.c) * relative[pairs.classes])
            out += np.outer(pairs.activations.T @ (pairs.weights * at.c), relative)
            _add(out, pairs.activations.T, pairs.matrix(excess, problem.n_classes))
        return np.ascontiguousarray(out.T)

    def gains(self, fit: SparseFit, l2: float, allowed: np.ndarray, candidates: int, nonnegative: bool) -> np.ndarray:
        """Expected gain (K, M) of adding each weight: as for dense activations, but from exact sums over all samples.

        Parameters
        ----------
        fit : SparseFit
            Weights in use.
        l2 : float
            Ridge penalty.
        allowed : ndarray of bool, shape (K, M)
            Weights that may be added; the others gain 0.
        candidates : int
            Concepts of each class, the most promising ones, that get the Schur complement; the others gain 0.
        nonnegative : bool
            Only weights that would become positive gain.
        """
        problem = self.problem
        inverses, totals = self._inverses(fit, l2)
        gradient = self.gradient(fit)
        rough = gradient**2 / (totals[:, None] * problem.variances + l2)
        rough[~allowed] = -1.0
        if nonnegative:
            rough[gradient >= 0] = -1.0
        chosen = []
        for row, size in zip(rough, np.diff(self.offsets)):
            count = min(problem.n_concepts, max(candidates, int(size)))
            best = np.sort(np.argpartition(-row, count - 1)[:count])
            chosen.append(best[row[best] >= 0])
        squares, sums, cross = self._moments(fit, chosen)
        out = np.zeros(rough.shape)
        for k, concepts in enumerate(chosen):
            if concepts.size == 0:
                continue
            size = self.offsets[k + 1] - self.offsets[k]
            # The weights of the class come first, then padding, which has no cross terms, then its intercept.
            kept = np.append(np.arange(size), inverses.shape[1] - 1)
            terms = np.vstack([cross[k], sums[k]])
            explained = np.einsum("sc,sc->c", terms, inverses[k][np.ix_(kept, kept)] @ terms)
            diagonal = squares[k] + l2
            schur = np.maximum(diagonal - explained, 1e-6 * diagonal)
            out[k, concepts] = np.maximum(gradient[k, concepts] ** 2 / (2 * schur), 1e-300)
        return out

    def _moments(
        self, fit: SparseFit, chosen: list[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Bent squares and sums of some concepts of each class, and cross terms with the weights of the class."""
        relative, classes = fit.relative, self.problem.n_classes
        squares = [np.zeros(len(concepts)) for concepts in chosen]
        sums = [np.zeros(len(concepts)) for concepts in chosen]
        cross = [
            np.zeros((stop - start, len(some))) for start, stop, some in zip(self.offsets, self.offsets[1:], chosen)
        ]
        for pairs, at in zip(self.pairs, fit.blocks):
            once = pairs.weights * at.c
            twice = once * at.c
            bend, excess = (
                pairs.matrix(values, classes).tocsc() for values in self._curvature(pairs, at, relative)
            )  # fmt: skip
            place = np.full(len(pairs.labels), -1, np.int32)
            for k, concepts in enumerate(chosen):
                count = len(concepts)
                if count == 0:
                    continue
                own = self.cols[self.offsets[k] : self.offsets[k + 1]]
                some = slice(bend.indptr[k], bend.indptr[k + 1])
                rows = bend.indices[some]
                place[rows] = np.arange(len(rows), dtype=np.int32)
                entries = pairs.activations[:, np.concatenate([concepts, own])]
                split = entries.indptr[count]
                number = np.repeat(np.arange(count), np.diff(entries.indptr[: count + 1]))
                sample, values = entries.indices[:split], entries.data[:split].astype(np.float64)
                curved = relative[k] * once[sample] - relative[k] ** 2 * twice[sample]
                inside = place[sample]
                paired = np.flatnonzero(inside >= 0)
                inside = inside[paired]
                curved[paired] += excess.data[some][inside]
                curved *= values
                sums[k] += np.bincount(number, curved, count)
                squares[k] += np.bincount(number, curved * values, count)
                number, values = number[paired], values[paired]
                for s in range(len(own)):
                    mine = slice(entries.indptr[count + s], entries.indptr[count + s + 1])
                    weighted = np.zeros(len(rows))
                    places = place[entries.indices[mine]]
                    weighted[places] = entries.data[mine] * bend.data[some][places]
                    cross[k][s] += np.bincount(number, weighted[inside] * values, count)
                place[rows] = -1
        return squares, sums, cross

    def dual_parts(self, fit: SparseFit) -> tuple[np.ndarray, np.ndarray, float]:
        """Derivatives of the loss (weights, intercepts), and the weighted mean entropy of the probabilities."""
        relative = fit.relative
        highest = float(fit.b.max())
        mean_background = float(relative @ fit.b)
        entropy = 0.0
        for pairs, at in zip(self.pairs, fit.blocks):
            logits = pairs.design @ fit.w
            constants = fit.b[pairs.classes]
            base = pairs.spread(at.c) * relative[pairs.classes]
            mean = at.c * mean_background + pairs.row_sums(at.p * (logits + constants) - base * constants)
            # c = exp(max b) / Z with Z the partition sum, so ln Z = max b - ln c.
            entropy += float(pairs.weights @ (highest - np.log(at.c) - mean))
        return (*self.slopes(fit), entropy)
