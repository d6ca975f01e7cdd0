"""What a decoder's outputs say about pixels: binary ones, or intensities with normal noise.

Every one is an exponential family in the pixels x, ``log p(x) = x.eta + kappa |x|^2 + c``: for all pictures and all
outputs that is one matrix product, :meth:`Likelihood.table`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecbm._base.parts import LIKELIHOODS
from sparsecbm.samplers import noise

__all__ = [
    "LIKELIHOODS",
    "BernoulliLikelihood",
    "GaussianLikelihood",
    "Likelihood",
    "bernoulli_log_likelihood",
    "make_likelihood",
]


class _BernoulliLogLikelihood(torch.autograd.Function):
    """``x.logits - sum softplus(logits)`` with gradient ``x - sigmoid(logits)``: half of autograd's passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, logits: Tensor) -> Tensor:
        ctx.save_for_backward(x, logits)
        # log sigmoid(-l) = -softplus(l); its kernel is the faster one.
        return torch.linalg.vecdot(x.expand_as(logits), logits).add_(F.logsigmoid(-logits).sum(-1))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, logits = ctx.saved_tensors
        grad = grad.unsqueeze(-1)
        grad_x = (grad * logits).sum_to_size(x.shape) if ctx.needs_input_grad[0] else None
        return grad_x, (x - logits.sigmoid()) * grad if ctx.needs_input_grad[1] else None


def bernoulli_log_likelihood(x: Tensor, logits: Tensor) -> Tensor:
    """Return log p(x) of binary pixels, summed over the last dimension: ``x.logits - sum softplus(logits)``.

    Parameters
    ----------
    x : torch.Tensor
        Broadcast against the logits.
    logits : torch.Tensor, shape (..., n_pixels)

    Returns
    -------
    torch.Tensor, shape (...,)
    """
    return _BernoulliLogLikelihood.apply(x, logits)


class Likelihood(ABC):
    """p(x | outputs of the decoder), over the last dimension."""

    name: str
    extra = 0
    """Outputs of the decoder beyond one a pixel."""

    @abstractmethod
    def natural(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return eta (..., n_pixels), kappa and c (...), such that log p(x) is ``x.eta + kappa |x|^2 + c``."""

    @abstractmethod
    def mean(self, outputs: Tensor) -> Tensor:
        """Return the expected pixels, (..., n_pixels + extra) -> (..., n_pixels)."""

    @abstractmethod
    def sample(self, outputs: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Draw pixels."""

    @abstractmethod
    def bias(self, means: Tensor) -> Tensor:
        """Return the outputs whose expected pixels are `means`, in [0, 1]: a decoder's first bias."""

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Return log p(x) of pixels broadcast against the outputs, shape (...)."""
        eta, kappa, constant = self.natural(outputs)
        return torch.linalg.vecdot(x.expand_as(eta), eta) + kappa * x.square().sum(-1) + constant

    def table(self, x: Tensor, outputs: Tensor) -> Tensor:
        """Return log p(x) of every picture (B, n_pixels) under every row of outputs (S, ...), shape (S, B)."""
        eta, kappa, constant = (part.unsqueeze(-1) for part in self.natural(outputs))
        return eta.squeeze(-1) @ x.T + kappa * x.square().sum(-1) + constant


class BernoulliLikelihood(Likelihood):
    """Independent binary pixels with the outputs as log-odds."""

    name = "bernoulli"

    def natural(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return outputs, outputs.new_zeros(()), F.logsigmoid(-outputs).sum(-1)

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs.sigmoid()

    def sample(self, outputs: Tensor, *, generator: torch.Generator | None) -> Tensor:
        return noise.bernoulli(outputs, generator=generator)

    def bias(self, means: Tensor) -> Tensor:
        return means.clamp(1e-3, 1 - 1e-3).logit()

    def log_prob(self, x: Tensor, outputs: Tensor) -> Tensor:
        return bernoulli_log_likelihood(x, outputs)


class GaussianLikelihood(Likelihood):
    """Intensities with normal noise of one size: the outputs are the pixels' means and the log of sigma, a number."""

    name = "gaussian"
    extra = 1

    def natural(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, log_sigma = outputs[..., :-1], outputs[..., -1]
        precision = (-2 * log_sigma).exp()
        constant = -mean.shape[-1] * (log_sigma + 0.5 * math.log(2 * math.pi))
        return mean * precision.unsqueeze(-1), -precision / 2, constant - precision * mean.square().sum(-1) / 2

    def mean(self, outputs: Tensor) -> Tensor:
        return outputs[..., :-1]

    def sample(self, outputs: Tensor, *, generator: torch.Generator | None) -> Tensor:
        mean = self.mean(outputs)
        drawn = noise.normal(tuple(mean.shape), generator=generator, dtype=mean.dtype, device=mean.device)
        return mean + outputs[..., -1:].exp() * drawn

    def bias(self, means: Tensor) -> Tensor:
        return torch.cat([means, means.new_full((1,), math.log(0.3))])


def make_likelihood(name: str) -> Likelihood:
    """Return the likelihood called `name`.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    return LIKELIHOODS.make(name)
