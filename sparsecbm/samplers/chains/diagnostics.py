"""Convergence diagnostics of Markov chains: split R-hat and effective sample size.

Source: Gelman et al. 2013, "Bayesian Data Analysis", 3rd edition, sections 11.4 and 11.5; Geyer 1992 for the
truncation.
"""

from __future__ import annotations

import torch

__all__ = ["effective_sample_size", "split_r_hat"]


def _split(draws: torch.Tensor) -> torch.Tensor:
    if draws.dim() < 2 or draws.shape[1] < 4:
        raise ValueError(f"draws must have shape (chains, draws >= 4, ...), got {tuple(draws.shape)}")
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]]).double()


def _variances(halves: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    length = halves.shape[1]
    within = halves.var(1, unbiased=True).mean(0)
    between = halves.mean(1).var(0, unbiased=True)
    return within, (length - 1) / length * within + between


def split_r_hat(draws: torch.Tensor) -> torch.Tensor:
    """Return split R-hat, the potential scale reduction over half chains.

    Parameters
    ----------
    draws : torch.Tensor
        Scalars followed along the chains, shape (chains, draws, ...); at least 4 draws.

    Returns
    -------
    torch.Tensor
        float64, shape (...); near 1 where the chains agree. 1 for a quantity that never changes; infinity where each
        half chain is constant but they differ.

    Examples
    --------
    >>> draws = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0))
    >>> bool(split_r_hat(draws) < 1.01)
    True
    """
    within, total = _variances(_split(draws))
    return torch.where((within == 0) & (total == 0), torch.ones_like(within), (total / within).sqrt())


def effective_sample_size(draws: torch.Tensor) -> torch.Tensor:
    """Return the effective number of independent draws among all of the chains' draws.

    Parameters
    ----------
    draws : torch.Tensor
        Scalars followed along the chains, shape (chains, draws, ...); at least 4 draws.

    Returns
    -------
    torch.Tensor
        float64, shape (...). NaN for a quantity that never changes.

    Notes
    -----
    Autocovariances by FFT over half chains, combined across them (BDA3 eq. 11.7), summed over Geyer's initial
    positive and monotone sequence of pairs.
    """
    halves = _split(draws)
    chains, length = halves.shape[:2]
    _, total = _variances(halves)
    centred = halves - halves.mean(1, keepdim=True)
    spectrum = torch.fft.rfft(centred, n=2 * length, dim=1)
    covariance = torch.fft.irfft(spectrum.abs() ** 2, n=2 * length, dim=1)[:, :length].mean(0) / length
    unbiased = covariance * length / (length - 1)
    rho = 1 - (unbiased[:1] - unbiased) / total
    rho[0] = 1.0
    pairs = rho[: length // 2 * 2].reshape(length // 2, 2, *rho.shape[1:]).sum(1)
    positive = (pairs > 0).to(torch.int64).cumprod(0).to(rho.dtype)
    monotone = pairs.cummin(0).values * positive
    time = (2 * monotone.sum(0) - 1).clamp(min=1 / (chains * length))
    return chains * length / time
