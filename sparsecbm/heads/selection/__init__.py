"""Ways to choose which concepts each class may use: ``select(problem, budget, l2) -> State``, a file each.

Their names are lines of `sparsecbm._base.parts`, in the order of the benchmark's table.
"""

from __future__ import annotations

from sparsecbm._base.parts import SELECTIONS
from sparsecbm.heads.selection.base import Budget, State

__all__ = ["SELECTIONS", "Budget", "State"]
