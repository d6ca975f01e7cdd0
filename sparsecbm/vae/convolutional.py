"""Networks that see square pictures as pictures."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm.samplers import noise
from sparsecbm.vae.networks import Stack

__all__ = ["ConvolutionalStack", "side_of"]

_CHANNELS = (32, 64)


def side_of(n_pixels: int) -> int:
    """Return the side of square pictures; refuse others."""
    side = math.isqrt(n_pixels)
    if side * side != n_pixels:
        raise InputError(f"{n_pixels} pixels: expected square pictures")
    return side


class ConvolutionalStack(Stack):
    """Two 5 x 5 convolutions of stride 2 with ReLU, max-pooling, and a :class:`Stack` of what they find.

    Batch normalisation is before each ReLU too.

    Parameters
    ----------
    n_inputs : int
        Pixels of a square picture.
    n_outputs, batch_norm, generator, **options
        As for :class:`Stack`.
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        batch_norm: bool = True,
        generator: torch.Generator | None = None,
        **options: Any,
    ) -> None:
        side = side_of(n_inputs)
        found = (side + 3) // 4 // 2  # two strides, rounded up, and pooling, rounded down
        if not found:
            raise InputError(f"{n_inputs} pixels: expected pictures of at least 5 x 5")
        super().__init__(
            _CHANNELS[-1] * found * found, n_outputs, batch_norm=batch_norm, generator=generator, **options
        )
        self.side = side
        self.convolutions = nn.Sequential()
        for before, after in zip((1, *_CHANNELS), _CHANNELS):
            layer = nn.utils.skip_init(nn.Conv2d, before, after, 5, stride=2, padding=2, bias=not batch_norm)
            with torch.no_grad():
                shape = tuple(layer.weight.shape)
                layer.weight.copy_(noise.normal(shape, generator=generator) * math.sqrt(2 / (25 * before)))
                if not batch_norm:
                    layer.bias.zero_()
            self.convolutions.extend([layer, *([nn.BatchNorm2d(after)] if batch_norm else []), nn.ReLU()])
        self.convolutions.append(nn.MaxPool2d(2))

    def forward(self, x: Tensor, given: Tensor | None = None, keep: Tensor | None = None) -> Tensor:
        """Map pictures (B, pixels) to (B, n_outputs); `keep` is of the `n_inputs` that convolutions find."""
        return super().forward(self.convolutions(x.view(-1, 1, self.side, self.side)).flatten(1), given, keep)
