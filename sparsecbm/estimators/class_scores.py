"""One interface for classifiers that give every class a score: predictions, probabilities, storage."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsecbm._base.rows import as_numpy, finite, row_lengths, unit_rows
from sparsecbm.estimators.hub import PublishedEstimator

if TYPE_CHECKING:
    from sparsecbm.explain import Ledgers

_ROWS = 4096


class ClassScoreClassifier(PublishedEstimator, ClassifierMixin, BaseEstimator):
    """Base of the classifiers on embeddings: a subclass fits `classes_` and gives scores of a block of rows.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Labels, one a column of `logits`.
    n_features_in_ : int
    metadata_ : dict
        JSON values of the user's choice that `save` keeps; optional.
    """

    @abstractmethod
    def _scores(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        """Class scores of a block of checked rows, shape (n, K)."""

    def _unit_rows(self) -> bool:
        """Whether rows of X are scaled to length one."""
        return True

    def _block(self) -> int:
        """Rows scored at a time; 0: all, where rows of a batch see each other."""
        return _ROWS

    def _checked(self, X: ArrayLike) -> NDArray[Any]:
        check_is_fitted(self)
        rows = validate_data(self, as_numpy(X), dtype=[np.float64, np.float32], reset=False)
        if self._unit_rows():
            row_lengths(rows, "X")  # refuses rows without a direction
        return rows

    def _float_rows(self, X: NDArray[Any]) -> NDArray[np.float64]:
        return unit_rows(X, dtype=np.float64) if self._unit_rows() else X.astype(np.float64)

    def _blocks(self, X: ArrayLike, reduce: Any) -> NDArray[Any]:
        X = self._checked(X)
        step = self._block() or max(1, len(X))
        blocks = (self._float_rows(X[start : start + step]) for start in range(0, len(X), step))
        parts = [reduce(finite(self._scores(block), "class scores")) for block in blocks]
        return np.concatenate(parts)

    def logits(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class scores, one column a class also for two classes: shape (n, K), float64."""
        return self._blocks(X, lambda scores: scores)

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Class scores: shape (n, K); for two classes, the second's minus the first's, shape (n,)."""
        scores = self.logits(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Softmax of the class scores: shape (n, K), rows sum to 1."""
        return self._blocks(X, lambda scores: softmax(scores, axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Class of each image: shape (n,). Memory does not grow with n times K."""
        best = self._blocks(X, lambda scores: scores.argmax(axis=1))
        return self.classes_[best]


class ExplainedScores(ABC):
    """``explain`` for classifiers whose scores are sums over named parts."""

    @abstractmethod
    def _parts(self, X: ArrayLike) -> tuple[Any, ...]:
        """Activations, weights, intercepts and names of the parts, class scores, and what the parts leave of them.

        Scores of None are the sums of the parts; a rest of None is none.
        """

    def explain(
        self: Any, X: ArrayLike, sources: Sequence[str] | None = None, truths: Sequence[object] | None = None
    ) -> Ledgers:
        """Account for the predictions: every line of an image's ledger is an activation times a weight.

        Parameters
        ----------
        X : array-like of shape (n, d)
        sources, truths : sequence, optional
            n image names and n true class names, for titles.

        Returns
        -------
        Ledgers
            One ledger an image.
        """
        from sparsecbm.estimators.inference import told_presence
        from sparsecbm.explain import explain

        activations, weights, intercept, names, scores, left = self._parts(X)
        best = None if scores is None else scores.argmax(axis=1)
        said: dict[str, Any] = {"targets": best, "sources": sources, "truths": truths, "remainder": left}
        said |= told_presence(self, X)
        return explain(activations, weights, intercept, names, self._class_labels(), **said)
