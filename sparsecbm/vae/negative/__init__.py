"""Negative phases of an RBM prior, by the name that configurations use."""

from __future__ import annotations

from sparsecbm._base.errors import unknown
from sparsecbm.samplers import RestrictedBoltzmannMachine
from sparsecbm.vae.negative.annealing import AnnealingNegative
from sparsecbm.vae.negative.base import NegativePhase
from sparsecbm.vae.negative.exact import ExactNegative
from sparsecbm.vae.negative.persistent import PersistentNegative

NEGATIVE_PHASES: dict[str, type[NegativePhase]] = {
    kind.name: kind for kind in (PersistentNegative, AnnealingNegative, ExactNegative)
}
"""Negative phases by name."""

__all__ = [
    "NEGATIVE_PHASES",
    "AnnealingNegative",
    "ExactNegative",
    "NegativePhase",
    "PersistentNegative",
    "make_negative_phase",
]


def make_negative_phase(
    name: str, rbm: RestrictedBoltzmannMachine, *, seed: int, chains: int = 100, sweeps: int = 10
) -> NegativePhase:
    """Return the negative phase called `name`.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if name not in NEGATIVE_PHASES:
        raise unknown("negative phase", name, NEGATIVE_PHASES)
    return NEGATIVE_PHASES[name](rbm, seed=seed, chains=chains, sweeps=sweeps)  # type: ignore[call-arg]
