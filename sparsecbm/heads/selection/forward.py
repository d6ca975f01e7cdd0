"""Greedy forward selection with refits: orthogonal matching pursuit with exact second-order gains."""

from __future__ import annotations

import numpy as np

from sparsecbm.heads.nec import top
from sparsecbm.heads.selection.base import Budget, State, empty, fill, gains, refit
from sparsecbm.heads.solver.softmax_sparse import AnyProblem


def select(problem: AnyProblem, budget: Budget, l2: float, *, stages: int = 10, state: State | None = None) -> State:
    """Grow the support (of `state`, if given) in `stages` equal batches of what gains most, refitting after each."""
    problem = problem.single
    state = empty(problem, budget, l2) if state is None else state
    total = budget.total(problem)
    first = int(state.mask.sum())
    stages = max(2, round(stages * (total - first) / max(total, 1)))
    for stage in range(1, stages + 1):
        missing = first + round((total - first) * stage / stages) - int(state.mask.sum())
        if missing <= 0:
            continue
        scores = gains(state, l2, budget)
        if budget.counting == "strict":
            room = budget.concepts_per_class - state.mask.sum(1)
            order = np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable")
            scores = np.where(order < room[:, None], scores, 0.0)
        mask = state.mask | top(scores, missing)
        state = refit(problem, mask, state.coef, state.intercept, budget, l2, before=state.release())
    return fill(problem, state, budget, l2)
