"""A restricted Boltzmann machine over the latents: the prior of GumBolt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm.samplers import (
    RestrictedBoltzmannMachine,
    annealed_importance_sampling,
    population_annealing,
    reverse_annealed_importance_sampling,
)
from sparsecbm.vae.latents import Latents
from sparsecbm.vae.negative import NegativePhase, make_negative_phase
from sparsecbm.vae.priors.base import LogPartition, Prior

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

    @staticmethod
    def largest(n: int) -> int:
        return (n // 2) * (n - n // 2)

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
    def estimate_log_partition(
        self, *, generator: torch.Generator | None, betas: int, chains: int, reverse: bool
    ) -> LogPartition:
        if self.enumerable:
            return LogPartition(float(self.log_partition()), 0.0, "enumeration")
        ladder = torch.linspace(0, 1, betas, dtype=torch.float64)
        forward = annealed_importance_sampling(self.rbm, ladder, chains, generator=generator)
        value, error, size = forward.log_partition, forward.standard_error, forward.effective_sample_size
        if not reverse:
            return LogPartition(value, error, "ais", size, value)
        visible = self.sample(min(chains, 256), generator=generator)[:, : self.n_visible]
        back = reverse_annealed_importance_sampling(self.rbm, ladder, visible, generator=generator)
        error = max(error, back.standard_error, abs(back.log_partition - value) / 2)
        return LogPartition(max(value, back.log_partition), error, "ais", size, value, back.log_partition)

    def negative_phase(self, name: str, *, seed: int, **options: Any) -> NegativePhase:
        return make_negative_phase(name, self.rbm, seed=seed, **options)

    def log_partition_surrogate(self, negative: nn.Module) -> Tensor:
        return negative(self.rbm)

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None) -> Tensor:
        """Draw states: exactly where one side is small enough to enumerate, else by population annealing."""
        if self.enumerable:
            sides = self.rbm.sample_exact(count, generator=generator)
        else:
            population = max(count, 512)
            result = population_annealing(
                self.rbm, population, torch.linspace(0, 1, 500, dtype=torch.float64), generator=generator
            )
            # Relatives lie side by side in the population: take them far apart.
            apart = torch.arange(count, device=result.visible.device) * population // count
            sides = result.visible[apart], result.hidden[apart]
        return torch.cat(sides, -1)
