"""Zero-shot classification: the class whose text is nearest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import _check_feature_names

from sparsecbm._base.parameters import Positive, checked_parameters
from sparsecbm.estimators.class_rows import mean_rows, read_class_rows
from sparsecbm.estimators.class_scores import ClassScoreClassifier
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays


class ZeroShotClassifier(ClassScoreClassifier):
    """CLIP's own classifier: score = logit_scale * cos(image, class text) (Radford et al. 2021, arXiv 2103.00020).

    Parameters
    ----------
    logit_scale : float
        Temperature of the probabilities; CLIP's is 100.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        In the order of `fit`'s classes.
    class_rows_ : ndarray of shape (K, d)
        Mean of each class's unit prompts, of length one.
    n_features_in_ : int

    Notes
    -----
    `fit` takes texts and class names, not (X, y), so scikit-learn's ``check_estimator`` does not apply.

    Examples
    --------
    >>> import numpy as np
    >>> texts = {"finch": [[1.0, 0.0], [0.9, 0.1]], "jay": [[0.0, 1.0]]}  # two prompts of one class, one of the other
    >>> ZeroShotClassifier().fit(texts).predict([[0.2, 0.9]]).tolist()
    ['jay']
    """

    def __init__(self, *, logit_scale: Positive = 100.0) -> None:
        self.logit_scale = logit_scale

    def fit(
        self,
        class_embeddings: ArrayLike | Mapping[Any, ArrayLike] | Sequence[ArrayLike],
        class_names: Sequence[Any] | None = None,
    ) -> ZeroShotClassifier:
        """Take the class texts.

        Parameters
        ----------
        class_embeddings : array-like of shape (K, d) or (K, P, d), sequence of K items, or mapping
            One text a class, or several prompts a class (templates): items of shape (d,) or (p_c, d). A mapping goes
            from class name to item.
        class_names : sequence of length K, optional
            Labels to predict; default: the mapping's keys, else 0..K-1.

        Raises
        ------
        InputError
            If shapes, names or values are not as expected.
        """
        checked_parameters(self)
        blocks, self.classes_ = read_class_rows(class_embeddings, class_names)
        self.class_rows_ = mean_rows(blocks)
        self.n_features_in_ = self.class_rows_.shape[1]
        _check_feature_names(self, class_embeddings, reset=True)
        return self

    def _scores(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.logit_scale * (X @ self.class_rows_.T)

    def _arrays(self) -> Arrays:
        return {"class_rows": self.class_rows_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        check_arrays(arrays, {"class_rows": (np.float64, (len(self.classes_), self.n_features_in_))})
        self.class_rows_ = arrays["class_rows"]
