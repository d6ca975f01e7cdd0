"""One binary-Concrete gate a concept: how many concepts are active is learned, image by image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsecbm.bottleneck.gates.base import Gate
from sparsecbm.samplers import noise as sampler_noise
from sparsecbm.samplers.concrete import straight_through


class BinaryConcreteGate(Gate):
    """activation_j = unit_j * z_j with z_j ~ BinaryConcrete(logit l_j, tau), l_j = exp(gain_j) (unit_j - threshold_j).

    In training z = 1[l + logistic noise > 0], which is exactly Bernoulli(sigmoid(l)) at every temperature, with the
    gradient of sigmoid((l + noise) / tau) (Maddison et al. 2017, arXiv 1611.00712, section 3.1, straight through). At
    inference z = 1[l > 0], so an inactive concept is exactly zero.

    Parameters
    ----------
    n_concepts : int
        Number M of units.
    nonnegative : bool
        Whether only positive units can be active.
    """

    name = "binary_concrete"
    silent = {"gain": 0.0, "threshold": 1e6}

    def __init__(self, n_concepts: int, nonnegative: bool = True) -> None:
        super().__init__(n_concepts)
        self.nonnegative = bool(nonnegative)
        self.gain = nn.Parameter(torch.full((n_concepts,), 1.0))
        self.threshold = nn.Parameter(torch.full((n_concepts,), 1.0))

    def options(self) -> dict[str, object]:
        return {"nonnegative": self.nonnegative}

    def logits(self, units: Tensor) -> Tensor:
        """Gate logits (n, M)."""
        return self.gain.exp() * ((units if self.nonnegative else units.abs()) - self.threshold)

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        return sampler_noise.logistic((n, self.n_concepts), generator=generator, device=generator.device)

    def relax(self, units: Tensor, temperature: float, noise: Tensor | None) -> Tensor:
        logits = self.logits(units) if noise is None else self.logits(units) + noise
        soft = torch.sigmoid(logits / temperature)
        gate = straight_through(logits.detach().gt(0).to(units.dtype), soft)
        return (units.clamp_min(0.0) if self.nonnegative else units) * gate

    def forward(self, units: Tensor) -> Tensor:
        active = self.logits(units).gt(0)
        if self.nonnegative:
            active &= units.gt(0)
        return torch.where(active, units, 0.0)

    def expected_active(self, units: Tensor) -> Tensor:
        return torch.sigmoid(self.logits(units)).sum(1)
