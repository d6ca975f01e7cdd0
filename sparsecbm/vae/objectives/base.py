"""What objectives share: log-weights of shape (samples, rows), combined over the samples and never over the rows.

Rows are independent of each other but where batch normalisation ties them, in training.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.posterior import PosteriorDraw

__all__ = ["Objective", "ObjectiveValue", "log_mean_exp"]


def log_mean_exp(values: Tensor, dim: int = 0) -> Tensor:
    """Return the log of the mean of the exponentials."""
    if values.shape[dim] == 1:
        return values.squeeze(dim)
    return values.logsumexp(dim) - math.log(values.shape[dim])


@dataclass(frozen=True)
class ObjectiveValue:
    """An objective at each of B rows, in nats, to be maximised; a prior's log Z is not in it (it is additive).

    Attributes
    ----------
    surrogate : torch.Tensor, shape (B,)
        Its gradient is that of the objective.
    bound : torch.Tensor, shape (B,)
        The objective's value, detached; subtract ``beta * log Z``.
    log_likelihood : torch.Tensor, shape (B,)
        log p(x | z), mean over the samples, detached.
    log_ratio : torch.Tensor, shape (B,)
        log p(z) + log Z - log q(z | x), mean over the samples, detached: minus a one-sample KL.
    """

    surrogate: Tensor
    bound: Tensor
    log_likelihood: Tensor
    log_ratio: Tensor


class Objective(nn.Module):
    """A training objective: ``log 1/K sum_k exp(log p(x | z_k) + beta (log p(z_k) - log q(z_k | x)))``.

    Parameters
    ----------
    samples : int, default=1
        K; above 1 the objective is importance-weighted (Burda, Grosse & Salakhutdinov 2016).
    straight_through : bool, default=False
        Hard samples forward, the gradient of the relaxed ones backward.

    Notes
    -----
    Subclasses say what log p(z) - log q(z | x) is, where it is not the difference of the discrete log-masses. State
    that training carries on lies in ``state_dict()``.
    """

    name: str
    mode = "relaxed"
    draws = True

    def __init__(self, samples: int = 1, *, straight_through: bool = False) -> None:
        super().__init__()
        if not isinstance(samples, int) or samples < 1:
            raise InputError(f"samples={samples!r}: expected a positive integer")
        self.samples = samples
        if straight_through:
            if self.mode != "relaxed":
                raise InputError(f"objective {self.name!r} has no relaxation: straight_through does not apply to it")
            self.mode = "straight_through"

    def forward(
        self,
        model: DiscreteVAE,
        x: Tensor,
        *,
        temperature: float | None,
        beta: float = 1.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        hard: bool = False,
    ) -> ObjectiveValue:
        """Return the objective at each row of `x` (B, n_pixels).

        Parameters
        ----------
        temperature : float
            Of the relaxation.
        beta : float, default=1.0
            Weight of log p(z) - log q(z | x): KL warm-up.
        noise : torch.Tensor, optional
            Standard noise, shape (samples, B, width); drawn from `generator` where it is missing.
        hard : bool, default=False
            Use hard samples, for evaluation: the objective of the discrete model.
        """
        mode = "hard" if hard else self.mode
        draw = model.posterior(x, self.samples, mode=mode, temperature=temperature, noise=noise, generator=generator)
        return self.value(model, x, draw, beta)

    def value(self, model: DiscreteVAE, x: Tensor, draw: PosteriorDraw, beta: float = 1.0) -> ObjectiveValue:
        """Return the objective of given samples."""
        log_likelihood = model.log_likelihood(x, draw.state)
        log_ratio = self.log_ratio(model, draw)
        surrogate = log_mean_exp(log_likelihood + beta * log_ratio)
        return ObjectiveValue(
            surrogate, surrogate.detach(), log_likelihood.detach().mean(0), log_ratio.detach().mean(0)
        )

    def check(self, model: DiscreteVAE) -> None:
        """Raise InputError where the objective does not fit the model."""

    def log_ratio(self, model: DiscreteVAE, draw: PosteriorDraw) -> Tensor:
        """Return log p(z) - log q(z | x) of each sample, shape (samples, B), without the prior's log Z."""
        return log_mass_ratio(model, draw)


def log_mass_ratio(model: DiscreteVAE, draw: PosteriorDraw) -> Tensor:
    """Return the difference of the discrete log-masses at the states, hard or relaxed."""
    return model.prior.log_mass(draw.state) - model.latents.log_mass(draw.logits, draw.state)
