"""Rules that compare an image's concept scores with a class's, concept by concept; four are published."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from sparsecbm._base.rows import unit_rows
from sparsecbm.estimators.matrix_search.base import Array, SearchProblem, SearchRule
from sparsecbm.estimators.matrix_search.pursuit import SparseCodes


class ConceptSpaceRule(SearchRule):
    """Score = sum over concepts of an image's side, A = f(V), times a class's side, W = g(T).

    V (n, M) are the cosines of the images with the concepts, T (K, M) those of the classes.
    """

    @abstractmethod
    def image_side(self, V: Array) -> Array:
        """A = f(V), shape (n, M)."""

    @abstractmethod
    def class_side(self, T: Array) -> Array:
        """W = g(T), shape (K, M)."""

    def fit(self, problem: SearchProblem) -> None:
        """Keep the concepts and the class's side of the matrix."""
        self.arrays["concepts"] = problem.concepts
        self.arrays["weights"] = self.class_side(problem.class_rows @ problem.concepts.T)
        self.arrays["intercept"] = np.zeros(len(problem.class_rows))

    def scores(self, X: Array) -> Array:
        """All concepts decide."""
        return self.image_side(X @ self.arrays["concepts"].T) @ self.weights.T

    def codes(self, X: Array, k: int) -> SparseCodes:
        """Keep the concepts that set the predicted class apart from the mean class most."""
        sides = self.image_side(X @ self.arrays["concepts"].T)
        best = (sides @ self.weights.T).argmax(axis=1)
        apart = np.abs(sides * (self.weights[best] - self.weights.mean(axis=0)))
        apart[sides == 0] = -1.0
        k = min(k, sides.shape[1])
        chosen = np.argpartition(-apart, k - 1, axis=1)[:, :k]
        chosen = np.take_along_axis(chosen, np.argsort(-np.take_along_axis(apart, chosen, 1), axis=1, kind="stable"), 1)
        values = np.take_along_axis(sides, chosen, axis=1)
        return SparseCodes(np.where(values != 0, chosen, -1), values, sides.shape[1])


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


class CubedRule(ConceptSpaceRule):
    """Score = cos(V_i^3, T_c^3), cubes element by element: large scores count for more."""

    name = "cubed"

    def image_side(self, V: Array) -> Array:
        """V cubed, rows of length one."""
        return unit_rows(V * V * V)

    def class_side(self, T: Array) -> Array:
        """T cubed, rows of length one."""
        return unit_rows(T * T * T)


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
