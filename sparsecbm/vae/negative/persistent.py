"""Negative phase by persistent chains."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.samplers import PersistentChains, RestrictedBoltzmannMachine
from sparsecbm.vae.negative.base import NegativePhase


class PersistentNegative(NegativePhase):
    """Gibbs chains that go on from step to step (Tieleman 2008), as in Khoshaman & Amin 2018.

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
    seed : int
    chains : int, default=100
    sweeps : int, default=10
        Gibbs sweeps a training step.
    """

    def __init__(self, rbm: RestrictedBoltzmannMachine, *, seed: int, chains: int = 100, sweeps: int = 10) -> None:
        super().__init__()
        self.sweeps = sweeps
        self.chains = PersistentChains(
            chains, rbm.n_visible, rbm.n_hidden, seed=seed, dtype=rbm.weight.dtype, device=rbm.weight.device
        )

    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        visible, _ = self.chains.advance(rbm, self.sweeps)
        return rbm.log_partition_surrogate(visible, sum_out_hidden=True)
