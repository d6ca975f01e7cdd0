"""At most k units a row: the k largest."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.dictionary.kinds.base import Codes, Dictionary, Step, largest


class TopK(Dictionary):
    """Keep the `active` largest units of each row (Makhzani & Frey 2013; Gao et al. 2024, arXiv 2406.04093)."""

    def codes(self, x: Tensor) -> Codes:
        return largest(self.units(x), self.active)

    def forward(self, x: Tensor, noise: Tensor | None, progress: float) -> Step:
        return self._step(x, self.codes(x))
