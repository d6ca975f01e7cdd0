"""Rule 2 of the paper: the class that has most of the image's foremost concept."""

from __future__ import annotations

import numpy as np

from sparsecbm.estimators.matrix_search._concept_space import ConceptSpaceRule
from sparsecbm.estimators.matrix_search.base import Array


class MaxScoreRule(ConceptSpaceRule):
    """Score = T_{c j*} with j* = argmax_j V_ij: one concept decides."""

    name = "max"
    sparse = True

    def image_side(self, V: Array) -> Array:
        """One at the largest score, zero elsewhere."""
        side = np.zeros_like(V)
        side[np.arange(len(V)), V.argmax(axis=1)] = 1.0
        return side

    def class_side(self, T: Array) -> Array:
        """T itself."""
        return T
