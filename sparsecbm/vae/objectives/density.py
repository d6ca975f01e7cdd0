"""The ratio of Concrete densities: the evidence lower bound of the relaxed model."""

from __future__ import annotations

from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import Objective, log_mass_ratio
from sparsecbm.vae.posterior import PosteriorDraw


class DensityObjective(Objective):
    """``log g_prior(y) - log g_posterior(y)`` with the Concrete densities of the relaxed sample (Maddison et al. 2017).

    The one objective that bounds a likelihood at every temperature: that of the *relaxed* model, whose latents are
    Concrete variables. With hard samples, which have no density, the masses of the discrete model take its place.

    Parameters
    ----------
    samples, straight_through
        As for :class:`Objective`.
    prior_temperature : float or None
        Temperature of the relaxed prior; None takes the posterior's.
    """

    name = "density"

    def __init__(
        self, samples: int = 1, *, straight_through: bool = False, prior_temperature: float | None = None
    ) -> None:
        super().__init__(samples, straight_through=straight_through)
        if prior_temperature is not None and not prior_temperature > 0:
            raise InputError(f"prior_temperature={prior_temperature!r}: expected a positive number")
        self.prior_temperature = prior_temperature

    def check(self, model: DiscreteVAE) -> None:
        if not model.prior.relaxes:
            raise InputError(
                f"prior {model.prior.name!r} has no Concrete density, which objective 'density' needs; use 'mass'"
            )

    def log_ratio(self, model: DiscreteVAE, draw: PosteriorDraw) -> Tensor:
        if draw.value is None or draw.temperature is None:
            return log_mass_ratio(model, draw)
        self.check(model)
        prior_temperature = self.prior_temperature or draw.temperature
        prior = model.prior.log_density(draw.value, prior_temperature)
        return prior - model.latents.log_density(draw.logits, draw.value, draw.temperature)
