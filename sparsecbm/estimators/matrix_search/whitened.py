"""Rule 1 in the metric in which overlapping concepts count once."""

from __future__ import annotations

import numpy as np

from sparsecbm.estimators.matrix_search.base import Array, SearchOptions, SearchProblem, SearchRule, centred
from sparsecbm.estimators.matrix_search.metric_codes import MetricCodes
from sparsecbm.estimators.matrix_search.pursuit import SparseCodes


class WhitenedRule(SearchRule):
    """Score = <V_i, T_c> / ||T_c|| in the metric (C C^T + lambda I)^-1, relative to the mean class.

    C are the concepts (M, d), V = X C^T, T = (class rows) C^T. Vocabularies say "dog" in fifty ways; under the inverse
    of their ridge-regularised Gram matrix these fifty count as one. lambda is `ridge` times the mean non-zero
    eigenvalue of C C^T. The metric folds into the embedding space,

        C^T (C C^T + lambda I)^-1 C = (C^T C + lambda I)^-1 C^T C,

    so that scores are one product with a (K, d) matrix whatever the number of concepts. With M >= d and lambda -> 0
    they become those of zero-shot classification. With class rows estimated from images the metric is the inverse of
    their within-class covariance (linear discriminant analysis), scores have a constant a class, rows are scaled to a
    root mean square length of one, and, where all classes have texts, averaged with the texts' rows.

    The M dense terms of a score are large and cancel, so the explanation is a sparse code instead: the image is
    rewritten with at most k concepts (centred by their mean) such that they account for the scores of its leading
    candidates as well as k concepts can; what they leave is "everything else".
    """

    name = "whitened"

    def __init__(self, options: SearchOptions) -> None:
        super().__init__(options)
        self._metric_codes: MetricCodes | None = None

    def fit(self, problem: SearchProblem) -> None:
        """Fold concepts and classes into one row a class."""
        concepts, rows = problem.concepts, problem.class_rows
        if problem.image_covariance is None:
            folded, constant = self._fold(concepts, rows), np.zeros(len(rows))
        else:
            folded = np.linalg.solve(problem.image_covariance, (rows - rows.mean(axis=0)).T).T
            constant = -0.5 * ((rows + rows.mean(axis=0)) * folded).sum(axis=1)
            length = _typical_length(folded)
            folded, constant = folded / length, (constant - constant.mean()) / length
            if problem.text_rows is not None:
                texts = self._fold(concepts, problem.text_rows)
                share = problem.text_share
                folded = (1.0 - share) * folded + share / _typical_length(texts) * texts
                constant = (1.0 - share) * constant
        origin = np.zeros(rows.shape[1]) if problem.image_mean is None else problem.image_mean
        atoms = centred(concepts, problem.concept_groups)
        self.arrays = {
            "rows": folded,
            "constant": constant,
            "origin": origin,
            "concepts": atoms,
            "weights": folded @ atoms.T,
            "intercept": constant + folded @ origin,
        }

    def _fold(self, concepts: Array, rows: Array) -> Array:
        gram = concepts.T @ concepts
        ridge = self.options.ridge * float(np.trace(gram)) / min(concepts.shape)
        folded = np.linalg.solve(gram + ridge * np.eye(len(gram)), gram @ rows.T).T
        lengths = np.sqrt(np.maximum((folded * rows).sum(axis=1), 0.0))
        folded /= np.where(lengths > 0, lengths, 1.0)[:, None]
        return folded - folded.mean(axis=0)

    def scores(self, X: Array) -> Array:
        """One product with the folded class rows."""
        return X @ self.arrays["rows"].T + self.arrays["constant"]

    def codes(self, X: Array, k: int) -> SparseCodes:
        """Focused codes: the account of the decision."""
        return self.metric_codes.focused(X - self.arrays["origin"], k)

    @property
    def metric_codes(self) -> MetricCodes:
        """Sparse codes for the folded class rows; made on first use."""
        if self._metric_codes is None:
            self._metric_codes = MetricCodes(
                self.arrays["rows"],
                self.arrays["concepts"],
                self.arrays["intercept"],
                logit_scale=self.options.logit_scale,
                nonnegative=self.options.nonnegative,
                power=self.power,
            )
        return self._metric_codes

    @property
    def power(self) -> float:
        """Of the codes' metric."""
        return 0.5


def _typical_length(rows: Array) -> float:
    return max(float(np.sqrt((rows * rows).sum(axis=1).mean())), 1e-300)
