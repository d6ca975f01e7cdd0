"""Independent Bernoulli latents."""

from __future__ import annotations

from sparsecbm.vae.priors.factorial import FactorialPrior


class BernoulliPrior(FactorialPrior):
    """p(z) = prod_i Bernoulli(z_i; sigmoid(logit_i)); see :class:`FactorialPrior`."""

    name = "bernoulli"
    kinds = ("bernoulli",)
