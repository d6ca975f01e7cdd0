"""The Concept Bottleneck Layer: one unit a concept, tied to the concept's score by a cone.

Every linear unit of the scores psi = C x is also a linear function of the embedding x (C has rank at most d), so the
layer lives in d-space: unit_j(x) = w_j . h, with h = S^(-1/2) (x - mean) the whitened embedding. Concept score j is
p_j . h in the same coordinates, p_j = S^(1/2) c_j up to a scale. Since h has identity covariance,

    corr(unit_j, psi_j) = cos(w_j, p_j)      over the (shrunk) training distribution.

So the tie is geometry (`sparsecbm.bottleneck.ties`): unit j starts at its anchor, p_j or near it, and may turn away
from it by a given angle. Units that may not turn at all *are* their anchors' scores, and cost no training.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sparsecbm.bottleneck.rows import Rows
from sparsecbm.bottleneck.statistics import Whitening

_TOP, _JUDGED, _HALVINGS = 20, 10_000, 6
"""Highest pictures that a unit must keep; of so many, evenly spread; steps of bisection."""


class ConceptBottleneckLayer(nn.Module):
    """Units w_j . h, each within a cone around its own anchor.

    Parameters
    ----------
    whitening : Whitening
        Of the training embeddings.
    anchors : ndarray of shape (M, d)
        Directions in whitened space, of any length above 0.
    turns : ndarray of shape (M,)
        Tangent of the angle that each unit may turn away from its anchor.
    min_survival : float
        In [0, 1]: the share of its anchor's highest training pictures that each unit must keep; see `narrow`.
    """

    center: Tensor
    matrix: Tensor
    anchors: Tensor
    max_turn: Tensor

    def __init__(self, whitening: Whitening, anchors: np.ndarray, turns: np.ndarray, min_survival: float = 0.0) -> None:
        super().__init__()
        self.min_survival = min_survival
        self.register_buffer("center", torch.as_tensor(whitening.center, dtype=torch.float32))
        self.register_buffer("matrix", torch.as_tensor(whitening.matrix, dtype=torch.float32))
        self.register_buffer("anchors", F.normalize(torch.as_tensor(anchors, dtype=torch.float32), dim=1))
        self.register_buffer("max_turn", torch.as_tensor(turns, dtype=torch.float32)[:, None])
        self.turn = nn.Parameter(torch.zeros_like(self.anchors), requires_grad=bool((self.max_turn > 0).any()))

    def directions(self) -> Tensor:
        """Return the rows w_j, shape (M, d): unit length, within the cone around their anchors."""
        if not self.turn.requires_grad:
            return self.anchors
        return _Turned.apply(self.turn, self.anchors, self.max_turn)

    @torch.no_grad()
    def narrow(self, X: np.ndarray | Rows) -> None:
        """Narrow each cone until its unit keeps `min_survival` of the pictures (n, d) that its anchor ranks highest.

        Within the plane of anchor and unit, in the direction that training took: a unit at angle t orders pictures as
        anchor + tan(t) aside does, so the widest t that keeps enough is found by bisection. It stays narrow from then.
        """
        if not (self.turn.requires_grad and self.min_survival > 0):
            return
        rows = np.linspace(0, len(X) - 1, min(len(X), _JUDGED)).astype(np.int64)
        top = min(_TOP, max(1, len(rows) // 4))
        h = (torch.from_numpy(np.array(X[rows], dtype=np.float32)).to(self.center) - self.center) @ self.matrix
        units = self.directions()
        along = (units * self.anchors).sum(1, keepdim=True)
        aside = units / along - self.anchors
        scores, turned = h @ self.anchors.T, h @ aside.T
        own = torch.zeros_like(scores).scatter_(0, scores.topk(top, dim=0).indices, 1.0)

        def keeps(share: Tensor) -> Tensor:
            highest = (scores + share * turned).topk(top, dim=0).indices
            return own.gather(0, highest).mean(0) >= self.min_survival

        low, high = torch.zeros_like(along[:, 0]), torch.ones_like(along[:, 0])
        enough = keeps(high)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            good = keeps(middle)
            low, high = torch.where(good, middle, low), torch.where(good, high, middle)
        self.max_turn.copy_(torch.where(enough, self.max_turn[:, 0], low * aside.norm(dim=1))[:, None])

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map embeddings (n, d) to units (n, M); `noise` (n, d) is added in whitened space."""
        h = (x - self.center) @ self.matrix
        if noise is not None:
            h = h + noise
        return h @ self.directions().T

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """Return (weight (M, d), bias (M,)) with units = x @ weight.T + bias: all that inference needs."""
        weight = self.directions().double() @ self.matrix.double()
        return weight.float(), -(weight @ self.center.double()).float()


class _Turned(torch.autograd.Function):
    """Rows (a + q) / |a + q|, q the part of `turn` across the unit rows a, at most `max_turn` (M, 1) long.

    By autograd's own operations the backward pass takes 2.7 times as long, a sixth of a training.
    """

    @staticmethod
    def forward(ctx: Any, turn: Tensor, anchors: Tensor, max_turn: Tensor) -> Tensor:
        across = torch.addcmul(turn, (turn * anchors).sum(1, keepdim=True), anchors, value=-1.0)
        length = across.norm(dim=1, keepdim=True).clamp_min_(1e-12)
        share = (max_turn / length).clamp_(max=1.0)
        scale = torch.rsqrt(1.0 + (share * length).square())
        ctx.save_for_backward(anchors, across, length, share, scale)
        return (anchors * scale).addcmul_(across, scale * share)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        anchors, across, length, share, scale = ctx.saved_tensors
        along, aside = ((grad * row).sum(1, keepdim=True) for row in (anchors, across))
        # What a row cannot follow: its anchor, and `across`, by its length of one or, at the edge of the cone, at all.
        held = torch.where(share < 1.0, aside / length.square(), scale.square() * (along + aside))
        free = torch.addcmul(grad, along, anchors, value=-1.0).addcmul_(held, across, value=-1.0)
        return free.mul_(scale * share), None, None


class PublishedBottleneckLayer(nn.Module):
    """The published layer: Linear(M, M, no bias) on the raw scaled cosines (arXiv 2404.03323, section 3).

    Nothing ties unit j to concept j, and the scores are neither centred nor scaled; kept as a labelled baseline.

    Parameters
    ----------
    concept_embeddings : ndarray of shape (M, d) or None
        Unit rows; None means that the input columns are the concept scores.
    n_features : int
        Columns d of the input.
    logit_scale : float
        CLIP's temperature, 100 for OpenAI's models.
    generator : torch.Generator
        For the initial weights (PyTorch's default for a linear layer: uniform within 1 / sqrt(M)).
    """

    scores: Tensor

    def __init__(
        self,
        concept_embeddings: np.ndarray | None,
        n_features: int,
        logit_scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        rows = torch.eye(n_features) if concept_embeddings is None else torch.tensor(concept_embeddings)
        self.register_buffer("scores", rows.float() * (1.0 if concept_embeddings is None else logit_scale))
        n_concepts = len(self.scores)
        bound = 1.0 / math.sqrt(n_concepts)
        self.weight = nn.Parameter(torch.empty(n_concepts, n_concepts))
        nn.init.uniform_(self.weight, -bound, bound, generator=generator)

    def narrow(self, X: np.ndarray | Rows) -> None:
        """Do nothing: nothing ties these units to concepts."""

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map embeddings (n, d) to units (n, M). The published model adds no noise to its input."""
        return (x @ self.scores.T) @ self.weight.T

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """Return (weight (M, d), bias (M,)) with units = x @ weight.T + bias."""
        weight = self.weight @ self.scores
        return weight, torch.zeros(len(weight))
