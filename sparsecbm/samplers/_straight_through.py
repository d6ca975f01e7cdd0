"""The straight-through estimator, shared by the distributions and by top-k."""

from __future__ import annotations

import torch


def straight_through(hard: torch.Tensor, soft: torch.Tensor) -> torch.Tensor:
    """Return `hard` in the forward pass with the gradient of `soft` in the backward pass (Bengio et al. 2013).

    Parameters
    ----------
    hard, soft : torch.Tensor
        Same shape.

    Returns
    -------
    torch.Tensor
        Equal to `hard` to the last bit: the soft term is exactly zero.

    Examples
    --------
    >>> soft = torch.tensor([0.2, 0.8], requires_grad=True)
    >>> straight_through(torch.tensor([0.0, 1.0]), soft).detach()
    tensor([0., 1.])
    """
    if hard.shape != soft.shape:
        raise ValueError(f"hard and soft must have one shape, got {tuple(hard.shape)} and {tuple(soft.shape)}")
    return hard.detach().to(soft.dtype) + (soft - soft.detach())
