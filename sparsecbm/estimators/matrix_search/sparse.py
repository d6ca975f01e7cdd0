"""Nothing but k concepts decides."""

from __future__ import annotations

from sparsecbm.estimators.matrix_search.base import Array
from sparsecbm.estimators.matrix_search.pursuit import SparseCodes
from sparsecbm.estimators.matrix_search.whitened import WhitenedRule


class SparseRule(WhitenedRule):
    """Scores from at most `max_active_concepts` concepts of the image: score = A W^T + intercept, and no rest.

    A is a sparse code of the image in the common metric of `MetricCodes`; W (K, M) is the whitened rule's matrix of
    classes and concepts and, like the intercept, fixed. All that a decision knows of an image is at most k pairs of
    concept and activation. The class rows shape the metric, which is the same for all images; which classes are likely
    for *this* image has no say in which concepts are chosen, so the codes describe the image rather than the answer.
    """

    name = "sparse"
    sparse = True

    def scores(self, X: Array) -> Array:
        """From the codes alone."""
        codes = self.deciding(X)
        return codes.times(self.weights.T) + self.intercept

    def codes(self, X: Array, k: int) -> SparseCodes:
        """The first `k` of the concepts that decide, in the order in which they were chosen."""
        return self.deciding(X).first(k)

    def deciding(self, X: Array) -> SparseCodes:
        """Common codes of at most `max_active_concepts`: these decide."""
        return self.metric_codes.common(X - self.arrays["origin"], self.options.max_active_concepts)
