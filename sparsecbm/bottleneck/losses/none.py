"""No concept loss: cross-entropy alone trains layer and head."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss


class NoLoss(ConceptLoss):
    """Zero: the control that shows what a concept loss adds."""

    name = "none"
    default_weight = 0.0

    def __call__(self, batch: Batch) -> Tensor:
        return batch.units.new_zeros(len(batch.units))
