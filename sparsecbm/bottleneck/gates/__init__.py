"""Gates: how units become sparse activations. One file a variant; their names are lines of `sparsecbm._base.parts`."""

from __future__ import annotations

from sparsecbm._base.parts import GATES
from sparsecbm.bottleneck.gates.base import Gate


def make_gate(name: str, n_concepts: int, options: dict[str, object]) -> Gate:
    """Build a gate by its registered name; raises InputError for an unknown name."""
    return GATES.find(name)(n_concepts, **options)


__all__ = ["GATES", "Gate", "make_gate"]
