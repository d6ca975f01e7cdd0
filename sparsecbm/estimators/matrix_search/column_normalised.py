"""The paper's variant of rule 1 with columns of the test batch scaled to length one. Transductive."""

from __future__ import annotations

from sparsecbm._base.rows import unit_rows
from sparsecbm.estimators.matrix_search._concept_space import ConceptSpaceRule
from sparsecbm.estimators.matrix_search.base import Array


class ColumnNormalisedRule(ConceptSpaceRule):
    """Score = cos of V_i and T_c after each column of V and each column of T was divided by its length.

    The lengths of V's columns are taken over the batch to predict: an image's class depends on the other images it
    comes with, and cannot be given for one image alone. Here to reproduce the published figure; no other rule looks
    at the batch.
    """

    name = "column_normalised"
    transductive = True

    def image_side(self, V: Array) -> Array:
        """V over the lengths of its columns in this batch, rows of length one."""
        return unit_rows(unit_rows(V.T).T)

    def class_side(self, T: Array) -> Array:
        """T over the lengths of its columns, rows of length one."""
        return unit_rows(unit_rows(T.T).T)
