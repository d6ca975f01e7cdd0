"""The negative phase: the gradient of log Z of an RBM prior."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from sparsecbm.samplers import RestrictedBoltzmannMachine


class NegativePhase(nn.Module):
    """A scalar whose gradient estimates that of log Z. State that training carries on lies in ``state_dict()``."""

    @abstractmethod
    def forward(self, rbm: RestrictedBoltzmannMachine) -> Tensor:
        """Return the scalar; only its gradient means anything."""


class DrawingNegative(NegativePhase):
    """A negative phase that draws, from a generator whose state is part of ``state_dict()``."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._generator = torch.Generator().manual_seed(seed)

    def get_extra_state(self) -> Tensor:
        """Return the generator's state, as part of ``state_dict()``."""
        return self._generator.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        """Take the generator's state from ``load_state_dict()``."""
        self._generator.set_state(state.cpu())
