"""Training objectives, by the name that configurations use."""

from __future__ import annotations

from typing import Any

from sparsecbm._base.errors import unknown
from sparsecbm.vae.objectives.analytic import AnalyticObjective
from sparsecbm.vae.objectives.base import Objective, ObjectiveValue, log_mean_exp
from sparsecbm.vae.objectives.density import DensityObjective
from sparsecbm.vae.objectives.exact import ExactObjective, exact_log_likelihood
from sparsecbm.vae.objectives.mass import MassObjective
from sparsecbm.vae.objectives.score_function import ScoreFunctionObjective

OBJECTIVES: dict[str, type[Objective]] = {
    kind.name: kind
    for kind in (MassObjective, DensityObjective, AnalyticObjective, ScoreFunctionObjective, ExactObjective)
}
"""Objectives by name."""

__all__ = [
    "OBJECTIVES",
    "AnalyticObjective",
    "DensityObjective",
    "ExactObjective",
    "MassObjective",
    "Objective",
    "ObjectiveValue",
    "ScoreFunctionObjective",
    "exact_log_likelihood",
    "log_mean_exp",
    "make_objective",
]


def make_objective(name: str, **options: Any) -> Objective:
    """Return the objective called `name`.

    Raises
    ------
    InputError
        If the name is unknown or an option does not fit.
    """
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name](**options)
