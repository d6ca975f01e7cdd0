"""Negative phase by population annealing."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.samplers import RestrictedBoltzmannMachine, population_annealing
from sparsecbm.vae.negative.base import NegativePhase


class AnnealingNegative(NegativePhase):
    """A population annealed afresh from the uniform distribution at every step (as for QuPA, Khoshaman & Amin 2018).

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
    seed : int
    chains : int, default=100
        Population.
    sweeps : int, default=10
        Temperatures, one sweep each.
    """

    def __init__(self, rbm: RestrictedBoltzmannMachine, *, seed: int, chains: int = 100, sweeps: int = 10) -> None:
        super().__init__()
        self.population = chains
        self.betas = torch.linspace(0, 1, sweeps + 1, dtype=torch.float64).tolist()
        self._generator = torch.Generator().manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """Return the generator's state, as part of ``state_dict()``."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the generator's state from ``load_state_dict()``."""
        self._generator.set_state(state.cpu())

    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        result = population_annealing(rbm, self.population, self.betas, generator=self._generator)
        return rbm.log_partition_surrogate(result.visible, sum_out_hidden=True)
