"""Gates that keep at most k concepts an image: the k highest, or k drawn by Gumbel top-k while training."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm._base.parameters import Count, checked
from sparsecbm.bottleneck.gates.base import Gate
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
    silent = {"gain": -200.0}  # its exp is 0 in float32, and so is every score

    def __init__(self, n_concepts: int, max_active_concepts: int, nonnegative: bool = True) -> None:
        super().__init__(n_concepts)
        self.max_active_concepts = checked("max_active_concepts", max_active_concepts, Count)
        self.nonnegative = bool(nonnegative)
        self.gain = nn.Parameter(torch.zeros(n_concepts))

    def options(self) -> dict[str, object]:
        return {"max_active_concepts": self.max_active_concepts, "nonnegative": self.nonnegative}

    def scores(self, units: Tensor) -> Tensor:
        """Selection scores (n, M)."""
        return (units if self.nonnegative else units.abs()) * self.gain.exp()

    def relax(self, units: Tensor, temperature: float, noise: Tensor | None) -> Tensor:
        present = units.clamp_min(0.0) if self.nonnegative else units
        audible = self.gain.detach().exp().ne(0).to(units.dtype)
        if self.max_active_concepts >= self.n_concepts:
            return present * audible
        if noise is not None:
            noise = noise * audible
        if self.nonnegative:
            return _PresentTopK.apply(units, self.gain, noise, temperature, self.max_active_concepts)
        present = present * audible
        scores = self.scores(units)
        if noise is not None:
            scores = scores + temperature * noise
        top = scores.detach().topk(self.max_active_concepts + 1, dim=1)
        edge = top.values[:, -2:].mean(1, keepdim=True)
        hard = torch.zeros_like(units).scatter_(1, top.indices[:, :-1], 1.0)
        return present * straight_through(hard, torch.sigmoid((scores - edge) / temperature))

    def forward(self, units: Tensor) -> Tensor:
        k = min(self.max_active_concepts, self.n_concepts)
        top = self.scores(units).topk(k, dim=1)
        kept = torch.where(top.values > 0, units.gather(1, top.indices), 0.0)
        return torch.zeros_like(units).scatter_(1, top.indices, kept)

    @torch.no_grad()
    def weigh(self, importance: Tensor) -> None:
        """Let concepts compete by unit times importance (M,); one of no importance is silent."""
        largest = importance.max().clamp_min(1e-30)
        self.gain.copy_(torch.where(importance > 0, (importance / largest).log(), self.silent["gain"]))


class _PresentTopK(torch.autograd.Function):
    """`TopKGate.relax` of non-negative activations, the same numbers in half the passes over the (n, M) scores."""

    @staticmethod
    def forward(ctx: Any, units: Tensor, gain: Tensor, noise: Tensor | None, temperature: float, k: int) -> Tensor:
        scores = units * gain.exp()  # float32, whatever autocast made of the units
        if noise is not None:
            scores += temperature * noise
        top = scores.topk(k + 1, dim=1)
        edge, kept = top.values[:, -2:].mean(1, keepdim=True), top.indices[:, :-1]
        ctx.save_for_backward(units, gain, scores, edge, kept)
        ctx.temperature = temperature
        present = units.gather(1, kept).clamp_min_(0.0).to(scores.dtype)
        return torch.zeros_like(scores).scatter_(1, kept, present.mul_(gain.exp().ne(0)[kept]))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        units, gain, scores, edge, kept = ctx.saved_tensors
        units = units.to(scores.dtype)
        soft = torch.sub(scores, edge).div_(ctx.temperature).sigmoid_()
        # The selection's slope: grad * present * soft (1 - soft) / temperature.
        slope = torch.ops.aten.sigmoid_backward(units.clamp_min(0.0).mul_(grad), soft).div_(ctx.temperature)
        scale = gain.exp()
        gain_grad = torch.mul(slope, units, out=soft).sum(0).mul_(scale)
        slope *= scale
        direct = grad.gather(1, kept) * units.gather(1, kept).ge(0.0)
        return slope.scatter_add_(1, kept, direct), gain_grad, None, None, None


class GumbelTopKGate(TopKGate):
    """Top-k with Gumbel noise on the scores while training: k concepts drawn without replacement.

    With scores s and Gumbel noise g, the k largest s / tau + g are a draw of k concepts without replacement with
    weights exp(s / tau) (Gumbel top-k; Kool et al. 2019, arXiv 1903.06059); adding tau * g to s is the same draw. As
    tau is annealed the draw becomes the hard selection used at inference.
    """

    name = "gumbel_top_k"

    def draw_noise(self, n: int, generator: torch.Generator) -> Tensor:
        return sampler_noise.gumbel((n, self.n_concepts), generator=generator, device=generator.device)
