"""Markov chains over restricted Boltzmann machines, and diagnostics of their convergence."""

from sparsecbm.samplers.chains.annealing import PopulationResult, population_annealing
from sparsecbm.samplers.chains.diagnostics import effective_sample_size, split_r_hat
from sparsecbm.samplers.chains.gibbs import GibbsSampler, PersistentChains, gibbs_sweep
from sparsecbm.samplers.chains.tempering import ParallelTempering, swap_log_acceptance

__all__ = [
    "GibbsSampler",
    "ParallelTempering",
    "PersistentChains",
    "PopulationResult",
    "effective_sample_size",
    "gibbs_sweep",
    "population_annealing",
    "split_r_hat",
    "swap_log_acceptance",
]
