"""What every prior over the discrete latents offers."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm.vae.latents import Latents


@dataclass(frozen=True)
class LogPartition:
    """log Z of a prior, in nats.

    Attributes
    ----------
    value : float
        What likelihoods take off: of two estimates the larger one, so that they err downward.
    standard_error : float
        0 where it is exact; never less than half of what two estimates differ by.
    method : {"normalised", "enumeration", "ais"}, or what another prior says
    effective_sample_size : float or None
        Of the annealed importance weights.
    forward, reverse : float or None
        Estimates by annealing from the uniform distribution to the model, and samples of the model back: the first errs
        downward, the second upward. They agree where both can be trusted.
    """

    value: float
    standard_error: float
    method: str
    effective_sample_size: float | None = None
    forward: float | None = None
    reverse: float | None = None


class Prior(nn.Module):
    """p(z), up to a constant that :meth:`log_partition` or an estimate of it gives.

    What a prior needs stands in its own file: options (keywords of its constructor), log-mass, log Z, negative phase.


    Attributes
    ----------
    name : str
        As configurations call it.
    latents : Latents
    normalised : bool
        Whether :meth:`log_mass` is a log-probability already.
    linear : bool
        Whether the log-mass is linear in the state, so that its expectation is the log-mass of the mean.
    relaxes : bool
        Whether it has a Concrete density, :meth:`log_density`.
    """

    name: str
    kinds: tuple[str, ...]
    normalised = True
    linear = True
    relaxes = False

    @staticmethod
    def largest(n: int) -> int:
        """Numbers in the largest array of a prior over `n` latents: what a stranger's model may ask for."""
        return n

    def __init__(self, latents: Latents) -> None:
        super().__init__()
        if latents.kind not in self.kinds:
            raise InputError(f"prior {self.name!r} is over {' or '.join(self.kinds)} latents, got {latents.kind}")
        self.latents = latents

    @abstractmethod
    def log_mass(self, state: Tensor) -> Tensor:
        """Return the log-mass of states (..., width) -> (...), without the log partition function."""

    def log_density(self, value: Tensor, temperature: float) -> Tensor:
        """Return the log-density of the relaxed prior at samples in logit or log space, where it `relaxes`."""
        raise NotImplementedError

    def log_partition(self) -> Tensor:
        """Return the exact log partition function, float64; 0 for a normalised prior."""
        return torch.zeros((), dtype=torch.float64)

    def estimate_log_partition(
        self, *, generator: torch.Generator | None, betas: int, chains: int, reverse: bool
    ) -> LogPartition:
        """Return log Z as well as it can be had; see :func:`sparsecbm.vae.estimate_log_partition`."""
        return LogPartition(0.0, 0.0, "normalised")

    def negative_phase(self, name: str, *, seed: int, **options: Any) -> nn.Module | None:
        """Return a module whose call gives a scalar with the gradient of log Z; None where the prior is normalised."""
        return None

    def log_partition_surrogate(self, negative: nn.Module) -> Tensor:
        """Return the scalar of a negative phase, whose gradient estimates that of log Z."""
        return negative(self)

    @abstractmethod
    def sample(self, count: int, *, generator: torch.Generator | None) -> Tensor:
        """Draw discrete states, shape (count, width)."""

    def options(self) -> dict[str, Any]:
        """What to build the same prior with, besides its latents."""
        return {}
