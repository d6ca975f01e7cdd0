"""What a discrete-latent model can be trained for."""

from sparsecbm.vae.latents import ESTIMATORS
from sparsecbm.vae.tasks.autoencoder import AutoencoderTask
from sparsecbm.vae.tasks.base import StepContext, Task
from sparsecbm.vae.tasks.density import DensityTask
from sparsecbm.vae.tasks.semisupervised import LabelledVAE, SemiSupervisedTask, choose_labelled
from sparsecbm.vae.tasks.stochastic import StochasticNetwork, StochasticTask
from sparsecbm.vae.tasks.structured import StructuredTask
from sparsecbm.vae.tasks.toy import VERSIONS, GradientQuality, gradient_quality, measure_exactly, state_pictures

__all__ = [
    "ESTIMATORS",
    "VERSIONS",
    "AutoencoderTask",
    "DensityTask",
    "GradientQuality",
    "LabelledVAE",
    "SemiSupervisedTask",
    "StepContext",
    "StochasticNetwork",
    "StochasticTask",
    "StructuredTask",
    "Task",
    "choose_labelled",
    "gradient_quality",
    "measure_exactly",
    "state_pictures",
]
