"""The toy whose expectation is exact: one categorical latent, so that both versions of the bound can be seen through.

Relaxing the posterior alone (version 1, Jang et al. 2017) leaves no bound; relaxing the prior as well (version 2,
Maddison et al. 2017) leaves the bound of another, relaxed model. With 10 states the sum over all of them is at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives import Objective, exact_log_likelihood, make_objective
from sparsecbm.vae.weights import evaluating

__all__ = ["VERSIONS", "GradientQuality", "gradient_quality", "measure_exactly", "state_pictures"]

VERSIONS: Mapping[str, tuple[str, bool]] = {
    "exact expectation": ("exact", False),
    "version 1: relaxed posterior": ("analytic", False),
    "version 1, straight through": ("analytic", True),
    "version 2: relaxed prior too": ("density", False),
    "score function": ("score_function", False),
}
"""Objective and whether it is straight through, by what the notes call it."""


@dataclass(frozen=True)
class GradientQuality:
    """Quality of a one-sample gradient estimator against the exact gradient.

    Attributes
    ----------
    bias : float
        Length of (mean estimate - exact gradient), over the length of the exact gradient; less what the finite number
        of draws adds to it, and 0 where that is all.
    bias_error : float
        What the finite number of draws adds.
    spread : float
        Root of the summed variances of one draw, over the same length.
    """

    bias: float
    bias_error: float
    spread: float


def gradient_quality(
    model: DiscreteVAE,
    x: Tensor,
    objective: Objective,
    *,
    temperature: float,
    draws: int,
    generator: torch.Generator | None,
) -> GradientQuality:
    """Measure the gradient of an objective by the posterior's logits against that of the exact bound.

    Parameters
    ----------
    model : DiscreteVAE
        Few enough states to sum over; one group of latents.
    x : torch.Tensor, shape (B, n_pixels)
        Each picture's gradient is an estimate of its own: the figures are over all of them together.
    objective : Objective
        Its gradient is taken with `draws` one-sample draws a picture.
    temperature : float
    draws : int
    generator : torch.Generator or None
        Source of randomness.
    """

    def gradient(asked: Objective, rows: Tensor) -> Tensor:
        # A bias of its own for every row: the gradient by it is the gradient by the row's logits.
        offset = torch.zeros(len(rows), model.latents.width, requires_grad=True, device=rows.device)
        handle = model.posterior.networks[0].register_forward_hook(lambda _module, _given, logits: logits + offset)
        try:
            value = asked(model, rows, temperature=temperature, generator=generator).surrogate.sum()
        finally:
            handle.remove()
        return torch.autograd.grad(value, offset)[0]

    with evaluating(model):
        exact = gradient(make_objective("exact"), x)
        objective.eval()
        estimates = gradient(objective, x.repeat_interleave(draws, 0)).view(len(x), draws, -1)
    length, variance = exact.norm(), estimates.var(1).sum()
    square = (estimates.mean(1) - exact).square().sum() - variance / draws
    return GradientQuality(
        bias=float(square.clamp(min=0.0).sqrt() / length),
        bias_error=float((variance / draws).sqrt() / length),
        spread=float(variance.sqrt() / length),
    )


@torch.no_grad()
def measure_exactly(
    model: DiscreteVAE, x: Tensor, objective: Objective, *, temperature: float, generator: torch.Generator | None
) -> dict[str, float]:
    """Return what an objective says of pictures, in nats, beside the exact bound and likelihood of the discrete model.

    ``used`` is the effective number of states: e to the entropy of the mean posterior.
    """
    mean = model.latents.mean(
        model.posterior.given(x, model.latents.states(like=x)[:1, None].expand(1, len(x), -1)).logits
    )
    share = mean.mean((0, 1))
    return {
        "objective": float(objective(model, x, temperature=temperature, generator=generator).bound.mean()),
        "elbo": float(make_objective("exact")(model, x).bound.mean()),
        "log_likelihood": float(exact_log_likelihood(model, x).mean()),
        "used": float(torch.special.entr(share).sum().exp()),
    }


@torch.no_grad()
def state_pictures(model: DiscreteVAE) -> Tensor:
    """Return the expected pixels of every state, the likeliest a priori first, shape (n_states, n_pixels)."""
    states = model.latents.states(like=model.centre)
    order = model.prior.log_mass(states).argsort(descending=True, stable=True)
    return model.likelihood.mean(model.decode(states[order]))
