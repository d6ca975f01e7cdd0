"""Perturb-and-MAP: sampling and partition functions from the maxima of randomly perturbed log-potentials.

Source: Balog, Tripuraneni, Ghahramani & Weller 2017, "Lost Relatives of the Gumbel Trick" (arXiv 1706.04161).
"""

from sparsecbm.samplers.perturb.bounds import BoundEstimate, lower_bound, perturbed_values, upper_bound
from sparsecbm.samplers.perturb.full import gumbel_max_sample, perturbed_maxima
from sparsecbm.samplers.perturb.graph import PairwiseModel, grid_model
from sparsecbm.samplers.perturb.mincut import min_cut_map
from sparsecbm.samplers.perturb.sequential import SequentialSampler, SequentialSamples
from sparsecbm.samplers.perturb.tricks import (
    TRICKS,
    ExponentialTrick,
    FrechetTrick,
    GumbelTrick,
    ParetoTrick,
    TailTrick,
    Trick,
    WeibullTrick,
    make_trick,
)

__all__ = [
    "TRICKS",
    "BoundEstimate",
    "ExponentialTrick",
    "FrechetTrick",
    "GumbelTrick",
    "PairwiseModel",
    "ParetoTrick",
    "SequentialSampler",
    "SequentialSamples",
    "TailTrick",
    "Trick",
    "WeibullTrick",
    "grid_model",
    "gumbel_max_sample",
    "lower_bound",
    "make_trick",
    "min_cut_map",
    "perturbed_maxima",
    "perturbed_values",
    "upper_bound",
]
