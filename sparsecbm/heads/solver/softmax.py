"""Softmax regression restricted to a fixed set of weights, on dense activations.

The objective, over the weights on a given support and over unpenalised intercepts, is

    sum_i s_i * CE(y_i, W a_i + b)  +  (l2 / 2) * ||W||^2  +  sum(tilt * W).

Here are its data (`Problem`), its places (`Layout`) and its products (`Support`); `newton.py` minimises it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

import numpy as np

#: Bytes that gathered copies of the supported columns may take before dense products replace them.
GATHER_BYTES = 400_000_000
#: A part of the samples keeps at least so many a class.
PER_CLASS = 125
#: It holds one sample in so many, if they suffice.
STRIDE = 8
#: Samples from which a class's curvature is estimated, where more of them matter.
ROWS = 1000
#: Multiplications in a full product (samples x concepts x classes) from which several BLAS threads help.
THREADED = 1e9


@cache
def _pools():
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")


def few_threads(multiplications: float) -> contextlib.AbstractContextManager:
    """One BLAS thread where products are small: there several only wait for each other."""
    return _pools().limit(limits=1) if multiplications < THREADED else contextlib.nullcontext()


@dataclass(frozen=True)
class Problem:
    """Data of a softmax regression.

    Parameters
    ----------
    columns : ndarray of shape (M, n)
        Transposed activations, C-contiguous, so that picking concepts copies contiguous rows.
    targets : ndarray of shape (K, n)
        Class probabilities of each sample (one-hot for hard labels); columns sum to 1.
    weights : ndarray of shape (n,)
        Non-negative sample weights that sum to 1.
    factors : tuple of ndarray (r, M) and ndarray (r, n), optional
        Low-rank factorisation ``columns = factors[0].T @ factors[1]``, which makes full gradients cheaper.
    wide : Problem, optional
        The float64 data of which this is the float32 copy: only they tell what is constant.
    """

    columns: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    factors: tuple[np.ndarray, np.ndarray] | None = None
    wide: Problem | None = field(default=None, repr=False)

    @property
    def n_samples(self) -> int:
        """Number of samples."""
        return self.columns.shape[1]

    @property
    def n_concepts(self) -> int:
        """Number of concepts M."""
        return self.columns.shape[0]

    @property
    def n_classes(self) -> int:
        """Number of classes K."""
        return self.targets.shape[0]

    @property
    def product(self) -> float:
        """Multiplications in the logits of all samples."""
        return float(self.n_samples) * self.n_concepts * self.n_classes

    @cached_property
    def single(self) -> Problem:
        """The same data in float32, for selection: half the memory traffic; the final fit is in float64."""
        if self.columns.dtype == np.float32:
            return self
        factors = self.factors and (self.factors[0].astype(np.float32), self.factors[1].astype(np.float32))
        out = type(self)(self.columns.astype(np.float32), self.targets.astype(np.float32),
                         self.weights.astype(np.float32), factors, self)  # fmt: skip
        out.__dict__["labels"] = self.labels
        return out

    @cached_property
    def usable(self) -> np.ndarray:
        """Mask (M,) of concepts that vary over the samples; a constant one only shifts the intercepts."""
        if self.wide is not None:
            return self.wide.usable
        columns = self.columns if self.weights.all() else self.columns[:, self.weights > 0]
        low, high = columns.min(axis=1), columns.max(axis=1)
        return high - low > 1e-12 * np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-300)

    @cached_property
    def second_moments(self) -> np.ndarray:
        """Weighted mean (M,) of the squared activations of each concept."""
        return np.einsum("mn,mn,n->m", self.columns, self.columns, self.weights)

    @cached_property
    def labels(self) -> np.ndarray | None:
        """Class numbers (n,), or None where the targets are soft."""
        labels = self.targets.argmax(0)
        hard = (
            np.count_nonzero(self.targets) == labels.size and (self.targets[labels, np.arange(labels.size)] == 1).all()
        )
        return labels if hard else None

    @cached_property
    def fewer(self) -> Problem | None:
        """A part of the samples that is enough to select by (`PER_CLASS`, `STRIDE`), or None if that is no saving."""
        stride = min(STRIDE, self.n_samples // (PER_CLASS * self.n_classes))
        return self.part(stride) if stride >= 3 and self.weights.all() else None

    def part(self, stride: int) -> Problem:
        """One sample in `stride`, every class in proportion; weights sum to 1 again."""
        order = np.argsort(self.targets.argmax(0) if self.labels is None else self.labels, kind="stable")
        kept = np.sort(order[stride // 2 :: stride])
        weights = self.weights[kept]
        columns, targets = (np.ascontiguousarray(rows[:, kept]) for rows in (self.columns, self.targets))
        out = type(self)(columns, targets, weights / weights.sum())
        out.__dict__["labels"] = None if self.labels is None else self.labels[kept]
        return out

    def loss(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        """Weighted cross-entropy and class probabilities (K, n) of logits (K, n)."""
        probabilities = logits - logits.max(0)
        labels = self.labels
        if labels is None:
            matched = np.einsum("kn,kn->n", self.targets, probabilities)
        else:
            matched = probabilities[labels, np.arange(labels.size)]
        np.exp(probabilities, out=probabilities)
        total = probabilities.sum(0)
        losses = np.log(total) - matched
        probabilities /= total
        return float(self.weights.astype(np.float64) @ losses.astype(np.float64)), probabilities

    def bend(self, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        """Product of the loss's second derivative with a change u of the logits: s_i (p_k u_k - p_k sum_l p_l u_l)."""
        curvature = self.weights * probabilities

        def product(change: np.ndarray) -> np.ndarray:
            change -= np.einsum("kn,kn->n", probabilities, change)
            change *= curvature
            return change

        return product

    def entropies(self, probabilities: np.ndarray) -> np.ndarray:
        """Negative entropy (n,) of the probabilities of each sample: the conjugate of its loss."""
        p = probabilities
        return np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0).sum(0)

    def logits(self, coef: np.ndarray) -> np.ndarray:
        """Logits (K, n) without intercepts of weights (K, M), most of whose columns may be zero."""
        used = np.flatnonzero(coef.any(0))
        if used.size == 0:
            return np.zeros(self.targets.shape, coef.dtype)
        if 2 * used.size > self.n_concepts:  # a copy costs more than it saves
            return coef @ self.columns
        return coef[:, used] @ self.columns[used]

    def residual(self, probabilities: np.ndarray) -> np.ndarray:
        """Derivative (K, n) of the loss with respect to the logits."""
        residual = probabilities - self.targets
        residual *= self.weights
        return residual

    def gradient(self, residual: np.ndarray) -> np.ndarray:
        """Derivative (K, M) with respect to all weights, from that with respect to the logits."""
        if self.factors is None:
            return residual @ self.columns.T
        basis, coordinates = self.factors
        return (residual @ coordinates.T) @ basis

    def support(self, mask: np.ndarray) -> Support:
        """The weights of a mask (K, M), and products with them."""
        return Support(self, mask)

    def log_prior(self) -> np.ndarray:
        """Intercepts (K,) of the model without concepts, centred."""
        prior = np.log(np.maximum(self.targets @ self.weights, 1e-12))
        return prior - prior.mean()


def bending(curvature: np.ndarray, rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Samples, and their weights, that stand for a class's curvature (n,) in preconditioners and prices.

    Those that the class is sure about are left out. If more than `rows` are left, the most curved are kept and the
    others thinned evenly, with weights that keep their sum.
    """
    peak = curvature.max()
    seen = np.flatnonzero(curvature > 1e-3 * peak)
    if seen.size <= rows:
        return seen, curvature[seen]
    values = curvature[seen]
    heavy = values > 0.1 * peak
    if int(heavy.sum()) > rows // 2:
        heavy[:] = False
    rest = np.flatnonzero(~heavy)
    thin = rest[:: -(-rest.size // (rows // 2))]
    values[thin] *= values[rest].sum() / values[thin].sum()
    kept = np.concatenate([np.flatnonzero(heavy), thin])
    return seen[kept], values[kept]


@dataclass(frozen=True)
class Bends:
    """Curvature of every class: the samples that stand for it with their weights (`bending`), and its sums (K,)."""

    samples: list[tuple[np.ndarray, np.ndarray]]
    totals: np.ndarray

    @classmethod
    def of(cls, problem: Problem, probabilities: np.ndarray) -> Bends:
        """Curvature s_i p (1 - p) at class probabilities (K, n)."""
        samples, totals = [], np.empty(len(probabilities))
        for k, p in enumerate(probabilities):
            curvature = problem.weights * p
            curvature *= 1 - p
            totals[k] = curvature.sum()
            samples.append(bending(curvature))
        return cls(samples, totals)


def slots_of(rows: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Places in the vector (w, b, 0): row k holds those of the weights of class k, then padding, then its intercept's.

    Parameters
    ----------
    rows : ndarray of shape (size,)
        Class of each weight, sorted.
    offsets : ndarray of shape (K + 1,)
        First weight of each class.
    """
    size, classes, sizes = len(rows), len(offsets) - 1, np.diff(offsets)
    slots = np.full((classes, int(sizes.max(initial=0)) + 1), size + classes)
    slots[rows, np.arange(size) - offsets[rows]] = np.arange(size)
    slots[:, -1] = size + np.arange(classes)
    return slots


class Layout:
    """Places of the weights that may differ from zero, whatever the activations are stored in.

    Parameters
    ----------
    problem : Problem or SparseProblem
        The data.
    mask : ndarray of bool, shape (K, M)
        True where a weight is free.
    """

    def __init__(self, problem: Any, mask: np.ndarray) -> None:
        self.problem = problem
        self.rows, self.cols = np.nonzero(mask)
        self.offsets = np.concatenate([[0], np.cumsum(mask.sum(1))])
        self.size = self.rows.size
        self.slots = slots_of(self.rows, self.offsets)

    def dense(self, w: np.ndarray) -> np.ndarray:
        """Weight matrix (K, M)."""
        out = np.zeros((self.problem.n_classes, self.problem.n_concepts), w.dtype)
        out[self.rows, self.cols] = w
        return out

    def spare(self, fit: Any) -> None:
        """Free what the next point does not need of this one; nothing where all of it is small."""

    def invert(self, blocks: np.ndarray, totals: np.ndarray, l2: float) -> np.ndarray:
        """Inverses (K, S, S) of per-class Hessian blocks without penalty, padded by unit rows (`slots`).

        `blocks` (K, S, S) is written to: the sums (K,) of the curvature, for the intercepts, and the ridge penalty go
        on its diagonal, with a jitter far below a block's scale that keeps it regular.
        """
        diagonal = np.einsum("kii->ki", blocks)
        diagonal[:, -1] = totals + 1e-8
        diagonal[:, :-1] += np.where(self.slots[:, :-1] < self.size, l2, 1.0)
        diagonal += 1e-10 * diagonal.mean(1, keepdims=True)
        return np.linalg.inv(blocks)


@dataclass
class Fit:
    """State of a fit on a support.

    Attributes
    ----------
    w : ndarray of shape (size,)
        Free weights, sorted by class and concept.
    b : ndarray of shape (K,)
        Intercepts.
    objective : float
        Loss plus penalties.
    kkt : float
        Largest absolute derivative over the free weights and intercepts.
    probabilities : ndarray of shape (K, n)
        Class probabilities.
    logits : ndarray of shape (K, n)
        Logits.
    """

    w: np.ndarray
    b: np.ndarray
    objective: float
    kkt: float
    probabilities: np.ndarray
    logits: np.ndarray


class Support(Layout):
    """A layout, and products of its weights with dense activations."""

    problem: Problem

    def __init__(self, problem: Problem, mask: np.ndarray) -> None:
        super().__init__(problem, mask)
        columns = problem.columns
        used = np.flatnonzero(mask.any(0))
        # Gathered products read `size` rows each; dense ones multiply K * |used|, about 20 times as fast a row.
        gather = self.size * problem.n_samples * columns.itemsize <= GATHER_BYTES
        self.gathered = columns[self.cols] if gather and self.size * 20 <= problem.n_classes * used.size else None
        if self.gathered is None:
            self.used = columns if used.size == problem.n_concepts else columns[used]
            self.position = np.searchsorted(used, self.cols)

    def block(self, k: int, samples: np.ndarray) -> np.ndarray:
        """Columns (s_k, len(samples)) that class `k` uses, at some samples."""
        start, stop = self.offsets[k], self.offsets[k + 1]
        return self.problem.columns[self.cols[start:stop, None], samples]

    def forward(self, w: np.ndarray) -> np.ndarray:
        """Logits (K, n) without intercepts."""
        shape = (self.problem.n_classes, self.problem.n_samples)
        if self.gathered is None:
            dense = np.zeros((shape[0], len(self.used)), self.used.dtype)
            dense[self.rows, self.position] = w
            return dense @ self.used
        out = np.empty(shape, w.dtype)
        for k in range(shape[0]):
            start, stop = self.offsets[k], self.offsets[k + 1]
            np.matmul(w[start:stop], self.gathered[start:stop], out=out[k])
        return out

    def adjoint(self, residual: np.ndarray) -> np.ndarray:
        """Derivative (size,) with respect to the weights, from that with respect to the logits."""
        if self.gathered is None:
            return (residual @ self.used.T)[self.rows, self.position]
        out = np.empty(self.size, residual.dtype)
        for k in range(self.problem.n_classes):
            start, stop = self.offsets[k], self.offsets[k + 1]
            np.matmul(self.gathered[start:stop], residual[k], out=out[start:stop])
        return out

    @property
    def dtype(self) -> np.dtype:
        """Precision of the fit: the data's."""
        return self.problem.columns.dtype

    def point(self, w: np.ndarray, b: np.ndarray, logits: np.ndarray | None = None) -> Fit:
        """Loss and probabilities at weights (size,) and intercepts (K,); `logits` (K, n), if they are known."""
        if logits is None:
            logits = self.shift(w, b)
        loss, probabilities = self.problem.loss(logits)
        return Fit(w, b, loss, np.inf, probabilities, logits)

    def shift(self, w: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Logits (K, n) of weights and intercepts, or their change along a direction of both."""
        logits = self.forward(w)
        logits += b[:, None]
        return logits

    def slopes(self, fit: Fit) -> tuple[np.ndarray, np.ndarray]:
        """Derivatives (size,) and (K,) of the loss with respect to weights and intercepts."""
        residual = self.problem.residual(fit.probabilities)
        return self.adjoint(residual), residual.sum(1)

    def hessian(self, fit: Fit) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """Product of the loss's Hessian with a direction: `Problem.bend` on the logits, back to the weights."""
        bend = self.problem.bend(fit.probabilities)

        def product(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            change = bend(self.shift(u, v))
            return self.adjoint(change), change.sum(1)

        return product

    def bends(self, fit: Fit) -> Bends:
        """Curvature of the classes at a fit."""
        return Bends.of(self.problem, fit.probabilities)

    def dual_parts(self, fit: Fit) -> tuple[np.ndarray, np.ndarray, float]:
        """Derivatives of the loss (weights, intercepts), and the weighted mean entropy of the probabilities."""
        return (*self.slopes(fit), -float(self.problem.weights @ self.problem.entropies(fit.probabilities)))

    def inverses(self, bends: Bends, l2: float) -> np.ndarray:
        """Inverses (K, S, S) of the per-class Hessian blocks, padded by unit rows (`slots`)."""
        classes, width = self.slots.shape
        out = np.zeros((classes, width, width))  # float64: small, and inverted
        for k in range(classes):
            seen, bend = bends.samples[k]
            columns = self.block(k, seen)
            size = len(columns)
            weighted = columns * bend
            out[k, :size, :size] = weighted @ columns.T
            out[k, :size, -1] = out[k, -1, :size] = weighted.sum(1)
        return self.invert(out, bends.totals, l2).astype(self.problem.columns.dtype, copy=False)
