"""Discrete-latent variational autoencoders on the shared samplers: Gumbel-Softmax, Concrete, GumBolt.

See README.md beside this file for what each objective is a bound on.
"""

from sparsecbm._base.parts import LATENTS
from sparsecbm.vae.data import DATA_SETS, Pictures, load_pictures, split_pictures
from sparsecbm.vae.evaluation import LikelihoodEstimate, estimate_log_likelihood, estimate_log_partition
from sparsecbm.vae.latents import make_latents
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.negative import NEGATIVE_PHASES, NegativePhase, make_negative_phase
from sparsecbm.vae.objectives import OBJECTIVES, Objective, exact_log_likelihood, make_objective
from sparsecbm.vae.posterior import Posterior, PosteriorDraw
from sparsecbm.vae.priors import PRIORS, LogPartition, Prior, make_prior
from sparsecbm.vae.storage import load_vae, save_vae
from sparsecbm.vae.tasks import DensityTask, Task
from sparsecbm.vae.training import Trainer, TrainingOptions

__all__ = [
    "DATA_SETS",
    "LATENTS",
    "NEGATIVE_PHASES",
    "OBJECTIVES",
    "PRIORS",
    "DensityTask",
    "DiscreteVAE",
    "LikelihoodEstimate",
    "LogPartition",
    "NegativePhase",
    "Objective",
    "Pictures",
    "Posterior",
    "PosteriorDraw",
    "Prior",
    "Task",
    "Trainer",
    "TrainingOptions",
    "estimate_log_likelihood",
    "estimate_log_partition",
    "exact_log_likelihood",
    "load_pictures",
    "load_vae",
    "make_latents",
    "make_negative_phase",
    "make_objective",
    "make_prior",
    "save_vae",
    "split_pictures",
]
