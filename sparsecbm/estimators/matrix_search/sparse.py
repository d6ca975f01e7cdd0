"""Nothing but k concepts decides: the default, and its kin that chooses them by the leading candidates."""

from __future__ import annotations

import numpy as np

from sparsecbm.estimators.matrix_search.base import Array, SearchProblem
from sparsecbm.estimators.matrix_search.pursuit import SparseCodes
from sparsecbm.estimators.matrix_search.whitened import WhitenedRule

_FEW = 8
_POWERS = (0.2, 0.35)
"""Of the metric, for at most `_FEW` concepts and for more."""


class SparseRule(WhitenedRule):
    """Scores from at most `max_active_concepts` concepts of the image: score = A W^T + intercept, and no rest.

    A is a sparse code of the image in the common metric of `MetricCodes`; W (K, M) is the whitened rule's matrix of
    classes and concepts and, like the intercept, fixed. All that a decision knows of an image is at most k pairs of
    concept and activation. The class rows shape the metric, which is the same for all images; which classes are likely
    for *this* image has no say in which concepts are chosen, so the codes describe the image rather than the answer.

    Codes start from the origin, the mean of reference images. What that mean scores for a class counts by
    `origin_weight` only: few concepts carry a part of what sets the image apart from it, and the constant that would
    suit the whole image outweighs that part.
    """

    name = "sparse"
    sparse = True

    def fit(self, problem: SearchProblem) -> None:
        """As the whitened rule, with less of the origin and, for few concepts, more equal columns."""
        super().fit(problem)
        if self.options.max_active_concepts <= _FEW:
            lengths = np.linalg.norm(self.arrays["weights"], axis=0)
            typical = max(float(lengths.mean()), 1e-300)
            self.arrays["weights"] = self.arrays["weights"] / np.sqrt(np.where(lengths > 0, lengths, typical) / typical)
        origin = self.arrays["rows"] @ self.arrays["origin"]
        self.arrays["intercept"] = self.arrays["constant"] + self.options.origin_weight * origin

    @property
    def power(self) -> float:
        """Of the codes' metric: plainer for few concepts."""
        return _POWERS[self.options.max_active_concepts > _FEW]

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


class ContrastRule(SparseRule):
    """As `SparseRule`, with focused codes: concepts that tell this image's leading candidates apart come first.

    It is still literally true that at most k pairs of concept and activation decide, through a fixed matrix. But the
    dense rule's scores have a say in which concepts they are. Read these codes as the shortest account of *that
    decision*, not as a description of the image made without knowing it; `SparseRule` is the latter.
    """

    name = "contrast"

    def deciding(self, X: Array) -> SparseCodes:
        """Focused codes of at most `max_active_concepts`: these decide."""
        return self.metric_codes.focused(X - self.arrays["origin"], self.options.max_active_concepts)
