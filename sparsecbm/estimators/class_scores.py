"""One interface for classifiers that give every class a score: predictions, probabilities, storage."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.model_files import class_array, holds_together, read_model, write_model
from sparsecbm.estimators.inputs import unit_rows

if TYPE_CHECKING:
    from typing_extensions import Self

_ROWS = 4096


class ClassScoreClassifier(ClassifierMixin, BaseEstimator):
    """Base of the classifiers on embeddings: a subclass fits `classes_` and gives scores of a block of rows.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        Labels, one a column of `logits`.
    n_features_in_ : int
    metadata_ : dict
        JSON values of the user's choice that `save` keeps; optional.
    """

    _NOT_STORED: ClassVar[tuple[str, ...]] = ()
    """Parameters that `save` leaves out: arrays, whose fitted form is stored, and seeds."""

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
        X = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        if self._unit_rows():
            unit_rows(X, "X")  # refuses rows without a direction
        return X

    def _float_rows(self, X: NDArray[Any]) -> NDArray[np.float64]:
        X = X.astype(np.float64)
        return X / np.linalg.norm(X, axis=1, keepdims=True) if self._unit_rows() else X

    def _blocks(self, X: ArrayLike, reduce: Any) -> NDArray[Any]:
        X = self._checked(X)
        step = self._block() or max(1, len(X))
        parts = [reduce(self._scores(self._float_rows(X[s : s + step]))) for s in range(0, len(X), step)]
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

    def _class_labels(self) -> list[str]:
        names = (getattr(self, "metadata_", None) or {}).get("class_names")
        return list(names) if names else [str(name) for name in self.classes_.tolist()]

    # -- storage -------------------------------------------------------------------------------------------------------

    @abstractmethod
    def _arrays(self) -> dict[str, NDArray[Any]]:
        """Fitted arrays to store."""

    @abstractmethod
    def _restore(self, arrays: dict[str, NDArray[Any]], extra: dict[str, Any]) -> None:
        """Set what `_arrays` and `_extra` gave; raise on arrays that do not fit."""

    def _extra(self) -> dict[str, Any]:
        """JSON values to store."""
        return {}

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a folder: ``model.safetensors`` and ``config.json``. No pickle.

        Raises
        ------
        StoredFileError
            If the folder cannot be written.
        """
        check_is_fitted(self)
        classes = self.classes_
        config = {
            "class": type(self).__name__,
            "parameters": {k: v for k, v in self.get_params(deep=False).items() if k not in self._NOT_STORED},
            "classes": {"dtype": classes.dtype.str, "values": classes.tolist()},
            "n_features_in": int(self.n_features_in_),
            "feature_names_in": getattr(self, "feature_names_in_", np.array([])).tolist(),
            "metadata": getattr(self, "metadata_", {}),
            **self._extra(),
        }
        tensors = {name: torch.from_numpy(np.array(value, order="C")) for name, value in self._arrays().items()}
        write_model(path, tensors, config)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a model that `save` wrote; it predicts as the saved one did.

        Raises
        ------
        StoredFileError
            If a file is missing, foreign or changed.
        """
        tensors, config = read_model(path)
        if config.get("class") != cls.__name__:
            raise StoredFileError(f"the folder {str(path)!r} holds a {config.get('class')}, not a {cls.__name__}")
        with holds_together(path):
            model = cls(**config["parameters"])
            model.classes_ = class_array(config["classes"]["values"], config["classes"]["dtype"])
            model.n_features_in_ = int(config["n_features_in"])
            if config["feature_names_in"]:
                model.feature_names_in_ = np.array(config["feature_names_in"], dtype=object)
            model.metadata_ = config["metadata"]
            model._restore({name: value.numpy() for name, value in tensors.items()}, config)
        return model


def require_shapes(arrays: dict[str, NDArray[Any]], shapes: dict[str, tuple[int, ...]]) -> None:
    """Check stored arrays: shapes, float64 or integers, finite.

    Raises
    ------
    StoredFileError
        If one is not as expected.
    """
    for name, value in arrays.items():
        if value.dtype not in (np.float64, np.float32, np.int64) or not np.isfinite(value).all():
            raise StoredFileError(f"array {name!r} of type {value.dtype}: expected finite numbers")
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise StoredFileError(f"array {name!r} has shape {arrays[name].shape}, expected {shape}")
