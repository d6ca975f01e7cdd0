"""Proximal descent on the l1 problem: in float32 the fast start on large data, which certified solvers finish.

Accelerated proximal gradients (Beck & Teboulle 2009, with O'Donoghue & Candes' restarts) in the metric of the Hessian
blocks of the classes. The blocks bound the softmax Hessian: diag(p) - p p^T <= 2 diag(p (1 - p)), the difference being
diagonally dominant; their scale adapts. They live on a working set of weights, and are estimated from few samples. The
proximal step is then one small lasso a class, and all classes take its coordinate steps together.

Where samples are plenty, most steps see only a part of them: the part's objective plus the linear term that makes its
gradient that of the whole (Shamir, Srebro & Zhang 2014, DANE) falls almost as the whole one does, at a share of the
cost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsecbm.heads.solver.softmax import Problem, bending

#: Multiplications (samples x concepts x classes) in a full product from which this solver is worth its overhead.
LARGE = 2e7


@dataclass
class Point:
    """Weights (K, M), intercepts (K,), logits (K, n), loss, class probabilities (K, n)."""

    coef: np.ndarray
    intercept: np.ndarray
    logits: np.ndarray
    loss: float
    probabilities: np.ndarray

    @classmethod
    def at(cls, problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> Point:
        """Evaluate a model."""
        logits = _logits(problem, coef, intercept)
        return cls(coef, intercept, logits, *problem.loss(logits))


def _logits(problem: Problem, coef: np.ndarray, intercept: np.ndarray) -> np.ndarray:
    logits = problem.logits(coef)
    logits += intercept[:, None]
    return logits


def _penalty(coef: np.ndarray, l1: float, l2: float) -> float:
    return l1 * float(np.abs(coef).sum(dtype=np.float64)) + 0.5 * l2 * float(np.sum(coef * coef, dtype=np.float64))


def approximate(
    problem: Problem, coef: np.ndarray, intercept: np.ndarray, l1: float, l2: float, tol: float, max_rounds: int = 60
) -> tuple[np.ndarray, np.ndarray, int]:
    """Weights and intercepts near the optimum of a large problem, and the rounds over all samples that it took.

    Parameters
    ----------
    problem : Problem
        The data.
    coef, intercept : ndarray of shapes (K, M) and (K,)
        Start.
    l1, l2 : float
        Penalties; l1 > 0.
    tol : float
        Relative duality gap to aim at; below about 1e-5 float32 is the limit.
    max_rounds : int
        Limit on rounds over all samples.
    """
    from sparsecbm.heads.solver.duality_gap import certify

    whole = problem.single
    coef, intercept = coef.astype(np.float32), intercept.astype(np.float32)
    part = whole.fewer
    cold = part is not None and not coef.any()
    if part is not None and cold:
        coef, intercept = descend(part.part(4), coef, intercept, l1, l2, rounds=10)
    point = Point.at(whole, coef, intercept)
    scale, failures = 1.5, 0
    best = last = np.inf
    count = 0
    for _ in range(max_rounds):
        residual = whole.residual(point.probabilities)
        gradient = whole.gradient(residual)
        if cold and count == 0:  # fitted to a few samples, hardly close enough: not worth a certificate
            objective, gap = point.loss + _penalty(point.coef, l1, l2), np.inf
        else:
            objective, gap, _ = certify(whole, point.coef, point.probabilities, gradient, point.loss, l1, l2)
        if gap <= tol * abs(objective):
            break
        # Float32 has no more to give.
        failures = failures + 1 if objective > best - 1e-7 * abs(best) else 0
        best = min(best, objective)
        if failures >= 3:
            break
        moved = None
        if part is not None:
            inner = Point.at(part, point.coef, point.intercept)
            own = part.residual(inner.probabilities)
            tilt = (gradient - part.gradient(own), residual.sum(1) - own.sum(1))
            goal = descend(part, point.coef, point.intercept, l1, l2, rounds=6, tilt=tilt)
            moved = _step(whole, point, *goal, l1, l2)
            gain = 0.0 if moved is None else objective - (moved.loss + _penalty(moved.coef, l1, l2))
            if gain < 1e-6 * abs(objective) or gain > 0.5 * last:
                part = None  # the part is too unlike the whole for what is left to gain
            last = gain
        if moved is None:
            moved, scale = _round(whole, point, gradient, l1, l2, scale, steps=6)
        point = moved
        count += 1
    return point.coef.astype(np.float64), point.intercept.astype(np.float64), count


def descend(
    problem: Problem,
    coef: np.ndarray,
    intercept: np.ndarray,
    l1: float,
    l2: float,
    *,
    rounds: int,
    tilt: tuple[np.ndarray, np.ndarray] | None = None,
    least: float = 0.03,
) -> tuple[np.ndarray, np.ndarray]:
    """Rounds of descent on (a part of) the data, until one gains less than `least` of what all have gained."""
    point = Point.at(problem, coef, intercept)
    scale, total = 1.5, 0.0

    def value(at: Point) -> float:
        linear = 0.0 if tilt is None else float(np.sum(tilt[0] * at.coef) + tilt[1] @ at.intercept)
        return at.loss + linear + _penalty(at.coef, l1, l2)

    before = value(point)
    for _ in range(rounds):
        gradient = problem.gradient(problem.residual(point.probabilities))
        if tilt is not None:
            gradient += tilt[0]
        point, scale = _round(problem, point, gradient, l1, l2, scale, steps=5, tilt=tilt)
        after = value(point)
        total += before - after
        if before - after <= least * total:
            break
        before = after
    return point.coef, point.intercept


def _step(
    problem: Problem, point: Point, coef: np.ndarray, intercept: np.ndarray, l1: float, l2: float
) -> Point | None:
    """The first of full, half and quarter steps towards (coef, intercept) that lowers the objective."""
    before = point.loss + _penalty(point.coef, l1, l2)
    logits = _logits(problem, coef, intercept)
    for length in (1.0, 0.5, 0.25):
        if length < 1:
            coef, intercept, logits = (
                0.5 * (new + old)
                for new, old in ((coef, point.coef), (intercept, point.intercept), (logits, point.logits))
            )
        loss, probabilities = problem.loss(logits)
        if loss + _penalty(coef, l1, l2) < before:
            return Point(coef, intercept, logits, loss, probabilities)
    return None


class _Blocks:
    """Hessian blocks of the classes on their working sets, and the proximal step in their metric."""

    def __init__(self, problem: Problem, mask: np.ndarray, probabilities: np.ndarray) -> None:
        sizes = mask.sum(1)
        width = int(sizes.max(initial=0))
        self.index = np.argsort(~mask, axis=1, kind="stable")[:, :width]
        self.real = np.arange(width) < sizes[:, None]
        self.rows = np.arange(len(mask))[:, None]
        self.dtype = problem.columns.dtype
        blocks = np.zeros((len(mask), width + 1, width + 1), np.float32)
        keep = max(1500, problem.n_samples // 10)
        for k, size in enumerate(sizes):
            curvature = problem.weights * probabilities[k]
            curvature *= 1 - probabilities[k]
            seen, bend = bending(curvature, keep)
            columns = problem.columns[self.index[k, :size, None], seen]
            weighted = columns * bend
            blocks[k, :size, :size] = weighted @ columns.T
            blocks[k, :size, -1] = blocks[k, -1, :size] = weighted.sum(1)
            blocks[k, -1, -1] = curvature.sum() + 1e-12
        diagonal = np.einsum("kii->ki", blocks)
        # The intercept is the last coordinate of a class; padding has a curvature of one and never moves.
        diagonal[:, :-1] = np.where(self.real, 1.0001 * diagonal[:, :-1] + 1e-12, 1.0)
        self.blocks = np.ascontiguousarray(blocks.transpose(1, 2, 0))

    def gather(self, weights: np.ndarray, intercepts: np.ndarray) -> np.ndarray:
        """Coordinates (width + 1, K) of arrays (K, M) and (K,)."""
        inner = np.where(self.real, weights[self.rows, self.index], 0)
        return np.concatenate([inner, intercepts[:, None]], 1).T.astype(self.dtype)

    def scatter(self, point: np.ndarray, concepts: int) -> tuple[np.ndarray, np.ndarray]:
        """Weights (K, M) and intercepts (K,) of coordinates."""
        weights = np.zeros((point.shape[1], concepts), self.dtype)
        inner = point[:-1].T
        weights[self.rows, self.index] = np.where(self.real, inner, 0)
        return weights, point[-1].copy()

    def step(
        self, point: np.ndarray, slope: np.ndarray, l1: float, l2: float, scale: float, sweeps: int = 8
    ) -> tuple[np.ndarray, float]:
        """Minimise slope.d + scale / 2 d^T H d + l2 / 2 ||x||^2 + l1 ||x||_1 over x = point + d.

        Coordinate descent, all classes at once. Returns x and scale / 2 d^T H d.
        """
        threshold, ridge = self.dtype.type(l1 / scale), self.dtype.type(l2 / scale)
        new = point.copy()
        slope = slope / self.dtype.type(scale)
        slope[:-1] += ridge * point[:-1]
        diagonal = np.einsum("jjk->jk", self.blocks).copy()
        diagonal[:-1] += ridge
        limits = threshold / diagonal
        inverse = 1 / diagonal
        lowest = -limits
        # Lists of rows and ufuncs alone: with few classes, the calls are what costs.
        each = list(zip(new, slope, self.blocks, inverse, limits, lowest, diagonal))[:-1]
        for _ in range(sweeps):
            largest = 0.0
            for x, g, block, shrink, high, low, bend in each:
                change = x - g * shrink
                change -= np.minimum(np.maximum(change, low), high)
                change -= x
                size = np.abs(change * bend).max()
                if size == 0:
                    continue
                largest = max(largest, size)
                x += change
                slope += block * change
                g += ridge * change
            change = -slope[-1] * inverse[-1]
            new[-1] += change
            slope += self.blocks[-1] * change
            if largest <= 1e-3 * threshold:
                break
        moved = new - point
        bent = np.einsum("ijk,jk->ik", self.blocks, moved)
        return new, 0.5 * scale * float(np.sum(bent * moved))


def _round(
    problem: Problem,
    point: Point,
    gradient: np.ndarray,
    l1: float,
    l2: float,
    scale: float,
    *,
    steps: int,
    tilt: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Point, float]:
    """Let in the worst violators, build the blocks, take a few accelerated steps; `gradient` includes the tilt."""
    support = point.coef != 0
    excess = np.where(support, 0.0, np.abs(gradient) - l1)
    # A few newcomers a class, the worst violators: most others are correlated with them and explained away.
    room = np.maximum(6, support.sum(1) // 2)
    order = np.argsort(-excess, axis=1, kind="stable")[:, : int(room.max())]
    mask = np.zeros(excess.shape, bool)
    np.put_along_axis(mask, order, np.arange(order.shape[1]) < room[:, None], axis=1)
    mask = support | (mask & (excess > 0))
    blocks = _Blocks(problem, mask, point.probabilities)
    used = np.flatnonzero(mask.any(0))
    if 2 * used.size > problem.n_concepts:  # a copy costs more than it saves
        used, columns = np.arange(problem.n_concepts), problem.columns
    else:
        columns = problem.columns[used]
    shift = None if tilt is None else blocks.gather(*tilt)

    def linear(x: np.ndarray) -> float:
        return 0.0 if shift is None else float(np.sum(shift * x))

    def penalty(x: np.ndarray) -> float:
        return _penalty(x[:-1], l1, l2) + linear(x)

    best = at = blocks.gather(point.coef, point.intercept)
    best_value = point.loss + penalty(best)
    best_logits, best_probabilities, best_loss = point.logits, point.probabilities, point.loss
    ahead_loss, ahead_probabilities = point.loss, point.probabilities
    momentum = 1.0
    slopes = np.zeros(gradient.shape, blocks.dtype)
    for count in range(steps):
        residual = problem.residual(ahead_probabilities)
        if columns is problem.columns:
            slopes = residual @ columns.T
        else:
            slopes[:, used] = residual @ columns.T
        slope = blocks.gather(slopes, residual.sum(1))
        if shift is not None:
            slope += shift
        new, bend = blocks.step(at, slope, l1, l2, scale)
        weights, intercepts = blocks.scatter(new, problem.n_concepts)
        logits = (weights if columns is problem.columns else weights[:, used]) @ columns
        logits += intercepts[:, None]
        loss, probabilities = problem.loss(logits)
        value = loss + penalty(new)
        # How the loss rose above its tangent, compared with the blocks' bound.
        rise = loss - ahead_loss - float(np.sum((slope if shift is None else slope - shift) * (new - at)))
        if rise > bend:
            scale *= 1.4
        elif rise < 0.7 * bend:
            scale = max(0.9 * scale, 0.5)
        if not value <= best_value + 1e-7 * abs(best_value):  # back to the best point, with shorter steps
            if momentum == 1.0:
                scale *= 1.6
            at, ahead_loss, ahead_probabilities, momentum = best, best_loss, best_probabilities, 1.0
            continue
        if float(np.sum((at - new) * (new - best))) > 0:
            momentum = 1.0
        following = 0.5 * (1 + np.sqrt(1 + 4 * momentum * momentum))
        beta = blocks.dtype.type((momentum - 1) / following)
        momentum = following
        previous, previous_logits = best, best_logits
        best, best_value, best_logits, best_loss, best_probabilities = new, value, logits, loss, probabilities
        if count == steps - 1 or beta == 0:
            at, ahead_loss, ahead_probabilities = best, loss, probabilities
            continue
        at = new + beta * (new - previous)
        ahead_loss, ahead_probabilities = problem.loss(logits + beta * (logits - previous_logits))
    coef, intercept = blocks.scatter(best, problem.n_concepts)
    return Point(coef, intercept, best_logits, best_loss, best_probabilities), scale
