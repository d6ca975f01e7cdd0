"""Feed-forward networks of the encoders and decoders: linear, or tanh layers with batch normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm.samplers import noise

__all__ = ["Stack", "linear"]


def linear(n_inputs: int, n_outputs: int, *, generator: torch.Generator | None, bias: bool = True) -> nn.Linear:
    """Return a linear layer with normal weights of variance 1 / n_inputs and zero biases.

    The global generator of PyTorch stays as it was.
    """
    layer = nn.utils.skip_init(nn.Linear, n_inputs, n_outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(noise.normal((n_outputs, n_inputs), generator=generator) / math.sqrt(n_inputs))
        if bias:
            layer.bias.zero_()
    return layer


class Stack(nn.Module):
    """Linear layers with, between them, batch normalisation and tanh. Without hidden layers it is linear.

    Parameters
    ----------
    n_inputs, n_outputs : int
        Widths.
    hidden : sequence of int, default=()
        Widths of the hidden layers.
    n_given : int, default=0
        Width of a second input, joined to the first at the first layer. The two products are made apart, so that the
        first input needs no repetition where the second has several samples for each of its rows.
    batch_norm : bool, default=True
        Normalise the hidden layers.
    output_bias : torch.Tensor or None
        The last bias to begin with; zeros by default.
    generator : torch.Generator or None
        Source of the initial weights.
    """

    layers: Any  # nn.ModuleList of nn.Linear, which no type of PyTorch can say

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        hidden: Sequence[int] = (),
        n_given: int = 0,
        batch_norm: bool = True,
        output_bias: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        widths = [n_inputs + n_given, *hidden, n_outputs]
        biases = [not batch_norm] * len(hidden) + [True]  # normalisation has an offset of its own
        layers = [linear(a, b, generator=generator, bias=c) for a, b, c in zip(widths[:-1], widths[1:], biases)]
        if output_bias is not None:
            with torch.no_grad():
                layers[-1].bias.copy_(output_bias)
        self.n_inputs = n_inputs
        self.layers = nn.ModuleList(layers)
        self.norms = nn.ModuleList([nn.BatchNorm1d(width) for width in hidden] if batch_norm else [])

    def forward(self, x: Tensor, given: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Map (..., n_inputs), with `given` (..., n_given) broadcast against it, to (..., n_outputs).

        `keep` (..., n_inputs), where there is one, scales the inputs: 0 drops them.
        """
        if keep is not None:
            x = x * keep
        first = self.layers[0]
        if given is None:
            h = first(x)
        else:
            # Split, not sliced: the gradient of a slice is a matrix of zeros with the slice copied in.
            own, other = first.weight.split([self.n_inputs, first.in_features - self.n_inputs], 1)
            h = nn.functional.linear(x, own, first.bias) + nn.functional.linear(given, other)
        for number, layer in enumerate(self.layers[1:]):
            if self.norms:
                h = self.norms[number](h.reshape(-1, h.shape[-1])).view(h.shape)
            h = layer(h.tanh())
        return h.float() if h.dtype in (torch.bfloat16, torch.float16) else h  # log-masses need the digits
