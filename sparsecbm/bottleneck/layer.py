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

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecbm.bottleneck.statistics import Whitening


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
    """

    center: Tensor
    matrix: Tensor
    anchors: Tensor
    max_turn: Tensor

    def __init__(self, whitening: Whitening, anchors: np.ndarray, turns: np.ndarray) -> None:
        super().__init__()
        self.register_buffer("center", torch.as_tensor(whitening.center, dtype=torch.float32))
        self.register_buffer("matrix", torch.as_tensor(whitening.matrix, dtype=torch.float32))
        self.register_buffer("anchors", F.normalize(torch.as_tensor(anchors, dtype=torch.float32), dim=1))
        self.register_buffer("max_turn", torch.as_tensor(turns, dtype=torch.float32)[:, None])
        self.turn = nn.Parameter(torch.zeros_like(self.anchors), requires_grad=bool((self.max_turn > 0).any()))

    def directions(self) -> Tensor:
        """Return the rows w_j, shape (M, d): unit length, within the cone around their anchors."""
        if not self.turn.requires_grad:
            return self.anchors
        turn = self.turn - (self.turn * self.anchors).sum(1, keepdim=True) * self.anchors
        length = turn.norm(dim=1, keepdim=True).clamp_min(1e-12)
        turn = turn * (self.max_turn / length).clamp(max=1.0)
        return (self.anchors + turn) * torch.rsqrt(1.0 + turn.square().sum(1, keepdim=True))

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

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        """Map embeddings (n, d) to units (n, M). The published model adds no noise to its input."""
        return (x @ self.scores.T) @ self.weight.T

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """Return (weight (M, d), bias (M,)) with units = x @ weight.T + bias."""
        weight = self.weight @ self.scores
        return weight, torch.zeros(len(weight))
