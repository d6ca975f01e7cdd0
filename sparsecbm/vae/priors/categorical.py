"""Independent categorical latents."""

from __future__ import annotations

from sparsecbm.vae.priors.factorial import FactorialPrior


class CategoricalPrior(FactorialPrior):
    """p(z) = prod_i Categorical(z_i; softmax(logits_i)); see :class:`FactorialPrior`."""

    name = "categorical"
    kinds = ("categorical",)
