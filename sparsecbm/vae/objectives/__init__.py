"""Training objectives; their names are lines of `sparsecbm._base.parts`."""

from __future__ import annotations

from typing import Any

from sparsecbm._base.parts import OBJECTIVES
from sparsecbm.vae.objectives.base import Objective, ObjectiveValue, log_mean_exp
from sparsecbm.vae.objectives.exact import exact_log_likelihood

__all__ = ["OBJECTIVES", "Objective", "ObjectiveValue", "exact_log_likelihood", "log_mean_exp", "make_objective"]


def make_objective(name: str, **options: Any) -> Objective:
    """Return the objective called `name`.

    Raises
    ------
    InputError
        If the name or an option is unknown, or an option does not fit.
    """
    return OBJECTIVES.make(name, **options)
