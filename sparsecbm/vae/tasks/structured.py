"""Structured output prediction: the lower half of a picture from its upper half."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.vae.tasks.stochastic import StochasticTask


class StructuredTask(StochasticTask):
    """Predict the second half of the pixels from the first (Raiko et al. 2015; Jang et al. 2017, section 4.1)."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        half = x.shape[1] // 2
        return x[:, :half], x[:, half:]
