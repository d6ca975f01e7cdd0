"""What every selection method is made of: a budget, refits on a support, and second-order prices of weights.

Prices come from the quadratic model of one class with everything else fixed, H being the Hessian block of its support:

* dropping weight j costs about w_j^2 / (2 [H^-1]_jj) (optimal brain surgeon, Hassibi & Stork 1993);
* adding concept j gains about g_j^2 / (2 (H_jj - h_j^T H^-1 h_j)), g_j its derivative, h_j its cross terms with the
  support: the Schur complement discounts a concept that those already chosen explain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from sparsecbm.heads.nec import largest
from sparsecbm.heads.solver.newton import newton
from sparsecbm.heads.solver.softmax_sparse import AnyProblem, SparseFit, SparseSupport


@dataclass(frozen=True)
class Budget:
    """How many weights may differ from zero.

    Parameters
    ----------
    concepts_per_class : int
        k >= 1.
    counting : {"average", "strict"}
        k * K weights in all, or at most k in every class.
    nonnegative : bool
        Weights may not be negative.
    """

    concepts_per_class: int
    counting: str = "average"
    nonnegative: bool = False

    def total(self, problem: AnyProblem) -> int:
        """Weights that the budget allows in all."""
        return problem.n_classes * min(self.concepts_per_class, int(problem.usable.sum()))

    def keep(self, scores: np.ndarray) -> np.ndarray:
        """Mask of the best positive scores (K, M) within the budget."""
        return largest(scores, self.concepts_per_class, self.counting)


@dataclass
class State:
    """A support with its refitted weights; `fit` is what its methods take. A dense head has the fit alone."""

    mask: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    objective: float
    support: Any = field(repr=False)
    fit: Any = field(repr=False)
    sparse_gains: tuple[int, np.ndarray] | None = field(default=None, repr=False)

    @cached_property
    def bends(self) -> Any:
        """Curvature of the classes at the refitted weights, as the support keeps it."""
        return self.support.bends(self.fit)

    def release(self) -> State:
        """Free what a sparse state can make again; with many samples, few states fit in memory."""
        if isinstance(self.fit, SparseFit):
            self.fit.release()
        return self


def empty(problem: AnyProblem, budget: Budget, l2: float) -> State:
    """The model without concepts."""
    shape = (problem.n_classes, problem.n_concepts)
    return refit(problem, np.zeros(shape, bool), np.zeros(shape), problem.log_prior(), budget, l2)


def refit(
    problem: AnyProblem,
    mask: np.ndarray,
    coef: np.ndarray,
    intercept: np.ndarray,
    budget: Budget,
    l2: float,
    *,
    steps: int = 3,
    tol: float = 1e-6,
    before: State | None = None,
) -> State:
    """Newton steps on a support, warm-started; `before` is the state at the start, if its support is within this."""
    support = problem.support(mask)
    w = coef[support.rows, support.cols]
    lower = None
    if budget.nonnegative:
        w, lower = np.maximum(w, 0.0), np.ones(support.size)
    warm = None if before is None or before.fit.logits is None else before
    fit = newton(
        support, w, intercept, l2=l2, lower=lower, max_steps=steps, tol=tol, max_products=15, forcing=0.2, check=False,
        bends=warm and warm.bends, logits=None if warm is None else warm.fit.logits,
    )  # fmt: skip
    return State(mask, support.dense(fit.w), fit.b, fit.objective, support, fit)


def saliency(state: State, l2: float, tiny: float = 1e-300) -> np.ndarray:
    """Price (K, M) of dropping each weight; 0 off the support, at least `tiny` on it."""
    out = np.zeros(state.mask.shape)
    support = state.support
    inverses = support.inverses(state.bends, l2)
    used = support.slots < support.size
    variances = np.einsum("kii->ki", inverses)[used]
    out[support.rows, support.cols] = np.maximum(state.fit.w**2 / (2 * variances), tiny)
    return out


def gains(state: State, l2: float, budget: Budget, candidates: int = 32) -> np.ndarray:
    """Expected gain (K, M) of adding each weight; 0 on the support and for concepts that were not among the candidates.

    Only the `candidates` most promising concepts of each class (by derivative over mean curvature; at least as
    many as it uses) get the Schur complement.
    """
    support, mask = state.support, state.mask
    if isinstance(support, SparseSupport):
        if state.sparse_gains is None or state.sparse_gains[0] < candidates:  # refused swaps ask for them again
            allowed = ~mask & support.problem.usable
            made = support.gains(state.fit, l2, allowed, candidates, budget.nonnegative)
            state.sparse_gains = candidates, made
        return state.sparse_gains[1]
    problem = support.problem
    gradient = problem.gradient(problem.residual(state.fit.probabilities))
    rough = gradient**2 / (state.bends.totals[:, None] * problem.second_moments + l2)
    # Concepts that are (numerically) constant cannot be told from the intercept.
    rough[mask | ~problem.usable] = -1.0
    if budget.nonnegative:
        rough[gradient >= 0] = -1.0
    out = np.zeros(mask.shape)
    sizes = np.diff(support.offsets)
    for k in range(problem.n_classes):
        count = min(problem.n_concepts, max(candidates, int(sizes[k])))
        chosen = np.argpartition(-rough[k], count - 1)[:count]
        chosen = np.sort(chosen[rough[k, chosen] >= 0])
        if chosen.size == 0:
            continue
        seen, bend = state.bends.samples[k]
        columns = problem.columns[chosen[:, None], seen]
        weighted = columns * bend
        own = support.block(k, seen)
        # Support and intercept of the class, and their cross terms with the candidates.
        inner = np.empty((len(own) + 1, len(own) + 1))
        inner[:-1, :-1] = (own * bend) @ own.T
        inner[:-1, -1] = inner[-1, :-1] = own @ bend
        inner[-1, -1] = state.bends.totals[k] + 1e-8
        inner[np.arange(len(own)), np.arange(len(own))] += l2
        inner += 1e-10 * np.trace(inner) / len(inner) * np.eye(len(inner))
        cross = np.vstack([own @ weighted.T, weighted.sum(1)[None]]).astype(np.float64)
        diagonal = np.einsum("cn,cn->c", weighted, columns) + l2
        schur = np.maximum(diagonal - np.einsum("sc,sc->c", cross, np.linalg.solve(inner, cross)), 1e-6 * diagonal)
        out[k, chosen] = np.maximum(gradient[k, chosen] ** 2 / (2 * schur), 1e-300)
    return out


def shrink(problem: AnyProblem, state: State, budget: Budget, l2: float, *, steps: int = 3) -> State:
    """Drop the cheapest weights until the budget holds, and refit."""
    mask = budget.keep(saliency(state, l2))
    state.release()
    return refit(problem, mask, state.coef, state.intercept, budget, l2, steps=steps)


def fill(problem: AnyProblem, state: State, budget: Budget, l2: float) -> State:
    """Add the concepts that gain most until the budget is used up (as far as useful concepts exist)."""
    for _ in range(20):
        if int(state.mask.sum()) >= budget.total(problem):
            break
        scores = gains(state, l2, budget, candidates=problem.n_concepts)
        # Weights that are in use already outrank every newcomer.
        scores = np.where(state.mask, np.inf, scores)
        mask = budget.keep(scores)
        if (mask == state.mask).all():
            break
        state = refit(problem, mask, state.coef, state.intercept, budget, l2, before=state)
    return state
