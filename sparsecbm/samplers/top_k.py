"""Relaxed and exact draws of k entries without replacement (Gumbel top-k)."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from sparsecbm.samplers._straight_through import straight_through
from sparsecbm.samplers.noise import compute_dtype, gumbel

__all__ = ["hard_top_k", "relaxed_top_k"]


def _check_top_k(logits: torch.Tensor, k: int, temperature: float) -> None:
    if not logits.is_floating_point() or logits.dim() < 1:
        raise ValueError(
            f"logits must be a floating-point tensor of shape (..., n), got {logits.dtype}, {logits.dim()}-d"
        )
    if not isinstance(k, int) or not 1 <= k <= logits.shape[-1]:
        raise ValueError(f"k must be an integer from 1 to the {logits.shape[-1]} entries of a row, got {k!r}")
    if not (math.isfinite(temperature) and temperature > 0):
        raise ValueError(f"temperature must be finite and above 0, got {temperature}")
    if not logits.isfinite().all():
        raise ValueError(f"logits must be finite, got {logits.detach()[~logits.isfinite()][0].item()}")


def _perturbed(logits: torch.Tensor, generator: torch.Generator | None, noise: bool) -> torch.Tensor:
    wide = logits.to(compute_dtype(logits.dtype))
    return wide + gumbel(wide.shape, generator=generator, dtype=wide.dtype, device=wide.device) if noise else wide


def _relax_capped(keys: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """Sigmoid((keys - threshold) / temperature), the threshold such that they sum to k."""
    n = keys.shape[-1]
    if k == n:
        return torch.ones_like(keys) + 0 * keys
    wide = keys.detach().double()
    top = wide.topk(k + 1, dim=-1).values
    # At `low` the k + 1 largest alone sum to at least k; at `high` the k-th and all below it sum to at most 1.
    low = top[..., k:] - temperature * math.log(k)
    high = top[..., k - 1 : k] + temperature * math.log(n - k)
    for _ in range(50):
        middle = (low + high) / 2
        above = torch.sigmoid((wide - middle) / temperature).sum(-1, keepdim=True) > k
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    threshold = (low + high) / 2
    state = torch.sigmoid((wide - threshold) / temperature)
    slope = state * (1 - state)
    weight = slope / slope.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    # The threshold's own gradient, by the implicit function theorem: the weights sum to 1.
    moved = threshold + (weight * (keys - keys.detach())).sum(-1, keepdim=True)
    return torch.sigmoid((keys - moved) / temperature).to(keys.dtype)


def _relax_successive(keys: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """k softmaxes in turn, each lowering the keys of what it chose by log(1 - p)."""
    total = torch.zeros_like(keys)
    for step in range(k):
        scores = keys / temperature
        log_p = scores.log_softmax(-1)
        total = total + log_p.exp()
        if step == k - 1:
            break
        # log(1 - p): for the largest entry from the others directly, since 1 - p would round to 0.
        top = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, log_p.argmax(-1, keepdim=True), True)
        rest = scores.masked_fill(top, -torch.inf).logsumexp(-1, keepdim=True) - scores.logsumexp(-1, keepdim=True)
        others = torch.log1p(-log_p.masked_fill(top, -torch.inf).exp())
        keys = keys + torch.where(top, rest, others)
    return total


_RELAXATIONS = {"capped": _relax_capped, "successive": _relax_successive}


def _relaxation(method: str) -> Callable[[torch.Tensor, int, float], torch.Tensor]:
    if method not in _RELAXATIONS:
        raise ValueError(f"unknown relaxation {method!r}; known: {', '.join(sorted(_RELAXATIONS))}")
    return _RELAXATIONS[method]


def relaxed_top_k(
    logits: torch.Tensor,
    k: int,
    temperature: float,
    generator: torch.Generator | None = None,
    *,
    noise: bool = True,
    method: str = "capped",
) -> torch.Tensor:
    """Draw a relaxed k-hot vector: k entries without replacement, each chosen in proportion to exp(logits).

    Parameters
    ----------
    logits : torch.Tensor
        Shape (..., n), finite.
    k : int
        How many entries, 1 to n.
    temperature : float
        Above 0; towards 0 the result becomes the hard k-hot vector of the same noise.
    generator : torch.Generator, optional
        Source of randomness; None means PyTorch's default generator.
    noise : bool, default=True
        False relaxes the deterministic top k.
    method : {"capped", "successive"}, default="capped"
        How the hard k-hot vector of the perturbed keys is relaxed, see the notes.

    Returns
    -------
    torch.Tensor
        Shape of `logits`, summing to k along the last dimension, differentiable (once).

    Raises
    ------
    ValueError
        If k is out of range, temperature <= 0, a logit is not finite or the method is unknown.

    Notes
    -----
    keys = logits + Gumbel noise, whose k largest are a draw without replacement (Yellott 1977; Kool et al. 2019).

    - "capped": ``sigmoid((keys - nu) / temperature)`` with nu such that the sum is k: the entropy-regularised
      projection onto the simplex with entries capped at 1 (Amos, Koltun & Kolter 2019, arXiv 1906.08707). Entries
      lie in [0, 1] at every temperature, and the cost does not grow with k.
    - "successive": k times, p = softmax(keys / temperature), keys += log(1 - p); the sum of the p (Ploetz & Roth
      2018; Xie & Ermon 2019, arXiv 1901.10517). It is the Concrete distribution for k = 1.
      An entry that is nearly certain is lowered by its lead over the runner-up / temperature alone, so it may be
      chosen again and exceed 1.

    Examples
    --------
    >>> relaxed_top_k(torch.tensor([5.0, 3.0, 1.0]), 2, 0.01, noise=False).round()
    tensor([1., 1., 0.])
    """
    _check_top_k(logits, k, temperature)
    return _relaxation(method)(_perturbed(logits, generator, noise), k, temperature).to(logits.dtype)


def hard_top_k(
    logits: torch.Tensor,
    k: int,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    *,
    noise: bool = True,
    method: str = "capped",
) -> torch.Tensor:
    """Draw an exact k-hot vector of zeros and ones with the gradient of :func:`relaxed_top_k` from the same noise.

    Parameters and errors as for :func:`relaxed_top_k`.

    Returns
    -------
    torch.Tensor
        Shape of `logits`, exactly k ones in each row.

    Examples
    --------
    >>> hard_top_k(torch.tensor([5.0, 3.0, 1.0]), 2, noise=False)
    tensor([1., 1., 0.])
    """
    _check_top_k(logits, k, temperature)
    relax = _relaxation(method)
    keys = _perturbed(logits, generator, noise)
    hard = torch.zeros_like(keys).scatter_(-1, keys.detach().topk(k, dim=-1).indices, 1.0)
    if not keys.requires_grad:
        return hard.to(logits.dtype)
    return straight_through(hard, relax(keys, k, temperature)).to(logits.dtype)
