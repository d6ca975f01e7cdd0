"""What a gate is: it turns units into activations, with exact zeros where a concept is inactive."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn


class Gate(nn.Module):
    """Base of the gates.

    In training a gate may be stochastic and relaxed so that gradients flow; at inference it is deterministic, and an
    inactive concept is exactly zero.

    Parameters
    ----------
    n_concepts : int
        Number M of units.
    """

    #: Name in the registry and in saved models.
    name: str = ""
    #: Value of a per-concept parameter that leaves a concept inactive in every image. A gate without one has no choice.
    silent: ClassVar[dict[str, float]] = {}

    def __init__(self, n_concepts: int) -> None:
        super().__init__()
        self.n_concepts = n_concepts

    def options(self) -> dict[str, object]:
        """Keyword arguments, besides `n_concepts`, that rebuild this gate."""
        return {}

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor | None:
        """Draw the noise that a training batch of `n` rows needs, shape (n, M), or None for a noiseless gate."""
        return None

    def relax(self, units: Tensor, temperature: float, noise: Tensor | None) -> Tensor:
        """Activations (n, M) for training. The default is the inference rule, differentiated where it can be."""
        return self(units)

    @torch.no_grad()
    def silence(self, concepts: Tensor) -> None:
        """Leave some concepts, bool (M,), inactive in every image from now on."""
        for name, value in self.silent.items():
            getattr(self, name)[concepts] = value

    @torch.no_grad()
    def spread(self, n_concepts: int, kept: Tensor) -> Gate:
        """The same gate of more concepts: its own are the numbers `kept` (M,), all others are silent."""
        gate = type(self)(n_concepts, **self.options())
        for name, value in self.silent.items():
            getattr(gate, name).fill_(value)[kept] = getattr(self, name).detach().cpu()
        return gate

    def forward(self, units: Tensor) -> Tensor:
        """Activations (n, M) at inference."""
        raise NotImplementedError

    def expected_active(self, units: Tensor) -> Tensor:
        """Differentiable expected number of active concepts of each row, shape (n,)."""
        return units.ne(0).sum(1).to(units.dtype)
