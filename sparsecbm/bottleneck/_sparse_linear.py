"""A linear layer on activations with few non-zeros a row, without multiplying the zeros."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

#: Multiplications of a dense product (rows x inputs x outputs) from which looking for the non-zeros pays on a CPU.
_LARGE = 2**30


def few_nonzeros(activations: Tensor, weight: Tensor, k: int | None) -> bool:
    """Whether `sparse_linear` is faster: on a CPU, at most one activation in 16 non-zero, and a large product."""
    return (
        k is not None
        and activations.device.type == "cpu"
        and activations.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and 16 * k <= activations.shape[1]
        and activations.numel() * weight.shape[0] >= _LARGE
    )


def sparse_linear(activations: Tensor, weight: Tensor, bias: Tensor | None, k: int) -> Tensor:
    """``activations @ weight.T + bias`` of activations (n, M) with at most `k` non-zeros a row.

    The same sums as `torch.nn.functional.linear`, in another order.

    Parameters
    ----------
    activations : Tensor of shape (n, M)
        Gradients are dense: a zero activation has one, too.
    weight, bias : Tensor of shape (K, M), and (K,) or None
        As of a linear layer.
    k : int
        Most non-zeros of a row.

    Examples
    --------
    >>> rows = torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
    >>> sparse_linear(rows, torch.tensor([[1.0, 10.0, 100.0]]), None, 1).tolist()
    [[20.0], [1.0]]
    """
    out = _SparseLinear.apply(activations, weight, k)
    return out if bias is None else out + bias


class _SparseLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, activations: Tensor, weight: Tensor, k: int) -> Tensor:
        kept = activations.abs().topk(k, dim=1, sorted=False).indices
        values = activations.gather(1, kept)
        ctx.save_for_backward(kept, values, weight)
        return F.embedding_bag(kept, weight.T.contiguous(), per_sample_weights=values, mode="sum")

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        kept, values, weight = ctx.saved_tensors
        grad = grad.contiguous()
        # By concept: the rows of the gradient that it is active in, summed with its activations as weights.
        concepts, order = kept.flatten().sort(stable=True)
        starts = torch.searchsorted(concepts, torch.arange(weight.shape[1], device=concepts.device))
        rows = order // kept.shape[1]
        summed = F.embedding_bag(rows, grad, starts, mode="sum", per_sample_weights=values.flatten()[order])
        return grad @ weight, summed.T, None
