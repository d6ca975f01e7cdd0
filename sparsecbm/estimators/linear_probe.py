"""The linear probe: no concepts, all dimensions, the ceiling of what a linear head reads off an embedding."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import validate_data

from sparsecbm._base.labels import number_classes
from sparsecbm._base.parameters import OpenShare, Positive, checked_parameters
from sparsecbm._base.rows import as_numpy, check_scale
from sparsecbm.estimators.class_scores import ClassScoreClassifier
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays
from sparsecbm.heads.solver.elastic_net import make_problem, multinomial_logistic

_SCALES = (1e-6, 1e20)
"""Sizes of the largest number of X: the penalty is no other for small numbers, and below it no weight pays."""


class LinearProbe(ClassScoreClassifier):
    """Multinomial logistic regression on embeddings, centred and scaled by one number.

    Minimises ``C * sum_i CE(y_i, W z_i + b) + ||W||^2 / 2``, z = sqrt(d) (x - mean): unit rows of d dimensions have
    coordinates of variance about 1 / d, and the factor makes `C` comparable across encoders. The intercepts are not
    penalised.

    Parameters
    ----------
    C : float
        Inverse of the penalty on the squared weights, as in scikit-learn's `LogisticRegression` on sqrt(d) (X - mean).
    tol : float
        Relative duality gap at which to stop.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    coef_ : ndarray of shape (K, d)
        One row a class, also for two classes.
    intercept_ : ndarray of shape (K,)
    n_features_in_ : int

    Examples
    --------
    >>> X = [[0.0, 1.0], [0.1, 1.0], [1.0, 0.0], [1.0, 0.1]]
    >>> LinearProbe().fit(X, ["jay", "jay", "finch", "finch"]).predict([[0.9, 0.2]]).tolist()
    ['finch']
    """

    def __init__(self, *, C: Positive = 0.1, tol: OpenShare = 1e-6) -> None:
        self.C = C
        self.tol = tol

    def fit(self, X: ArrayLike, y: ArrayLike) -> LinearProbe:
        """Fit the weights.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings.
        y : array-like of shape (n,)
            Labels.

        Raises
        ------
        InputError
            If there are fewer than two classes or a value is not as expected.
        """
        given = checked_parameters(self)
        rows, y = validate_data(self, as_numpy(X), as_numpy(y), dtype=[np.float64, np.float32])
        check_scale(rows, "X", *_SCALES)
        self.classes_, labels = number_classes(y, len(rows))
        rows = rows.astype(np.float64)
        mean, scale = rows.mean(axis=0), np.sqrt(rows.shape[1])
        found = multinomial_logistic(
            make_problem((rows - mean) * scale, labels), l1=0.0, l2=1.0 / (given.C * len(rows)), tol=given.tol
        )
        self.coef_ = found.coef * scale
        self.intercept_ = found.intercept - self.coef_ @ mean
        return self

    def _unit_rows(self) -> bool:
        return False

    def _scores(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return X @ self.coef_.T + self.intercept_

    def _arrays(self) -> Arrays:
        return {"coef": self.coef_, "intercept": self.intercept_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        k, d = len(self.classes_), self.n_features_in_
        check_arrays(arrays, {"coef": (np.float64, (k, d)), "intercept": (np.float64, (k,))})
        self.coef_, self.intercept_ = arrays["coef"], arrays["intercept"]
