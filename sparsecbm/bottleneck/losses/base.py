"""What a concept loss is: a term added to the cross-entropy, computed from one training batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecbm.bottleneck.gates.base import Gate


@dataclass
class Batch:
    """What a concept loss may look at; rows are the images of one process's share of the batch.

    Attributes
    ----------
    x : Tensor of shape (n, d)
        Embeddings.
    scores : Tensor of shape (n, M) or None
        Concept scores; filled only for losses with `needs_scores`.
    units : Tensor of shape (n, M)
        Outputs of the Concept Bottleneck Layer.
    activations : Tensor of shape (n, M)
        Gated units.
    labels : Tensor of shape (n,)
        Class indices.
    layer, gate : nn.Module
        The modules that made them, for penalties on weights.
    generator : torch.Generator
        For losses that draw noise.
    """

    x: Tensor
    scores: Tensor | None
    units: Tensor
    activations: Tensor
    labels: Tensor
    layer: nn.Module
    gate: Gate
    generator: torch.Generator


class ConceptLoss:
    """Base of the concept losses.

    Attributes
    ----------
    name : str
        Name in the registry.
    default_weight : float
        Weight of the term beside the cross-entropy where the user gives none.
    needs_scores : bool
        Whether ``Batch.scores`` must be computed.
    whole_batch : bool
        Whether the term couples the images of a batch, so that with several processes it must see all of them. Such a
        loss returns a scalar; the others return one value an image.
    needs_relevance : bool
        Whether the loss is built with the class-concept relevance matrix.
    """

    name: str = ""
    default_weight: float = 1.0
    needs_scores: bool = False
    whole_batch: bool = False
    needs_relevance: bool = False

    def gate_name(self, max_active_concepts: int | None) -> str:
        """Which gate goes with this loss."""
        return "dense" if max_active_concepts is None else "top_k"

    def __call__(self, batch: Batch) -> Tensor:
        """Return the loss: shape (n,), or a scalar if `whole_batch`."""
        raise NotImplementedError
