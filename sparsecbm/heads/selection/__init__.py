"""Ways to choose which concepts each class may use, by name."""

from __future__ import annotations

from collections.abc import Callable

from sparsecbm.heads.selection import forward, iht, path, pruning, splice, surgeon
from sparsecbm.heads.selection.base import Budget, State
from sparsecbm.heads.solver.softmax import Problem

#: Selection methods: ``select(problem, budget, l2) -> State``. The order is that of the benchmark's table.
SELECTIONS: dict[str, Callable[[Problem, Budget, float], State]] = {
    "path_cut": path.select_cut,
    "path": path.select,
    "prune": pruning.select,
    "iht": iht.select,
    "forward": forward.select,
    "splice": splice.select,
    "surgeon": surgeon.select,
}

__all__ = ["SELECTIONS", "Budget", "State"]
