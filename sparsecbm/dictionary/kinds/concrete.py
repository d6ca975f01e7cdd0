"""A binary-Concrete gate a unit: how many are active is learned, row by row."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.bottleneck.gates.binary_concrete import BinaryConcreteGate
from sparsecbm.dictionary.kinds.base import Codes, Dictionary, Step

_TEMPERATURE = (1.0, 0.1)
_WEIGHT = 1.0


class Concrete(Dictionary):
    """Units times `BinaryConcreteGate`, whose expected number of active ones is held at `active` on average."""

    def __init__(self, atoms: Tensor, centre: Tensor, active: int) -> None:
        super().__init__(atoms, centre, active)
        self.gate = BinaryConcreteGate(len(atoms))

    @torch.no_grad()
    def prepare(self, x: Tensor) -> None:
        super().prepare(x)
        units = self.units(x)
        share = 1.0 - self.active / self.n_concepts
        # A part of the units says where the quantile lies; `torch.quantile` takes no more than 2**24.
        self.gate.threshold.fill_(float(torch.quantile(units.flatten()[: 2**23], share)))
        self.gate.gain.fill_(float((4.0 / units.std().clamp_min(1e-6)).log()))

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        return self.gate.draw_noise(n, generator)

    def codes(self, x: Tensor) -> Codes:
        kept = self.gate(self.units(x))
        width = max(1, int(kept.ne(0).sum(1).max())) if len(x) else 1
        values, indices = kept.topk(width, dim=1)
        return values, indices

    def forward(self, x: Tensor, noise: Tensor | None, progress: float) -> Step:
        units = self.units(x)
        first, last = _TEMPERATURE
        codes = self.gate.relax(units, first * (last / first) ** progress, noise)
        error = (x - codes @ self.atoms - self.centre).square().sum(1)
        excess = self.gate.expected_active(units).mean() / self.active - 1.0
        return Step(error + _WEIGHT * excess.square(), codes.detach().gt(0).any(0))

    @torch.no_grad()
    def revive(self, which: Tensor, directions: Tensor) -> None:
        super().revive(which, directions)
        self.gate.threshold[which] = self.gate.threshold.median()
        self.gate.gain[which] = self.gate.gain.median()
