"""The discrete bound by summing over every state: the reference."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import Objective, ObjectiveValue, log_mass_ratio
from sparsecbm.vae.posterior import PosteriorDraw


def every_state(model: DiscreteVAE, x: Tensor) -> tuple[PosteriorDraw, Tensor]:
    """Return the posterior at every joint state, logits (n_states or 1, B, width), and log p(x | z) (n_states, B).

    Raises
    ------
    InputError
        If there are too many states.
    """
    states = model.latents.states(like=x)
    # The decoder sees each state once, whatever the number of rows.
    log_likelihood = model.likelihood.table(x, model.decode(states))
    return model.posterior.given(x, states.unsqueeze(1).expand(-1, len(x), -1)), log_likelihood


class ExactObjective(Objective):
    """``sum_z q(z | x) (log p(x, z) - log q(z | x))`` over every joint state: no samples, no variance, no bias."""

    name = "exact"
    mode = "hard"
    draws = False

    def __init__(self, samples: int = 1, *, straight_through: bool = False) -> None:
        super().__init__(samples, straight_through=straight_through)
        if samples != 1:
            raise InputError(f"objective 'exact' sums over all states: samples={samples} means nothing, leave it at 1")

    def forward(
        self,
        model: DiscreteVAE,
        x: Tensor,
        *,
        temperature: float | None = None,
        beta: float = 1.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        hard: bool = True,
    ) -> ObjectiveValue:
        """Return the bound at each row of `x`; temperature, noise and generator are not needed."""
        draw, log_likelihood = every_state(model, x)
        mass = model.latents.log_mass(draw.logits, draw.state).exp()
        expected_likelihood = (mass * log_likelihood).sum(0)
        expected_ratio = (mass * log_mass_ratio(model, draw)).sum(0)
        surrogate = expected_likelihood + beta * expected_ratio
        return ObjectiveValue(surrogate, surrogate.detach(), expected_likelihood.detach(), expected_ratio.detach())


@torch.no_grad()
def exact_log_likelihood(model: DiscreteVAE, x: Tensor) -> Tensor:
    """Return log p(x) at each row, by summing over every state and enumerating log Z; float64, shape (B,).

    Raises
    ------
    InputError
        If there are more than ``MAX_STATES`` joint states.
    """
    states = model.latents.states(like=x)
    log_likelihood = model.likelihood.table(x, model.decode(states))
    log_joint = model.prior.log_mass(states).double().unsqueeze(1) + log_likelihood.double()
    return log_joint.logsumexp(0) - model.prior.log_partition()
