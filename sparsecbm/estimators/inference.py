"""A saved `SparseCBMClassifier` that can only predict and explain, read without importing scikit-learn.

Importing scikit-learn and what it brings (scipy.stats, pandas, joblib) takes longer than explaining many pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.model_files import class_array, holds_together, read_model
from sparsecbm.bottleneck.model import FrozenBottleneck
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.estimators.inputs import unit_rows, unit_rows_lazily

_ROWS = 4096


def score_blocks(
    bottleneck: FrozenBottleneck, X: np.ndarray | Rows, weights: np.ndarray, intercept: np.ndarray
) -> Iterator[np.ndarray]:
    """Class scores (rows, K), float64, of some rows of checked embeddings at a time."""
    for start in range(0, len(X), _ROWS):
        activations = bottleneck.activations(X[start : start + _ROWS])
        yield activations.astype(np.float64) @ weights.T + intercept


def softmax_rows(scores: np.ndarray) -> np.ndarray:
    """Probabilities of class scores (n, K)."""
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


class InferenceModel:
    """What `SparseCBMClassifier` computes, bit for bit.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    concept_names_ : list of str
    head_weights_ : ndarray of shape (K, M), float64
    head_intercept_ : ndarray of shape (K,), float64
    metadata_ : dict
    n_features_in_ : int
    bottleneck_ : FrozenBottleneck
    """

    def __init__(self, tensors: dict[str, Any], config: dict[str, Any]) -> None:
        self.concept_names_ = list(config["concept_names"])
        self.classes_ = class_array(config["classes"]["values"], config["classes"]["dtype"])
        self.n_features_in_ = int(config["n_features_in"])
        self.metadata_: dict[str, Any] = config["metadata"]
        self.head_weights_ = tensors["head.weight"].numpy()
        self.head_intercept_ = tensors["head.intercept"].numpy()
        self.max_active_concepts = config["parameters"]["max_active_concepts"]
        self.bottleneck_ = FrozenBottleneck.from_tensors(tensors, config["gate"]["name"], config["gate"]["options"])
        self._has_concepts = "scores.concept_embeddings" in tensors
        k, m = len(self.classes_), len(self.concept_names_)
        if (
            self.head_weights_.shape != (k, m)
            or self.head_intercept_.shape != (k,)
            or self.bottleneck_.weight.shape != (m, self.n_features_in_)
        ):
            raise StoredFileError("the arrays of the model folder do not fit its names and classes")

    @classmethod
    def load(cls, path: str | Path) -> InferenceModel:
        """Read a model that `SparseCBMClassifier.save` wrote.

        Raises
        ------
        StoredFileError
            If a file is missing, foreign or changed, or holds another kind of model.
        """
        tensors, config = read_model(path)
        if config.get("class") != "SparseCBMClassifier":
            raise StoredFileError(f"the folder holds a {config.get('class')}, not a SparseCBMClassifier")
        with holds_together(path):
            return cls(tensors, config)

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Concept activations of finite float32 embeddings: shape (n, M), float32."""
        return self.bottleneck_.activations(unit_rows(X, "X") if self._has_concepts else X)

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Softmax of the class scores: shape (n, K)."""
        X = unit_rows_lazily(X, "X") if self._has_concepts else X
        blocks = score_blocks(self.bottleneck_, X, self.head_weights_, self.head_intercept_)
        return np.concatenate([softmax_rows(scores) for scores in blocks])
