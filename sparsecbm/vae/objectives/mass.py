"""Relaxed samples put into the discrete log-masses."""

from __future__ import annotations

from sparsecbm._base.errors import InputError
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import Objective


class MassObjective(Objective):
    """``log p(zeta) - log q(zeta | x)`` with the discrete masses at the relaxed state zeta (Jang et al. 2017).

    With an RBM prior this is GumBolt (Khoshaman & Amin 2018, eq. 10). Neither mass is a density of zeta, so it is no
    bound while the temperature is above 0; with hard samples it is the evidence lower bound of the discrete model.
    """

    name = "mass"

    def check(self, model: DiscreteVAE) -> None:
        if self.mode == "relaxed" and not model.latents.concrete:
            raise InputError(
                "objective 'mass' is exploited by a relaxation other than the Concrete one, where it rises far above "
                "log p(x); use 'analytic', or straight_through: true"
            )
