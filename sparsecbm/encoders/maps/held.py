"""A network with its decisions held: affine in what enters it.

What makes a network non-linear is how it decides: statistics of a norm, weights of an attention, openness of a gate.
Held at the values that a picture gives them, what is left is sums and products with constants, so that gradient times
input is each entry's exact share, and only biases are left over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

# (query, key, value, ...): with query and key held, an attention is a weighted mean of its values.
_ATTENTIONS = (F.multi_head_attention_forward, F.scaled_dot_product_attention)
# Their outputs are weights of what follows.
_WEIGHTS = (
    torch.softmax, torch.Tensor.softmax, F.softmax, torch.sigmoid, torch.Tensor.sigmoid, F.sigmoid, F.hardsigmoid,
)  # fmt: skip
# x times a gate that depends on x: x Phi(x), x sigmoid(x), ...
_GATED = (F.gelu, F.silu, F.mish, F.hardswish, torch.tanh, torch.Tensor.tanh, F.tanh)


class Held(TorchFunctionMode):
    """While active, torch's functions let no gradient pass through decisions.

    ReLUs, maxima and batch norms with stored statistics are piecewise affine already and stay as they are.
    """

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in _ATTENTIONS:
            given = [args[k] if k < len(args) else options.pop(name) for k, name in enumerate(("query", "key"))]
            return func(*(tensor.detach() for tensor in given), *args[2:], **options)
        if func in _WEIGHTS:
            return func(*args, **options).detach()
        if func in _GATED:
            return _held_gate(func, *args, **options)
        if func in _NORMS:
            return _NORMS[func](*args, **options)
        return func(*args, **options)


def _held_gate(func: Callable[..., torch.Tensor], input: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    options.pop("inplace", None)
    nonzero = torch.where(input == 0, torch.full_like(input, 1e-6), input).detach()
    return input * (func(nonzero, *args, **options) / nonzero)


def _layer_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> torch.Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    # Taking off the mean is linear; the division by the deviation is held.
    deviation = (input.detach().var(dims, correction=0, keepdim=True) + eps).sqrt()
    out = (input - input.mean(dims, keepdim=True)) / deviation
    out = out if weight is None else out * weight
    return out if bias is None else out + bias


def _rms_norm(
    input: torch.Tensor,
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    dims = tuple(range(-len(normalized_shape), 0))
    eps = torch.finfo(input.dtype).eps if eps is None else eps
    out = input / (input.detach().square().mean(dims, keepdim=True) + eps).sqrt()
    return out if weight is None else out * weight


def _normalize(input: torch.Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> torch.Tensor:
    return input / input.detach().norm(p, dim, keepdim=True).clamp_min(eps)


_NORMS: dict[Any, Callable[..., torch.Tensor]] = {
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.normalize: _normalize,
}
