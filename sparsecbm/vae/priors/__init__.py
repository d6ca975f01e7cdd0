"""Priors over the discrete latents, by the name that configurations use."""

from __future__ import annotations

from typing import Any

import torch

from sparsecbm._base.errors import unknown
from sparsecbm.vae.latents import Latents
from sparsecbm.vae.priors.base import Prior
from sparsecbm.vae.priors.factorial import BernoulliPrior, CategoricalPrior
from sparsecbm.vae.priors.rbm import RBMPrior

PRIORS: dict[str, type[Prior]] = {kind.name: kind for kind in (BernoulliPrior, CategoricalPrior, RBMPrior)}
"""Priors by name."""

__all__ = ["PRIORS", "BernoulliPrior", "CategoricalPrior", "Prior", "RBMPrior", "make_prior"]


def make_prior(name: str, latents: Latents, *, generator: torch.Generator | None = None, **options: Any) -> Prior:
    """Return the prior called `name` over `latents`.

    Raises
    ------
    InputError
        If the name is unknown or the prior is not over latents of this kind.
    """
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    return PRIORS[name](latents, generator=generator, **options)  # type: ignore[call-arg]
