"""Gates that keep at most k concepts an image: the k highest, or k drawn by Gumbel top-k while training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsecbm.bottleneck.gates.base import Gate, check_limit
from sparsecbm.samplers import noise as sampler_noise
from sparsecbm.samplers.concrete import straight_through


class TopKGate(Gate):
    """Keep the k units of highest exp(gain_j) * unit_j; of the kept, only positive ones are active.

    The learned gain lets a concept that helps to tell the classes apart win over one that is merely present. In
    training the forward pass is the hard selection; the backward pass is that of a sigmoid of temperature tau around
    the selection threshold (straight-through, Jang et al. 2017, section 2.2): one pass over the scores, where the k
    successive softmaxes of a relaxed top-k would take k.

    Parameters
    ----------
    n_concepts : int
        Number M of units.
    max_active_concepts : int
        k >= 1; every row has at most k non-zeros. k >= M keeps every positive unit.
    nonnegative : bool
        True: an active concept is a present one (unit > 0). False: units compete by absolute value and keep their sign.
    """

    name = "top_k"

    def __init__(self, n_concepts: int, max_active_concepts: int, nonnegative: bool = True) -> None:
        super().__init__(n_concepts)
        self.max_active_concepts = check_limit(max_active_concepts)
        self.nonnegative = bool(nonnegative)
        self.gain = nn.Parameter(torch.zeros(n_concepts))

    def options(self) -> dict[str, object]:
        return {"max_active_concepts": self.max_active_concepts, "nonnegative": self.nonnegative}

    def scores(self, units: Tensor) -> Tensor:
        """Selection scores (n, M)."""
        return (units if self.nonnegative else units.abs()) * self.gain.exp()

    def relax(self, units: Tensor, temperature: float, noise: Tensor | None) -> Tensor:
        present = units.clamp_min(0.0) if self.nonnegative else units
        if self.max_active_concepts >= self.n_concepts:
            return present
        scores = self.scores(units)
        if noise is not None:
            scores = scores + temperature * noise
        top = scores.detach().topk(self.max_active_concepts + 1, dim=1)
        edge = top.values[:, -2:].mean(1, keepdim=True)
        hard = torch.zeros_like(units).scatter_(1, top.indices[:, :-1], 1.0)
        return present * straight_through(hard, torch.sigmoid((scores - edge) / temperature))

    def forward(self, units: Tensor) -> Tensor:
        k = min(self.max_active_concepts, self.n_concepts)
        top = self.scores(units).topk(k, dim=1).indices
        present = units.clamp_min(0.0) if self.nonnegative else units
        return torch.zeros_like(units).scatter_(1, top, present.gather(1, top))


class GumbelTopKGate(TopKGate):
    """Top-k with Gumbel noise on the scores while training: k concepts drawn without replacement.

    With scores s and Gumbel noise g, the k largest s / tau + g are a draw of k concepts without replacement with
    weights exp(s / tau) (Gumbel top-k; Kool et al. 2019, arXiv 1903.06059); adding tau * g to s is the same draw. As
    tau is annealed the draw becomes the hard selection used at inference.
    """

    name = "gumbel_top_k"

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        return sampler_noise.gumbel((n, self.n_concepts), generator=generator, device=generator.device)
