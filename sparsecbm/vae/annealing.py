"""Likelihoods of single pictures by annealing over z, for where importance samples of q(z | x) are too few by far.

The path from the posterior to the joint mass, ``f_t(z) = (1 - t) log q(z | x) + t log p(x, z)``, t from 0 to 1, is
walked by Metropolis steps that propose many variables at once, each by the slope of f_t (Zhang, Liu & Liu 2022, "A
Langevin-like sampler for discrete distributions"). Forward the weights have mean p(x) (Neal 2001), so that the log of
their mean errs downward; from an exact posterior sample back to q their mean is 1 / p(x), and it errs upward. Such a
sample is at hand where the model itself drew the picture (Grosse, Ancha & Roy 2016, "Measuring the reliability of MCMC
inference with bidirectional Monte Carlo"): there the two are a bracket.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecbm.samplers import noise
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.weights import Weights, evaluating, weigh

__all__ = ["Bracket", "annealed_weights", "bracket_log_likelihood"]

_STAY = (0.5, 1.5, 3.0)
"""Log-odds for a variable to stay as it is, in turn: bold steps and careful ones."""


class _Place:
    """States of all chains, (K, B, width), with log q(z | x), log p(x, z) and the slopes of both."""

    def __init__(self, model: DiscreteVAE, x: Tensor, state: Tensor) -> None:
        with torch.enable_grad():
            held = state.detach().requires_grad_()
            posterior = model.latents.log_mass(model.posterior.given(x, held).logits, held)
            joint = model.log_likelihood(x, held) + model.prior.log_mass(held)
            slopes = [torch.autograd.grad(part.sum(), held, retain_graph=True)[0] for part in (posterior, joint)]
        self.parts = [state, posterior.detach(), joint.detach(), *slopes]

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.parts)

    def replace(self, other: _Place, where: Tensor) -> None:
        """Take the other's chains (K, B) `where` it is true."""
        for number, (mine, theirs) in enumerate(zip(self.parts, other.parts)):
            chosen = where if mine.dim() == where.dim() else where.unsqueeze(-1)
            self.parts[number] = torch.where(chosen, theirs, mine)


def _move(model: DiscreteVAE, x: Tensor, at: _Place, t: float, stay: float, generator: torch.Generator | None) -> None:
    """One Metropolis step, which leaves exp(f_t) invariant."""

    def proposal(place: _Place) -> tuple[Tensor, Tensor]:
        state, posterior, joint, slope_posterior, slope_joint = place
        slope = torch.lerp(slope_posterior, slope_joint, t)
        return torch.lerp(posterior, joint, t), slope / 2 + 2 * stay * (state - model.centre)

    mass, logits = proposal(at)
    new = _Place(model, x, model.latents.sample(logits, generator=generator))
    new_mass, back = proposal(new)
    there, here = model.latents.log_mass(logits, new.parts[0]), model.latents.log_mass(back, at.parts[0])
    # An Exp(1) draw exceeds -log(p) with probability p.
    drawn = noise.exponential(tuple(mass.shape), generator=generator, dtype=mass.dtype, device=mass.device)
    at.replace(new, drawn > mass - new_mass + there - here)


def _walk(
    model: DiscreteVAE, x: Tensor, state: Tensor, ladder: list[float], generator: torch.Generator | None
) -> Tensor:
    """Return the log-weights of chains, (K, B), from samples of the first rung's distribution to the last rung."""
    at = _Place(model, x, state)
    log_weights = torch.zeros(state.shape[:2], dtype=torch.float64, device=x.device)
    for (t, following), stay in zip(itertools.pairwise(ladder), itertools.cycle(_STAY)):
        if 0.0 < t < 1.0:
            _move(model, x, at, t, stay, generator)
        _, posterior, joint, *_ = at
        log_weights += (following - t) * (joint - posterior).double()
    return log_weights


def annealed_weights(
    model: DiscreteVAE,
    x: Tensor,
    *,
    steps: int = 500,
    chains: int = 16,
    generator: torch.Generator | None,
    states: Tensor | None = None,
    progress: bool | None = False,
) -> Weights:
    """Weigh chains annealed over z for each picture: p(x) times the prior's Z is the mean of their weights.

    Parameters
    ----------
    model : DiscreteVAE
        Used in evaluation mode.
    x : torch.Tensor, shape (B, n_pixels)
    steps : int, default=500
        Inverse temperatures, evenly spaced, a Metropolis step each.
    chains : int, default=16
        Chains a picture.
    generator : torch.Generator or None
        Source of randomness.
    states : torch.Tensor, shape (B, width), optional
        Exact samples of the true posterior p(z | x): the chains go back from them, and the mean of the weights is the
        *inverse* of p(x) Z.

    Returns
    -------
    Weights
    """
    ladder = torch.linspace(0, 1, steps + 1, dtype=torch.float64).tolist()
    held = x if states is None else torch.cat([x, states], 1)

    def log_weights(rows: Tensor, count: int) -> Tensor:
        pictures, given = rows[:, : model.n_pixels], rows[:, model.n_pixels :]
        if states is not None:
            return _walk(model, pictures, given.expand(count, -1, -1), ladder[::-1], generator)
        start = model.posterior(pictures, count, mode="hard", generator=generator).state
        return _walk(model, pictures, start, ladder, generator)

    with evaluating(model):
        return weigh(held, chains, max(model.n_pixels, model.latents.width), log_weights, progress)


@dataclass(frozen=True)
class Bracket:
    """What annealing both ways says of pictures that the model drew itself, mean nats a picture, without log Z's error.

    Attributes
    ----------
    lower, upper : float
        Errs downward and upward: the mean log-likelihood of these pictures lies between, in expectation.
    n_pictures : int
    """

    lower: float
    upper: float
    n_pictures: int


@torch.no_grad()
def bracket_log_likelihood(
    model: DiscreteVAE,
    count: int = 16,
    *,
    steps: int = 500,
    chains: int = 16,
    generator: torch.Generator | None,
    log_partition: float = 0.0,
) -> Bracket:
    """Draw pictures from the model and bracket their log-likelihood; the ends lie apart by what annealing misses.

    Parameters
    ----------
    model : DiscreteVAE
    count : int, default=16
        Pictures. Where the prior cannot be sampled exactly (a large RBM), the upper end is approximate.
    steps, chains, generator
        As for :func:`annealed_weights`.
    log_partition : float, default=0.0
        log Z of the prior.
    """
    states = model.prior.sample(count, generator=generator)
    x = model.likelihood.sample(model.decode(states), generator=generator)
    options: Any = {"steps": steps, "chains": chains, "generator": generator}
    lower = annealed_weights(model, x, **options).log_mean.mean() - log_partition
    upper = -annealed_weights(model, x, states=states, **options).log_mean.mean() - log_partition
    return Bracket(float(lower), float(upper), count)
