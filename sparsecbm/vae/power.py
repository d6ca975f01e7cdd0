"""Bernoulli latents smoothed by two overlapping power functions (Vahdat, Andriyash & Macready 2018, DVAE#)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm.vae.latents import BernoulliLatents


class PowerLatents(BernoulliLatents):
    """zeta has CDF zeta^t where z = 0 and 1 - (1 - zeta)^t where z = 1, with t the temperature, at most 1.

    A sample is the log-odds of zeta.
    The CDF of the mixture has no inverse in closed form: a sample is drawn by way of z, and its gradient is that of the
    mixture by implicit differentiation, -(dF / d logits) / f.
    """

    concrete = False

    def value(self, logits: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        if temperature > 1:
            raise InputError(f"temperature={temperature:g}: power functions need at most 1, where both are uniform")
        with torch.no_grad():
            # Seen from the end that z chose, up to a sign: the distance to it, `near`, has CDF near^t.
            sign = torch.where(logits + drawn > 0, 1.0, -1.0).to(logits)
            log_rank = (F.logsigmoid(-sign * drawn) - F.logsigmoid(sign * logits)).clamp(max=-1e-6)
            log_near, rank = log_rank / temperature, log_rank.exp()
            near = log_near.exp()
            log_far = torch.log(-torch.expm1(log_near))
            far_mass = (temperature * log_far).exp()
            own = (sign * logits).sigmoid()
            tilt = own * (1 - own) * (rank + torch.expm1(temperature * log_far))
            slope = tilt / (temperature * (own * rank * log_far.exp() + (1 - own) * far_mass * near))
            value = sign * (log_far - log_near)
        return value + slope * (logits - logits.detach())

    def log_density(self, logits: Tensor, value: Tensor, temperature: float) -> Tensor:
        low, high = F.logsigmoid(value), F.logsigmoid(-value)
        ends = F.logsigmoid(-logits) + temperature * low + high, F.logsigmoid(logits) + temperature * high + low
        return (math.log(temperature) + torch.logaddexp(*ends)).sum(-1)
