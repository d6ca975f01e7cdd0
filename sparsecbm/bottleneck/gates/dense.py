"""No gate: activations are the units themselves. Nothing is zero."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.bottleneck.gates.base import Gate


class DenseGate(Gate):
    """activation_j = unit_j: the dense baseline."""

    name = "dense"

    def forward(self, units: Tensor) -> Tensor:
        return units
