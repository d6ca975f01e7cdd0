"""The closed-form KL divergence of the discrete distributions."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import Objective, ObjectiveValue, log_mass_ratio, log_mean_exp
from sparsecbm.vae.posterior import PosteriorDraw


class AnalyticObjective(Objective):
    """``log p(x | zeta) - KL(q(z | x) || p(z))``, the KL of the discrete distributions in closed form.

    Notes
    -----
    Each group's part of the KL is exact given the states of the groups before it: the log-mass of the posterior is
    linear in each variable, that of a factorial prior too, and that of an RBM is multilinear, so that the last group
    is summed out of it by its mean; earlier groups enter it by their samples. A factorial posterior has one group.

    For K > 1 the closed form cannot simply take the place of the sampled KL: ``log 1/K sum p(x | z_k) - KL`` may
    *exceed* log p(x). Here the difference of the closed form and the sampled KL is added to the importance-weighted
    bound. With hard samples its mean is zero, so the result is a bound in expectation for every K, the same as that of
    ``mass``; for K = 1 the sampled KL cancels.
    """

    name = "analytic"

    def value(self, model: DiscreteVAE, x: Tensor, draw: PosteriorDraw, beta: float = 1.0) -> ObjectiveValue:
        log_likelihood = model.log_likelihood(x, draw.state)
        expected = self.log_ratio(model, draw)
        if len(log_likelihood) == 1:
            surrogate = (log_likelihood + beta * expected)[0]
        else:
            sampled = log_mass_ratio(model, draw)
            surrogate = log_mean_exp(log_likelihood + beta * sampled) + beta * (expected - sampled).mean(0)
        return ObjectiveValue(surrogate, surrogate.detach(), log_likelihood.detach().mean(0), expected.detach().mean(0))

    def log_ratio(self, model: DiscreteVAE, draw: PosteriorDraw) -> Tensor:
        """Return minus the KL given the samples of all groups but the last, shape (samples or 1, B)."""
        mean = model.latents.mean(draw.logits)
        state = mean
        if not model.prior.linear and (last := model.posterior.last_group):
            state = torch.cat([draw.state[..., :last], mean[..., last:]], -1)
        return model.prior.log_mass(state) + model.latents.entropy(draw.logits)
