"""Population annealing of a restricted Boltzmann machine."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparsecbm.samplers._checks import check_betas, check_count
from sparsecbm.samplers.chains.gibbs import gibbs_sweep
from sparsecbm.samplers.noise import bernoulli, uniform
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine

__all__ = ["PopulationResult", "population_annealing", "systematic_resample"]


@dataclass(frozen=True)
class PopulationResult:
    """Result of :func:`population_annealing`.

    Attributes
    ----------
    visible, hidden : torch.Tensor
        The population at beta = 1, shapes (population, n_visible) and (population, n_hidden).
    log_partition : float
        Estimate of log Z; its exponential is unbiased.
    family_size : float
        Mean square family size rho_t (Wang, Machta & Katzgraber 2015): the population counts as about population /
        rho_t independent samples. 1 is best.
    """

    visible: torch.Tensor
    hidden: torch.Tensor
    log_partition: float
    family_size: float


def systematic_resample(log_weights: torch.Tensor, *, generator: torch.Generator | None) -> torch.Tensor:
    """Return as many indices as weights, each expected in proportion to its weight; one uniform draw in all."""
    weights = (log_weights.double() - log_weights.max()).exp()
    cumulative = weights.cumsum(0) / weights.sum()
    count = len(weights)
    offset = uniform(1, generator=generator, dtype=torch.float64, device=weights.device)
    points = (torch.arange(count, dtype=torch.float64, device=weights.device) + offset) / count
    return torch.searchsorted(cumulative, points).clamp_(max=count - 1)


@torch.no_grad()
def population_annealing(
    rbm: RestrictedBoltzmannMachine,
    population: int,
    betas: torch.Tensor | Sequence[float],
    *,
    generator: torch.Generator | None,
    sweeps: int = 1,
) -> PopulationResult:
    """Carry a population of states from the uniform distribution to the model, resampling at every step.

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
        The model.
    population : int
        Number of replicas.
    betas : sequence of float
        Inverse temperatures, rising strictly from 0 to 1.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    sweeps : int, default=1
        Gibbs sweeps after each resampling.

    Returns
    -------
    PopulationResult

    Raises
    ------
    ValueError
        If the betas do not rise strictly from 0 to 1.

    References
    ----------
    Hukushima & Iba 2003; Machta 2010, "Population annealing with weighted averages".
    """
    ladder = check_betas(betas).tolist()
    population, sweeps = check_count("population", population), check_count("sweeps", sweeps)
    like = rbm.weight
    visible = bernoulli(
        torch.zeros(population, rbm.n_visible, dtype=like.dtype, device=like.device), generator=generator
    )
    hidden = bernoulli(torch.zeros(population, rbm.n_hidden, dtype=like.dtype, device=like.device), generator=generator)
    family = torch.arange(population, device=like.device)
    log_partition = (rbm.n_visible + rbm.n_hidden) * math.log(2.0)
    for beta, following in itertools.pairwise(ladder):
        log_weights = -(following - beta) * rbm.energy(visible, hidden).double()
        log_partition += (log_weights.logsumexp(0) - math.log(population)).item()
        chosen = systematic_resample(log_weights, generator=generator)
        visible, hidden, family = visible[chosen], hidden[chosen], family[chosen]
        for _ in range(sweeps):
            visible, hidden = gibbs_sweep(rbm, visible, generator=generator, beta=following)
    sizes = torch.bincount(family, minlength=population).double()
    return PopulationResult(visible, hidden, log_partition, (sizes**2).sum().item() / population)
