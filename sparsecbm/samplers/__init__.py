"""Gumbel, Concrete and RBM samplers: one small room that needs torch alone and knows nothing of the rest.

See README.md beside this file for a picture of each distribution and a comparison with other libraries.
"""

from sparsecbm.samplers.chains import (
    GibbsSampler,
    ParallelTempering,
    PersistentChains,
    effective_sample_size,
    gibbs_sweep,
    population_annealing,
    split_r_hat,
)
from sparsecbm.samplers.concrete import BinaryConcrete, Concrete, ConcreteDraw, Independent, straight_through
from sparsecbm.samplers.noise import bernoulli, categorical, exponential, gumbel, logistic, normal, uniform
from sparsecbm.samplers.partition import (
    adaptive_betas,
    annealed_importance_sampling,
    bridge_estimate,
    reverse_annealed_importance_sampling,
)
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine
from sparsecbm.samplers.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical
from sparsecbm.samplers.schedules import make_schedule
from sparsecbm.samplers.top_k import hard_top_k, relaxed_top_k

__all__ = [
    "BinaryConcrete",
    "Concrete",
    "ConcreteDraw",
    "GibbsSampler",
    "Independent",
    "ParallelTempering",
    "PersistentChains",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "RestrictedBoltzmannMachine",
    "adaptive_betas",
    "annealed_importance_sampling",
    "bernoulli",
    "bridge_estimate",
    "categorical",
    "effective_sample_size",
    "exponential",
    "gibbs_sweep",
    "gumbel",
    "hard_top_k",
    "logistic",
    "make_schedule",
    "normal",
    "population_annealing",
    "relaxed_top_k",
    "reverse_annealed_importance_sampling",
    "split_r_hat",
    "straight_through",
    "uniform",
]
