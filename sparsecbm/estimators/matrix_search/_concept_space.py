"""Rules that compare an image's concept scores with a class's, concept by concept."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

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
