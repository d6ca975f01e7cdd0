"""Published concept bottlenecks, a file each, on embeddings: one protocol, so that they can be compared.

Their names for `sparsecbm compare` are the lines of `METHODS`, in `sparsecbm._base.parts`. A class loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sparsecbm._base.parts import METHODS

if TYPE_CHECKING:
    from sparsecbm.estimators.methods.base import ConceptMethod
    from sparsecbm.estimators.methods.cdm import ConceptDiscoveryModel
    from sparsecbm.estimators.methods.dn_cbm import DNCBM
    from sparsecbm.estimators.methods.label_free import LabelFreeCBM
    from sparsecbm.estimators.methods.labo import LaBo
    from sparsecbm.estimators.methods.lm4cv import LM4CV
    from sparsecbm.estimators.methods.post_hoc import PostHocCBM
    from sparsecbm.estimators.methods.residual import ResidualCBM
    from sparsecbm.estimators.methods.sparse_cbm import PublishedSparseCBM
    from sparsecbm.estimators.methods.splice import SpliceCBM
    from sparsecbm.estimators.methods.vlg import VLGCBM

_HOMES = {
    "ConceptDiscoveryModel": "cdm",
    "ConceptMethod": "base",
    "DNCBM": "dn_cbm",
    "LM4CV": "lm4cv",
    "LaBo": "labo",
    "LabelFreeCBM": "label_free",
    "PostHocCBM": "post_hoc",
    "PublishedSparseCBM": "sparse_cbm",
    "ResidualCBM": "residual",
    "SpliceCBM": "splice",
    "VLGCBM": "vlg",
}

__all__ = [
    "DNCBM",
    "LM4CV",
    "METHODS",
    "VLGCBM",
    "ConceptDiscoveryModel",
    "ConceptMethod",
    "LaBo",
    "LabelFreeCBM",
    "PostHocCBM",
    "PublishedSparseCBM",
    "ResidualCBM",
    "SpliceCBM",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
