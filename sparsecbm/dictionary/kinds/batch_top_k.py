"""k units a row on average: rows that need more take from rows that need fewer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecbm.dictionary.kinds.base import Codes, Dictionary, Step

_MEMORY = 0.99


class BatchTopK(Dictionary):
    """Keep the ``n * active`` largest units of a batch of n rows (Bussmann et al. 2024, arXiv 2412.06410).

    A row does not depend on its neighbours at inference: units above the running mean of the batches' thresholds are
    active.
    """

    threshold: Tensor

    def __init__(self, atoms: Tensor, centre: Tensor, active: int) -> None:
        super().__init__(atoms, centre, active)
        self.register_buffer("threshold", torch.tensor(-1.0))

    def codes(self, x: Tensor) -> Codes:
        return _above(self.units(x), self.threshold)

    def forward(self, x: Tensor, noise: Tensor | None, progress: float) -> Step:
        units = F.relu(self.units(x))
        least = units.detach().flatten().topk(min(len(x) * self.active, units.numel())).values[-1]
        with torch.no_grad():
            memory = _MEMORY if self.threshold >= 0 else 0.0
            self.threshold.copy_(memory * self.threshold + (1 - memory) * least)
        return self._step(x, _above(units, least))


def _above(units: Tensor, least: Tensor) -> Codes:
    kept = units.ge(least) & units.gt(0)
    width = max(1, int(kept.sum(1).max())) if len(units) else 1
    values, indices = torch.where(kept, units, 0.0).topk(width, dim=1)
    return values, indices
