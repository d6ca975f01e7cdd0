"""Negative phase by enumeration: the reference, for small machines."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.samplers import RestrictedBoltzmannMachine
from sparsecbm.vae.negative.base import NegativePhase


class ExactNegative(NegativePhase):
    """log Z itself, summed over every state of the smaller side; the number of chains and sweeps does not matter."""

    def __init__(self, rbm: RestrictedBoltzmannMachine, *, seed: int, chains: int = 1, sweeps: int = 1) -> None:
        super().__init__()

    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        return rbm.log_partition().to(rbm.weight.dtype)
