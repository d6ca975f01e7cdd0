"""Iterative hard thresholding (Blumensath & Davies 2009) with refits: gradient step, keep the largest, refit."""

from __future__ import annotations

import numpy as np

from sparsecbm.heads.selection.base import Budget, State, empty, fill, refit
from sparsecbm.heads.solver.softmax import Problem


def select(problem: Problem, budget: Budget, l2: float, *, rounds: int = 30) -> State:
    """Hard-thresholded gradient steps; the step doubles after progress and is quartered after a failure."""
    problem = problem.single
    state = empty(problem, budget, l2)
    allowed = problem.usable
    second = float(problem.second_moments.max())
    step = 1.0 / (0.25 * second + l2)
    for _ in range(rounds):
        gradient = problem.gradient(problem.residual(state.fit.probabilities)) + l2 * state.coef
        proposal = np.where(allowed, state.coef - step * gradient, 0.0)
        scores = np.maximum(proposal, 0.0) if budget.nonnegative else np.abs(proposal)
        mask = budget.keep(scores)
        if (mask == state.mask).all():
            break
        new = refit(problem, mask, np.where(mask, proposal, 0.0), state.intercept, budget, l2)
        if new.objective < state.objective:
            state, step = new, 2 * step
        else:
            step *= 0.25
    return fill(problem, state, budget, l2)
