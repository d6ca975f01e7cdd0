"""Sparse concept-bottleneck image classifiers you can read.

Names load on first use, so that ``import sparsecbm`` stays fast.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "ConceptMatrixSearch": "sparsecbm.estimators",
    "ConceptSet": "sparsecbm.concepts",
    "DescriptionClassifier": "sparsecbm.estimators",
    "Embeddings": "sparsecbm.embeddings",
    "LinearProbe": "sparsecbm.estimators",
    "SparseCBMClassifier": "sparsecbm.estimators",
    "SparseAutoencoder": "sparsecbm.estimators",
    "SparseDecomposer": "sparsecbm.estimators",
    "SparseHead": "sparsecbm.heads",
    "ZeroShotClassifier": "sparsecbm.estimators",
    "embed_images": "sparsecbm.embeddings",
    "embed_texts": "sparsecbm.embeddings",
    "load_embeddings": "sparsecbm.embeddings",
    "load_encoder": "sparsecbm.encoders",
    "load_images": "sparsecbm.data",
}

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'sparsecbm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
