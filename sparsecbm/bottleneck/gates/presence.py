"""Activations that are probabilities: how likely it is that a picture shows each concept."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from sparsecbm.bottleneck.gates.base import Gate


class PresenceGate(Gate):
    """activation_j = sigmoid(slope_j * unit_j + intercept_j), so that a true concept is 1 and an absent one 0.

    Slopes and intercepts are calibrated on labels (`sparsecbm.bottleneck.labelled`), not trained with the classes.
    Nothing is zero but what no class weighs.
    """

    name = "presence"
    silent: ClassVar[dict[str, float]] = {"intercept": -1e4}
    slope: Tensor
    intercept: Tensor

    def __init__(self, n_concepts: int) -> None:
        super().__init__(n_concepts)
        self.register_buffer("slope", torch.ones(n_concepts))
        self.register_buffer("intercept", torch.zeros(n_concepts))

    @torch.no_grad()
    def spread(self, n_concepts: int, kept: Tensor) -> Gate:
        gate = super().spread(n_concepts, kept)
        gate.slope[kept] = self.slope.cpu()  # type: ignore[operator]  # a gate of this class
        return gate

    def forward(self, units: Tensor) -> Tensor:
        return torch.sigmoid(units * self.slope + self.intercept)
