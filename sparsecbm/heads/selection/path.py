"""The usual rule: the first point of a lasso path with enough weights, cut by magnitude; refitted, or not."""

from __future__ import annotations

import numpy as np

from sparsecbm.heads.selection.base import Budget, State, fill, refit
from sparsecbm.heads.solver.softmax import Problem


def _cut(problem: Problem, budget: Budget, n_points: int, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    from sparsecbm.heads.solver.elastic_net import multinomial_path

    needed = budget.concepts_per_class * (1.0 if budget.counting == "average" else 1.5)
    path = multinomial_path(problem, n_points=n_points, smallest=smallest, l2=0.0, max_nec=needed, tol=1e-3)
    coef = np.where(problem.usable, path[-1].coef, 0.0)
    if budget.nonnegative:
        coef = np.maximum(coef, 0.0)
    return np.where(budget.keep(np.abs(coef)), coef, 0.0), path[-1].intercept


def select(problem: Problem, budget: Budget, l2: float, *, n_points: int = 40, smallest: float = 1e-3) -> State:
    """Lasso path, cut to the budget by magnitude, refitted with ridge penalty `l2`."""
    coef, intercept = _cut(problem, budget, n_points, smallest)
    return fill(problem, refit(problem, coef != 0, coef, intercept, budget, l2, steps=10), budget, l2)


def select_cut(problem: Problem, budget: Budget, l2: float, *, n_points: int = 40, smallest: float = 1e-3) -> State:
    """Lasso path cut by magnitude and left as it is: the published practice, kept as a baseline."""
    coef, intercept = _cut(problem, budget, n_points, smallest)
    return refit(problem, coef != 0, coef, intercept, budget, l2, steps=0)
