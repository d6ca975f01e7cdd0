"""The l1 losses: on activations, with exact zeros; and as published, on the layer's weights."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss


class L1Loss(ConceptLoss):
    """Sum of an image's activations, made exactly sparse by the proximal (soft-threshold) gate."""

    name = "l1"
    default_weight = 5e-3

    def gate_name(self, max_active_concepts: int | None) -> str:
        return "soft_threshold"

    def __call__(self, batch: Batch) -> Tensor:
        return batch.activations.abs().sum(1)


class PublishedL1Loss(ConceptLoss):
    """(lambda / M) * ||W_CBL||_1 by subgradient, lambda = 1e-3 (arXiv 2404.03323); leaves no weight exactly zero."""

    name = "l1"
    default_weight = 1e-3

    def __call__(self, batch: Batch) -> Tensor:
        weight = batch.layer.get_parameter("weight")
        return (weight.abs().sum() / weight.shape[0]).expand(len(batch.units))
