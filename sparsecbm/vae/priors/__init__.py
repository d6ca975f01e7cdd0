"""Priors over the discrete latents; their names are lines of `sparsecbm._base.parts`."""

from __future__ import annotations

from typing import Any

import torch

from sparsecbm._base.parts import PRIORS
from sparsecbm.vae.latents import Latents
from sparsecbm.vae.priors.base import LogPartition, Prior

__all__ = ["PRIORS", "LogPartition", "Prior", "make_prior"]


def make_prior(name: str, latents: Latents, *, generator: torch.Generator | None = None, **options: Any) -> Prior:
    """Return the prior called `name` over `latents`.

    Raises
    ------
    InputError
        If the name or an option is unknown, or the prior is not over latents of this kind.
    """
    return PRIORS.make(name, latents, generator=generator, **options)
