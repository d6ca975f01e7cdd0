"""The scikit-learn faces of the toolkit; each loads on first use, since scikit-learn is slow to import."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparsecbm.estimators.concept_matrix_search import ConceptMatrixSearch
    from sparsecbm.estimators.description import DescriptionClassifier
    from sparsecbm.estimators.linear_probe import LinearProbe
    from sparsecbm.estimators.sparse_autoencoder import SparseAutoencoder
    from sparsecbm.estimators.sparse_cbm import SparseCBMClassifier
    from sparsecbm.estimators.sparse_decomposer import SparseDecomposer
    from sparsecbm.estimators.zero_shot import ZeroShotClassifier

_HOMES = {
    "ConceptMatrixSearch": "sparsecbm.estimators.concept_matrix_search",
    "DescriptionClassifier": "sparsecbm.estimators.description",
    "LinearProbe": "sparsecbm.estimators.linear_probe",
    "SparseAutoencoder": "sparsecbm.estimators.sparse_autoencoder",
    "SparseCBMClassifier": "sparsecbm.estimators.sparse_cbm",
    "SparseDecomposer": "sparsecbm.estimators.sparse_decomposer",
    "ZeroShotClassifier": "sparsecbm.estimators.zero_shot",
}

__all__ = [
    "ConceptMatrixSearch",
    "DescriptionClassifier",
    "LinearProbe",
    "SparseAutoencoder",
    "SparseCBMClassifier",
    "SparseDecomposer",
    "ZeroShotClassifier",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sparsecbm.estimators' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
