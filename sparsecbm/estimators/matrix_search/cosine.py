"""Rule 1 of the paper: the class whose row of concept scores has the largest cosine with the image's."""

from __future__ import annotations

from sparsecbm._base.rows import unit_rows
from sparsecbm.estimators.matrix_search._concept_space import ConceptSpaceRule
from sparsecbm.estimators.matrix_search.base import Array


class CosineRule(ConceptSpaceRule):
    """Score = cos(V_i, T_c) (Semenov et al. 2024, arXiv 2404.03323, rule 1).

    Raw scores of a CLIP encoder are all positive and much alike, so that the cosine sees mostly what they share.
    """

    name = "cosine"

    def image_side(self, V: Array) -> Array:
        """V, rows of length one."""
        return unit_rows(V)

    def class_side(self, T: Array) -> Array:
        """T, rows of length one."""
        return unit_rows(T)
