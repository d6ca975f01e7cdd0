"""Published concept bottlenecks, a file each, on embeddings: one protocol, so that they can be compared.

Their names for `sparsecbm compare` are lines of `sparsecbm._base.parts`. A class loads on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

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

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
