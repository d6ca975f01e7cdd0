"""What every prior over the discrete latents offers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm.vae.latents import Latents


class Prior(nn.Module):
    """p(z), up to a constant that :meth:`log_partition` or an estimate of it gives.

    Attributes
    ----------
    name : str
        As configurations call it.
    latents : Latents
    normalised : bool
        Whether :meth:`log_mass` is a log-probability already.
    linear : bool
        Whether the log-mass is linear in the state, so that its expectation is the log-mass of the mean.
    """

    name: str
    kinds: tuple[str, ...]
    normalised = True
    linear = True

    def __init__(self, latents: Latents) -> None:
        super().__init__()
        if latents.kind not in self.kinds:
            raise InputError(f"prior {self.name!r} is over {' or '.join(self.kinds)} latents, got {latents.kind}")
        self.latents = latents

    @abstractmethod
    def log_mass(self, state: Tensor) -> Tensor:
        """Return the log-mass of states (..., width) -> (...), without the log partition function."""

    def log_density(self, value: Tensor, temperature: float) -> Tensor:
        """Return the log-density of the relaxed prior at samples in logit or log space.

        Raises
        ------
        InputError
            If this prior has no Concrete relaxation.
        """
        raise InputError(
            f"prior {self.name!r} has no Concrete density: its relaxation has no normalised form; use objective 'mass'"
        )

    def log_partition(self) -> Tensor:
        """Return the exact log partition function, float64; 0 for a normalised prior."""
        return torch.zeros((), dtype=torch.float64)

    @abstractmethod
    def sample(self, count: int, *, generator: torch.Generator | None) -> Tensor:
        """Draw discrete states, shape (count, width)."""

    def options(self) -> dict[str, Any]:
        """What to build the same prior with, besides its latents."""
        return {}
