"""A restricted Boltzmann machine over the latents: the prior of GumBolt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm.samplers import RestrictedBoltzmannMachine, population_annealing
from sparsecbm.vae.latents import Latents
from sparsecbm.vae.priors.base import Prior

ENUMERABLE = 20
"""Most units of the smaller side for which log Z and samples are exact without being asked (about a second)."""


class RBMPrior(Prior):
    """p(z) = exp(-E(z)) / Z over z = (z1, z2), the first and the second half of the latents.

    ``E(z) = -a.z1 - b.z2 - z1.W z2`` (Khoshaman & Amin 2018, section 3).

    Parameters
    ----------
    latents : Latents
        Bernoulli latents, at least two.
    scale : float, default=0.01
        Standard deviation of the initial weights.
    generator : torch.Generator or None
        Source of the initial weights.
    """

    name = "rbm"
    kinds = ("bernoulli",)
    normalised = False
    linear = False

    def __init__(self, latents: Latents, *, scale: float = 0.01, generator: torch.Generator | None = None) -> None:
        super().__init__(latents)
        if latents.n < 2:
            raise InputError(f"prior 'rbm' splits the latents in two, so needs at least 2, got {latents.n}")
        self.n_visible = latents.n // 2
        self.rbm = RestrictedBoltzmannMachine(
            self.n_visible, latents.n - self.n_visible, scale=scale, generator=generator
        )

    def log_mass(self, state: Tensor) -> Tensor:
        """Return -E(state), linear in each unit given the others: of relaxed states the multilinear extension."""
        return -self.rbm.energy(*state.split((self.n_visible, self.latents.n - self.n_visible), -1))

    @property
    def enumerable(self) -> bool:
        """Whether log Z is summed exactly."""
        return self.n_visible <= ENUMERABLE

    def log_partition(self) -> Tensor:
        return self.rbm.log_partition()

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None, steps: int = 500) -> Tensor:
        """Draw states: exactly where one side is small enough to enumerate, else by population annealing."""
        if self.enumerable:
            sides = self.rbm.sample_exact(count, generator=generator)
        else:
            population = max(count, 512)
            result = population_annealing(
                self.rbm, population, torch.linspace(0, 1, steps, dtype=torch.float64), generator=generator
            )
            # Relatives lie side by side in the population: take them far apart.
            apart = torch.arange(count, device=result.visible.device) * population // count
            sides = result.visible[apart], result.hidden[apart]
        return torch.cat(sides, -1)

    def options(self) -> dict[str, Any]:
        return {}
