"""The priors over independent latents."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm.vae.latents import Latents
from sparsecbm.vae.priors.base import Prior


class FactorialPrior(Prior):
    """Independent latents whose log-odds are learnt, or fixed at uniform.

    Parameters
    ----------
    latents : Latents
    learn : bool, default=True
        Learn the log-odds; otherwise they stay at 0, the uniform distribution.
    generator : torch.Generator or None
        Unused: the logits start at 0.
    """

    relaxes = True

    def __init__(self, latents: Latents, *, learn: bool = True, generator: torch.Generator | None = None) -> None:
        super().__init__(latents)
        self.learn = learn
        self.logits = nn.Parameter(torch.zeros(latents.width), requires_grad=learn)

    def log_mass(self, state: Tensor) -> Tensor:
        return self.latents.log_mass(self.logits, state)

    def log_density(self, value: Tensor, temperature: float) -> Tensor:
        return self.latents.log_density(self.logits, value, temperature)

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None) -> Tensor:
        return self.latents.sample(self.logits.expand(count, -1).contiguous(), generator=generator)

    def options(self) -> dict[str, Any]:
        return {"learn": self.learn}


class BernoulliPrior(FactorialPrior):
    """p(z) = prod_i Bernoulli(z_i; sigmoid(logit_i)); see :class:`FactorialPrior`."""

    name = "bernoulli"
    kinds = ("bernoulli",)


class CategoricalPrior(FactorialPrior):
    """p(z) = prod_i Categorical(z_i; softmax(logits_i)); see :class:`FactorialPrior`."""

    name = "categorical"
    kinds = ("categorical",)
