"""The paper's variant of rule 1 with cubed scores."""

from __future__ import annotations

from sparsecbm._base.rows import unit_rows
from sparsecbm.estimators.matrix_search._concept_space import ConceptSpaceRule
from sparsecbm.estimators.matrix_search.base import Array


class CubedRule(ConceptSpaceRule):
    """Score = cos(V_i^3, T_c^3), cubes element by element: large scores count for more."""

    name = "cubed"

    def image_side(self, V: Array) -> Array:
        """V cubed, rows of length one."""
        return unit_rows(V * V * V)

    def class_side(self, T: Array) -> Array:
        """T cubed, rows of length one."""
        return unit_rows(T * T * T)
