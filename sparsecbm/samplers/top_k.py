"""Relaxed and exact draws of k entries without replacement (Gumbel top-k)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from sparsecbm.samplers._checks import check_logits, check_number, check_temperature, integer, transformed
from sparsecbm.samplers._straight_through import straight_through
from sparsecbm.samplers.noise import compute_dtype, gumbel

__all__ = ["hard_top_k", "relaxed_top_k"]


def _keys(
    logits: torch.Tensor, k: Any, temperature: Any, generator: torch.Generator | None, noise: bool
) -> tuple[torch.Tensor, int, float]:
    """Return perturbed keys in the type computed in, and the checked k and temperature."""
    n = logits.shape[-1] if check_logits(logits).dim() else 0
    count = integer(k)
    if count is None or not 1 <= count <= n:
        raise ValueError(f"k must be an integer from 1 to the {n} entries of a row, got {k!r}")
    compute = compute_dtype(logits.dtype)
    number = check_number("temperature", temperature)
    check_temperature(number, compute)
    wide = logits.to(compute)
    if noise:
        wide = wide + gumbel(wide.shape, generator=generator, dtype=wide.dtype, device=wide.device)
    return wide, count, number


def _relax_capped(keys: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """Sigmoid(scores - threshold), scores = keys / temperature, the threshold such that they sum to k.

    All of it in float64 and relative to the k-th largest key, which keeps ties exact however low the temperature.
    """
    n = keys.shape[-1]
    if k == n:
        return torch.ones_like(keys) + 0 * keys
    top = keys.detach().topk(k + 1, dim=-1).values.double()
    scores = (keys.double() - top[..., k - 1 : k]) / temperature
    fixed = scores.detach()
    # At `low` the k + 1 largest alone sum to at least k; at `high` the k-th and all below it sum to at most 1. Beyond
    # 800 a sigmoid is 0 or 1 to the last bit, so the threshold need not lie farther out.
    low = ((top[..., k:] - top[..., k - 1 : k]) / temperature).clamp(min=-800.0) - math.log(k)
    high = torch.full_like(low, math.log(n - k))
    for _ in range(12):
        middle = (low + high) / 2
        above = torch.sigmoid(fixed - middle).sum(-1, keepdim=True) > k
        low, high = torch.where(above, middle, low), torch.where(above, high, middle)
    threshold = (low + high) / 2
    # Newton's steps: six to the last bit, kept in the bracket where all sigmoids are flat; and two on a root that is
    # exact already, which leave its value and bring its derivatives: the first step the first, the second the others up
    # to the third.
    for exact in (*[False] * 6, True, True):
        state = torch.sigmoid((scores if exact else fixed) - threshold)
        total = state.sum(-1, keepdim=True)
        slope = (state * (1 - state)).sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        if exact:
            threshold = threshold + (total - total.detach()) / slope
        else:
            threshold = (threshold + (total - k) / slope).clamp(low, high)
    return torch.sigmoid(scores - threshold).to(keys.dtype)


def _relax_successive(keys: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """k softmaxes in turn, each lowering the keys of what it chose by log(1 - p); in float64."""
    dtype, keys = keys.dtype, keys.double()
    total = torch.zeros_like(keys)
    for step in range(k):
        scores = keys / temperature
        log_p = scores.log_softmax(-1)
        total = total + log_p.exp()
        if step == k - 1:
            break
        # log(1 - p): for the largest entry from the others directly, since 1 - p would round to 0.
        top = torch.arange(scores.shape[-1], device=scores.device) == log_p.argmax(-1, keepdim=True)
        rest = scores.masked_fill(top, -torch.inf).logsumexp(-1, keepdim=True) - scores.logsumexp(-1, keepdim=True)
        others = torch.log1p(-log_p.masked_fill(top, -torch.inf).exp())
        keys = keys + torch.where(top, rest, others)
    return total.to(dtype)


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
        Shape of `logits`, summing to k along the last dimension, differentiable.

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
    relax = _relaxation(method)
    return relax(*_keys(logits, k, temperature, generator, noise)).to(logits.dtype)


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
    relax = _relaxation(method)
    keys, k, temperature = _keys(logits, k, temperature, generator, noise)
    first = keys.detach().topk(k, dim=-1).indices
    hard = torch.zeros_like(keys).scatter(-1, first, torch.ones_like(first, dtype=keys.dtype))
    if not (keys.requires_grad or transformed()):
        return hard.to(logits.dtype)
    return straight_through(hard, relax(keys, k, temperature)).to(logits.dtype)
