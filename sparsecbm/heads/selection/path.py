"""The usual rule: the first point of a lasso path with enough weights, cut by magnitude; refitted, or not."""

from __future__ import annotations

import numpy as np

from sparsecbm.heads.selection.base import Budget, State, fill, refit
from sparsecbm.heads.solver.softmax import Problem


def _cut(problem: Problem, budget: Budget, n_points: int, smallest: float) -> tuple[np.ndarray, np.ndarray]:
    from sparsecbm.heads.solver.elastic_net import l1_max, multinomial_logistic

    share = 1.0 if budget.counting == "average" else 1.5
    needed = problem.n_classes * min(share * budget.concepts_per_class, int(problem.usable.sum()))
    # The point of a smaller budget, kept with the problem, is where the path goes on for a larger one.
    known = (n_points, smallest)
    number, least, point = problem.__dict__.get("lasso_point", {}).get(known, (-1, 0.0, None))
    if least > needed:
        number, point = -1, None
    penalties = np.geomspace(1.0, smallest, n_points) * max(l1_max(problem), 1e-12)
    while point is None or (np.count_nonzero(point.coef) < needed and number + 1 < n_points):
        number += 1
        point = multinomial_logistic(problem, l1=float(penalties[number]), l2=0.0, start=point, tol=1e-3)
    problem.__dict__["lasso_point"] = {known: (number, needed, point)}
    coef = np.where(problem.usable, point.coef, 0.0)
    if budget.nonnegative:
        coef = np.maximum(coef, 0.0)
    return np.where(budget.keep(np.abs(coef)), coef, 0.0), point.intercept


def select(problem: Problem, budget: Budget, l2: float, *, n_points: int = 40, smallest: float = 1e-3) -> State:
    """Lasso path, cut to the budget by magnitude, refitted with ridge penalty `l2`."""
    coef, intercept = _cut(problem, budget, n_points, smallest)
    return fill(problem, refit(problem, coef != 0, coef, intercept, budget, l2, steps=10), budget, l2)


def select_cut(problem: Problem, budget: Budget, l2: float, *, n_points: int = 40, smallest: float = 1e-3) -> State:
    """Lasso path cut by magnitude and left as it is: the published practice, kept as a baseline."""
    coef, intercept = _cut(problem, budget, n_points, smallest)
    return refit(problem, coef != 0, coef, intercept, budget, l2, steps=0)
