"""Gates: how units become sparse activations. One file a variant; `GATES` is the registry."""

from __future__ import annotations

from sparsecbm._base.errors import unknown
from sparsecbm.bottleneck.gates.base import Gate
from sparsecbm.bottleneck.gates.binary_concrete import BinaryConcreteGate
from sparsecbm.bottleneck.gates.dense import DenseGate
from sparsecbm.bottleneck.gates.soft_threshold import SoftThresholdGate
from sparsecbm.bottleneck.gates.top_k import GumbelTopKGate, TopKGate

GATES: dict[str, type[Gate]] = {
    gate.name: gate for gate in (DenseGate, TopKGate, GumbelTopKGate, SoftThresholdGate, BinaryConcreteGate)
}


def make_gate(name: str, n_concepts: int, options: dict[str, object]) -> Gate:
    """Build a gate by its registered name; raises InputError for an unknown name."""
    if name not in GATES:
        raise unknown("gate", name, GATES)
    return GATES[name](n_concepts, **options)  # type: ignore[arg-type]


__all__ = [
    "GATES",
    "BinaryConcreteGate",
    "DenseGate",
    "Gate",
    "GumbelTopKGate",
    "SoftThresholdGate",
    "TopKGate",
    "make_gate",
]
