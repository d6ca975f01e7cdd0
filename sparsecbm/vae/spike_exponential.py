"""Bernoulli latents smoothed by a spike and an exponential (Rolfe 2017, discrete variational autoencoders)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm.vae.latents import BernoulliLatents

_SHARPEST = 80.0  # beyond it exp leaves float32


class SpikeExponentialLatents(BernoulliLatents):
    """zeta is 0 where z = 0, and of density ~ exp(zeta / temperature) on [0, 1] where z = 1; a sample is zeta itself.

    Samples invert the mixture's CDF. The spike has no density that could be differentiated: objective ``density`` is
    refused.
    """

    concrete = False

    def value(self, logits: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        sharp = min(1 / temperature, _SHARPEST)
        left = (F.logsigmoid(-drawn) - F.logsigmoid(logits)).clamp(max=0)  # log((1 - u) / p(z = 1))
        return (-torch.expm1(left) * math.expm1(sharp)).log1p() / sharp

    def soft(self, value: Tensor) -> Tensor:
        return value

    def log_density(self, logits: Tensor, value: Tensor, temperature: float) -> Tensor:
        raise InputError("latents 'spike_exponential' have no density at their spike; use objective 'analytic'")
