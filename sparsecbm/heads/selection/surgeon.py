"""Gradual pruning by optimal-brain-surgeon prices, then splicing."""

from __future__ import annotations

from sparsecbm.heads.selection import pruning, splice
from sparsecbm.heads.selection.base import Budget, State
from sparsecbm.heads.solver.softmax import Problem


def select(problem: Problem, budget: Budget, l2: float) -> State:
    """Prune the dense ridge solution by second-order prices and refine by swaps."""
    pruned = pruning.select(problem, budget, l2, price="surgeon")
    return splice.swap(problem.single, pruned, budget, l2)
