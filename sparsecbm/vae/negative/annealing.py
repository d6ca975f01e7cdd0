"""Negative phase by population annealing."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.samplers import RestrictedBoltzmannMachine, population_annealing
from sparsecbm.vae.negative.base import DrawingNegative


class AnnealingNegative(DrawingNegative):
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
        super().__init__(seed)
        self.population = chains
        self.betas = torch.linspace(0, 1, sweeps + 1, dtype=torch.float64).tolist()

    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        result = population_annealing(rbm, self.population, self.betas, generator=self._generator)
        return rbm.log_partition_surrogate(result.visible, sum_out_hidden=True)
