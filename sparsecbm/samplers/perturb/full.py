"""Full-rank perturbations: one Gumbel variable for every configuration."""

from __future__ import annotations

import torch

from sparsecbm.samplers._checks import check_count, check_finite
from sparsecbm.samplers.noise import compute_dtype, gumbel

__all__ = ["EULER_GAMMA", "gumbel_max_sample", "perturbed_maxima"]

EULER_GAMMA = 0.57721566490153286
_AT_ONCE = 1 << 22


def _check(log_potentials: torch.Tensor) -> torch.Tensor:
    if log_potentials.dim() != 1 or not log_potentials.numel() or not log_potentials.is_floating_point():
        raise ValueError(f"log_potentials must be a floating-point vector, got shape {tuple(log_potentials.shape)}")
    check_finite("log_potentials", log_potentials, "; leave impossible configurations out")
    return log_potentials.to(compute_dtype(log_potentials.dtype))


@torch.no_grad()
def _maxima(
    log_potentials: torch.Tensor, count: int, generator: torch.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    log_potentials, count = _check(log_potentials), check_count("count", count)
    size = len(log_potentials)
    rows = max(1, _AT_ONCE // size)
    values, indices = [], []
    for start in range(0, count, rows):
        shape = (min(rows, count - start), size)
        noise = gumbel(shape, generator=generator, dtype=log_potentials.dtype, device=log_potentials.device)
        best = noise.add_(log_potentials).max(-1)
        values.append(best.values)
        indices.append(best.indices)
    return torch.cat(values), torch.cat(indices)


def gumbel_max_sample(log_potentials: torch.Tensor, count: int, *, generator: torch.Generator | None) -> torch.Tensor:
    """Draw `count` configurations with probability proportional to exp(log_potentials), by the Gumbel-max trick.

    Parameters
    ----------
    log_potentials : torch.Tensor
        Shape (configurations,), finite.
    count : int
        Number of draws.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.

    Returns
    -------
    torch.Tensor
        int64 indices, shape (count,).

    Examples
    --------
    >>> gumbel_max_sample(torch.tensor([0.0, 1e4]), 3, generator=torch.Generator().manual_seed(0))
    tensor([1, 1, 1])
    """
    return _maxima(log_potentials, count, generator)[1]


def perturbed_maxima(log_potentials: torch.Tensor, count: int, *, generator: torch.Generator | None) -> torch.Tensor:
    """Draw `count` values V = max_x (log_potentials(x) + G(x) - gamma), G standard Gumbel, gamma Euler's constant.

    Returns
    -------
    torch.Tensor
        Shape (count,); V = -log T - gamma with T ~ Exp(Z), which is all that the tricks need.
    """
    return _maxima(log_potentials, count, generator)[0] - EULER_GAMMA
