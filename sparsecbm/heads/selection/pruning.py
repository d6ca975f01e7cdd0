"""Gradual pruning of the dense ridge solution, by magnitude (as usual) or by optimal-brain-surgeon prices."""

from __future__ import annotations

import numpy as np

from sparsecbm.heads.nec import largest
from sparsecbm.heads.selection.base import Budget, State, dense_ridge, fill, refit, saliency
from sparsecbm.heads.solver.softmax import Problem


def select(
    problem: Problem, budget: Budget, l2: float, *, price: str = "magnitude", stages: int = 15, start: int = 60
) -> State:
    """Cut the dense solution to `start` concepts a class, then in `stages` steps with refits to the budget."""
    coef, intercept = dense_ridge(problem, l2)
    coef = np.where(problem.usable, coef, 0.0)
    if budget.nonnegative:
        coef = np.maximum(coef, 0.0)
    k = budget.concepts_per_class
    sizes = np.unique(np.geomspace(min(max(start, 2 * k), problem.n_concepts), k, stages + 1).astype(int))[::-1]
    mask = largest(np.abs(coef), int(sizes[0]), budget.counting)
    state = refit(problem, mask, np.where(mask, coef, 0.0), intercept, budget, l2)
    for size in (*sizes[1:], k):
        scores = np.abs(state.coef) if price == "magnitude" else saliency(state, l2)
        mask = largest(scores, int(size), budget.counting)
        state = refit(problem, mask, state.coef, state.intercept, budget, l2)
    return fill(problem, state, budget, l2)
