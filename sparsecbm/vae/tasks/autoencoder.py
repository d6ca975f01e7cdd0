"""The binary autoencoder: pictures through a binary code, with no prior over the codes."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.vae.tasks.stochastic import StochasticTask


class AutoencoderTask(StochasticTask):
    """Reconstruct every pixel from discrete codes of it; the likelihood given a code, not one of the pictures."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
