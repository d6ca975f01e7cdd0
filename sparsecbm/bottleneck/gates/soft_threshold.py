"""The proximal map of the l1 norm as activation function: exact zeros below a learned threshold."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsecbm._base.parameters import Count, checked
from sparsecbm.bottleneck.gates.base import Gate


class SoftThresholdGate(Gate):
    """activation_j = argmin_a (a - unit_j)^2 / 2 + theta_j |a|, the proximal step of the l1 penalty.

    In closed form sign(u) max(|u| - theta, 0), restricted to a >= 0 when `nonnegative`. So a zero is an exact zero, in
    training and at inference alike. The thresholds theta_j > 0 are learned, one a concept.

    Parameters
    ----------
    n_concepts : int
        Number M of units.
    nonnegative : bool
        Whether only positive units can be active.
    max_active_concepts : int or None
        If given, only the k largest of each row are kept.
    """

    name = "soft_threshold"
    silent = {"log_threshold": 20.0}

    def __init__(self, n_concepts: int, nonnegative: bool = True, max_active_concepts: int | None = None) -> None:
        super().__init__(n_concepts)
        self.nonnegative = bool(nonnegative)
        self.max_active_concepts = checked("max_active_concepts", max_active_concepts, Count | None)
        self.log_threshold = nn.Parameter(torch.zeros(n_concepts))

    def options(self) -> dict[str, object]:
        return {"nonnegative": self.nonnegative, "max_active_concepts": self.max_active_concepts}

    def forward(self, units: Tensor) -> Tensor:
        threshold = self.log_threshold.exp()
        kept = F.relu(units - threshold)
        if not self.nonnegative:
            kept = kept - F.relu(-units - threshold)
        if self.max_active_concepts is not None and self.max_active_concepts < self.n_concepts:
            top = kept.detach().abs().topk(self.max_active_concepts, dim=1).indices
            kept = kept * torch.zeros_like(kept).scatter_(1, top, 1.0)
        return kept
