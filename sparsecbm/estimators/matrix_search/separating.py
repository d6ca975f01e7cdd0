"""Centred scores, in which concepts count for as much as they separate the classes."""

from __future__ import annotations

import numpy as np

from sparsecbm._base.rows import unit_rows
from sparsecbm.estimators.matrix_search._concept_space import ConceptSpaceRule
from sparsecbm.estimators.matrix_search.base import Array


class SeparatingRule(ConceptSpaceRule):
    """Cosine of centred, signed-squared scores, weighted by how much each concept's score varies among the classes.

    An image's row is centred by its own mean, a class's row by its mean and each column by its mean over the classes:
    what all classes share, and what all concepts share, decides nothing. All statistics are of the class texts.
    """

    name = "separating"

    def image_side(self, V: Array) -> Array:
        """Centred rows, squared with their sign, of length one."""
        return unit_rows(_signed_square(V - V.mean(axis=1, keepdims=True)))

    def class_side(self, T: Array) -> Array:
        """Doubly centred, squared with its sign, rows of length one; columns times the root of their spread."""
        centred = T - T.mean(axis=0)
        centred -= centred.mean(axis=1, keepdims=True)
        spread = centred.std(axis=0)
        return unit_rows(_signed_square(centred)) * np.sqrt(spread / max(float(spread.mean()), 1e-300))


def _signed_square(matrix: Array) -> Array:
    return np.abs(matrix) * matrix
