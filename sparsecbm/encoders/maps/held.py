"""A network with its decisions held: affine in what enters it.

What makes a network non-linear is how it decides: statistics of a norm, weights of an attention, openness of a gate.
Held, what is left is sums and products with constants, so that an entry's share of the output is its change times a
constant, and only biases are left over.

Statistics and attention weights are held at the values that a picture gives them. A gate (ReLU, GELU, ...) is held at
its slope between a blank's value and the picture's, ``(f(x) - f(blank)) / (x - blank)``, the rescale rule of DeepLIFT
(Shrikumar et al. 2017, arXiv 1704.02685): the slope at x itself would leave what a gate does on the way to x to no one.
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
_GATES = (
    F.relu, torch.relu, torch.Tensor.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.mish, F.hardswish,
    torch.tanh, torch.Tensor.tanh, F.tanh,
)  # fmt: skip


class Held(TorchFunctionMode):
    """While active, torch's functions let gradients pass as if all decisions were constants.

    Parameters
    ----------
    blank : Held, optional
        The same network's mode while it ran on the blank; None: this is that run, which notes what enters the gates.
    """

    def __init__(self, blank: Held | None = None) -> None:
        super().__init__()
        self.blank = blank
        self.gates: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        if func in _ATTENTIONS:
            given = [args[k] if k < len(args) else options.pop(name) for k, name in enumerate(("query", "key"))]
            return func(*(tensor.detach() for tensor in given), *args[2:], **options)
        if func in _WEIGHTS:
            return func(*args, **options).detach()
        if func in _GATES:
            return self._gate(func, *args, **options)
        if func in _NORMS:
            return _NORMS[func](*args, **options)
        return func(*args, **options)

    def _gate(self, func: Callable[..., torch.Tensor], input: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        options.pop("inplace", None)
        out = func(input, *args, **options)
        if not input.requires_grad:  # before the tower was opened
            return out
        self.gates.append(input.detach())
        if self.blank is None:
            return out
        value, other = self.gates[-1], self.blank.gates[len(self.gates) - 1]
        self.gates[-1] = self.blank.gates[len(self.gates) - 1] = torch.empty(0)  # used once
        # Where they are nearly one, rounding would decide: the slope beside x instead.
        beside = value - 1e-2 * value.abs() - 1e-6
        nudged = torch.where((value - other).abs() > 1e-3 * value.abs() + 1e-6, other, beside)
        slope = (out.detach() - func(nudged, *args, **options)) / (value - nudged)
        held = out.detach() + slope * (input - value)
        # Layouts that a pooling's backward leaves give wrong gradients of convolutions of single pictures (torch 2.15).
        held.register_hook(lambda gradient: gradient.contiguous())
        return held


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
