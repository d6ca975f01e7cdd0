"""The negative phase: the gradient of log Z of an RBM prior."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn

from sparsecbm.samplers import RestrictedBoltzmannMachine


class NegativePhase(nn.Module):
    """A scalar whose gradient estimates that of log Z. State that training carries on lies in ``state_dict()``."""

    @abstractmethod
    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        """Return the scalar; only its gradient means anything."""
