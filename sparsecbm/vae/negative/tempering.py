"""Negative phase by parallel tempering."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sparsecbm.samplers import ParallelTempering, RestrictedBoltzmannMachine, noise
from sparsecbm.vae.negative.base import DrawingNegative

_RUNGS = 8
_MEMORY = 0.95  # of rejections, per training step


class TemperingNegative(DrawingNegative):
    """Replicas that go on from step to step, for machines whose chains do not mix.

    Even and odd exchanges take turns, which is non-reversible, and the ladder moves so that every exchange is rejected
    equally often (Syed et al. 2022, "Non-reversible parallel tempering").

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
    seed : int
    chains : int, default=100
        Ladders, of eight replicas each.
    sweeps : int, default=10
        Rounds of a Gibbs sweep and an exchange, a training step.
    """

    visible: Tensor
    betas: Tensor
    rejected: Tensor

    def __init__(self, rbm: RestrictedBoltzmannMachine, *, seed: int, chains: int = 100, sweeps: int = 10) -> None:
        super().__init__(seed)
        self.sweeps = sweeps
        start = torch.zeros(_RUNGS, chains, rbm.n_visible, dtype=rbm.weight.dtype)
        self.register_buffer("visible", noise.bernoulli(start, generator=self._generator).to(rbm.weight.device))
        self.register_buffer("betas", torch.linspace(0, 1, _RUNGS, dtype=torch.float64))
        self.register_buffer("rejected", torch.full((_RUNGS - 1,), 0.5, dtype=torch.float64))

    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        replicas = ParallelTempering(rbm, self.visible.shape[1], self.betas, generator=self._generator)
        replicas.visible = self.visible
        visible = replicas.advance(self.sweeps)[0].clone()
        self.visible.copy_(replicas.visible)
        seen = 1 - replicas.swap_rate
        self.rejected.lerp_(torch.where(seen.isnan(), self.rejected, seen.to(self.rejected)), 1 - _MEMORY)
        self._adapt()
        return rbm.log_partition_surrogate(visible, sum_out_hidden=True)

    def _adapt(self) -> None:
        """Move the ladder a little towards equal rejections: equal steps of their running sum."""
        barrier = np.concatenate([[0.0], np.cumsum(self.rejected.cpu().numpy() + 1e-3)])
        aim = np.interp(np.linspace(0, barrier[-1], _RUNGS), barrier, self.betas.cpu().numpy())
        aim[[0, -1]] = 0.0, 1.0
        self.betas.lerp_(torch.from_numpy(aim).to(self.betas), 1 - _MEMORY)
