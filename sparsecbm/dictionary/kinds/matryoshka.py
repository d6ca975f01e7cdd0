"""Dictionaries inside each other: the first units alone rebuild as much as they can."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.dictionary.kinds.base import Step
from sparsecbm.dictionary.kinds.top_k import TopK

_LEVELS = 3


class Matryoshka(TopK):
    """Top-k whose loss is the mean error over prefixes of the dictionary, each twice as long as the last.

    So general concepts come first and special ones later (Bussmann et al. 2025, arXiv 2503.17547). The prefixes are
    M / 4, M / 2 and M. Shorter ones would make their few units mean everything a little.
    """

    @property
    def prefixes(self) -> list[int]:
        """Lengths of the prefixes, rising to M."""
        return prefixes(self.n_concepts)

    def forward(self, x: Tensor, noise: Tensor | None, progress: float) -> Step:
        values, indices = codes = self.codes(x)
        parts = [self._step(x, (torch.where(indices < m, values, 0.0), indices)).loss for m in self.prefixes]
        return Step(torch.stack(parts).mean(0), self._fired(codes))


def prefixes(n_concepts: int) -> list[int]:
    """Lengths of the prefixes of a dictionary of so many concepts.

    Examples
    --------
    >>> prefixes(64)
    [16, 32, 64]
    """
    return sorted({max(1, n_concepts >> level) for level in range(_LEVELS)})
