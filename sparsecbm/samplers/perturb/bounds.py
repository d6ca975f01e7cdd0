"""Low-rank (unary) perturbations: bounds on log Z from maxima of models whose unary potentials alone are perturbed.

With G_i(x_i) independent standard Gumbels and gamma Euler's constant (Hazan & Jaakkola 2012; Balog et al. 2017,
section 3):

- upper: V = max_x phi(x) + sum_i (G_i(x_i) - gamma), and for alpha > -1/sqrt(n), alpha != 0,
  ``U(alpha) = n (log Gamma(1 + alpha) / alpha + gamma) - log E[exp(-alpha V)] / alpha >= log Z``; U(0) = E[V].
- lower: V = max_x phi(x) + (1/n) sum_i (G_i(x_i) - gamma), and for alpha > -n, alpha != 0,
  ``L(alpha) = n log Gamma(1 + alpha / n) / alpha + gamma - log E[exp(-alpha V)] / alpha <= log Z``; L(0) = E[V].

The lower bound in this form: V is at most the mean over i of L_i = max_x phi(x) + G_i(x_i) - gamma, which are
independent, and L_i obeys the full-rank identity exactly for the model of variable i's max-marginals, whose
partition function is at most Z.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparsecbm.samplers._checks import check_count
from sparsecbm.samplers.noise import gumbel
from sparsecbm.samplers.perturb.full import EULER_GAMMA
from sparsecbm.samplers.perturb.graph import PairwiseModel

__all__ = ["BoundEstimate", "lower_bound", "perturbed_values", "upper_bound"]


@dataclass(frozen=True)
class BoundEstimate:
    """Monte Carlo estimate of a bound on log Z, in nats, and its standard error (delta method)."""

    value: float
    standard_error: float


@torch.no_grad()
def perturbed_values(
    model: PairwiseModel, count: int, *, generator: torch.Generator | None, average: bool = False, chunk: int = 4096
) -> torch.Tensor:
    """Draw `count` maxima of the model with perturbed unary potentials.

    Parameters
    ----------
    model : PairwiseModel
        The model.
    count : int
        Number of draws.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    average : bool, default=False
        False adds the perturbations (for :func:`upper_bound`); True adds their mean over variables
        (:func:`lower_bound`).
    chunk : int
        Draws at a time.

    Returns
    -------
    torch.Tensor
        V, shape (count,).
    """
    scale, count = 1.0 / model.n_variables if average else 1.0, check_count("count", count)
    values = []
    for start in range(0, count, chunk):
        shape = (min(chunk, count - start), *model.unary.shape)
        noise = gumbel(shape, generator=generator, dtype=model.unary.dtype, device=model.unary.device)
        values.append(model.max_value(model.unary + scale * (noise - EULER_GAMMA)))
    return torch.cat(values)


def _power_mean(values: torch.Tensor, alpha: float) -> tuple[float, float]:
    """-log mean(exp(-alpha V)) / alpha and its standard error; the mean of V for alpha = 0."""
    values = values.double()
    if alpha == 0:
        return values.mean().item(), (values.std() / math.sqrt(len(values))).item()
    exponents = -alpha * values
    weights = (exponents - exponents.max()).exp()
    value = -(exponents.logsumexp(0) - math.log(len(values))).item() / alpha
    error = (weights.std() / weights.mean() / math.sqrt(len(values))).item() / abs(alpha)
    return value, error


def upper_bound(values: torch.Tensor, n_variables: int, alpha: float = 0.0) -> BoundEstimate:
    """Estimate U(alpha) >= log Z from maxima with added perturbations.

    Parameters
    ----------
    values : torch.Tensor
        From :func:`perturbed_values` with ``average=False``, shape (count,).
    n_variables : int
        Number of variables n.
    alpha : float, default=0.0
        Above -1/sqrt(n). Slightly negative values are often the tightest.

    Raises
    ------
    ValueError
        If alpha <= -1/sqrt(n).
    """
    limit = -1 / math.sqrt(check_count("n_variables", n_variables))
    if not alpha > limit:
        raise ValueError(f"alpha must be above -1/sqrt(n) = {limit:.4f} for n = {n_variables}, got {alpha}")
    value, error = _power_mean(values, alpha)
    if alpha != 0:
        value += n_variables * (math.lgamma(1 + alpha) / alpha + EULER_GAMMA)
    return BoundEstimate(value, error)


def lower_bound(values: torch.Tensor, n_variables: int, alpha: float = 0.0) -> BoundEstimate:
    """Estimate L(alpha) <= log Z from maxima with averaged perturbations.

    Parameters
    ----------
    values : torch.Tensor
        From :func:`perturbed_values` with ``average=True``, shape (count,).
    n_variables : int
        Number of variables n.
    alpha : float, default=0.0
        Above -n.

    Raises
    ------
    ValueError
        If alpha <= -n.
    """
    check_count("n_variables", n_variables)
    if not alpha > -n_variables:
        raise ValueError(f"alpha must be above -n = {-n_variables}, got {alpha}")
    value, error = _power_mean(values, alpha)
    if alpha != 0:
        value += n_variables * math.lgamma(1 + alpha / n_variables) / alpha + EULER_GAMMA
    return BoundEstimate(value, error)
