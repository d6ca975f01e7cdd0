"""Score-function gradients: hard samples, no relaxation, a baseline against the variance."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import Objective, ObjectiveValue, log_mean_exp
from sparsecbm.vae.posterior import PosteriorDraw


class ScoreFunctionObjective(Objective):
    """The discrete bound with unbiased gradients: ``(signal - baseline) grad log q(z | x)`` (Williams 1992).

    Notes
    -----
    K = 1: the baseline is a moving average of the signal over past steps. K > 1: VIMCO (Mnih & Rezende 2016), each
    sample's baseline is the bound with its log-weight replaced by the mean of the others'. Baselines do not depend on
    the sample they serve, so the gradient stays unbiased.

    Parameters
    ----------
    samples : int, default=1
    decay : float, default=0.9
        Of the moving average, a step.
    """

    name = "score_function"
    mode = "hard"
    baseline: Tensor
    steps: Tensor

    def __init__(self, samples: int = 1, *, straight_through: bool = False, decay: float = 0.9) -> None:
        super().__init__(samples, straight_through=straight_through)
        self.decay = decay
        self.register_buffer("baseline", torch.zeros(()))
        self.register_buffer("steps", torch.zeros(()))

    def value(self, model: DiscreteVAE, x: Tensor, draw: PosteriorDraw, beta: float = 1.0) -> ObjectiveValue:
        log_likelihood = model.log_likelihood(x, draw.state)
        log_posterior = model.latents.log_mass(draw.logits, draw.state)
        log_ratio = model.prior.log_mass(draw.state) - log_posterior
        log_weights = log_likelihood + beta * log_ratio
        signal, bound = self.signal(log_weights.detach())
        # sum_k w_k grad log w_k is the gradient through the weights, for K = 1 grad log w itself.
        surrogate = (log_weights.detach().softmax(0) * log_weights + signal * log_posterior).sum(0)
        return ObjectiveValue(surrogate, bound, log_likelihood.detach().mean(0), log_ratio.detach().mean(0))

    def signal(self, log_weights: Tensor) -> tuple[Tensor, Tensor]:
        """Return what multiplies grad log q of each sample, (samples, B), and the bound, (B,)."""
        bound = log_mean_exp(log_weights)
        if len(log_weights) == 1:
            signal = log_weights - self.baseline / (1 - self.decay**self.steps).clamp(min=1e-12)
            if self.training:
                self.baseline.lerp_(bound.mean().to(self.baseline.dtype), 1 - self.decay)
                self.steps += 1
            return signal, bound
        total = log_weights.sum(0, keepdim=True)
        others = (total - log_weights) / (len(log_weights) - 1)
        # Row j of `swapped` holds the log-weights with the j-th replaced by the mean of the others.
        own = torch.eye(len(log_weights), dtype=torch.bool, device=log_weights.device).unsqueeze(-1)
        swapped = torch.where(own, others.unsqueeze(1), log_weights.unsqueeze(0))
        return bound - log_mean_exp(swapped, 1), bound
