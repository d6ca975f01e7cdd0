"""Negative phases of an RBM prior; their names are lines of `sparsecbm._base.parts`."""

from __future__ import annotations

from typing import Any

from sparsecbm._base.parts import NEGATIVE_PHASES
from sparsecbm.samplers import RestrictedBoltzmannMachine
from sparsecbm.vae.negative.base import NegativePhase

__all__ = ["NEGATIVE_PHASES", "NegativePhase", "make_negative_phase"]


def make_negative_phase(name: str, rbm: RestrictedBoltzmannMachine, *, seed: int, **options: Any) -> NegativePhase:
    """Return the negative phase called `name`, with its `chains` and `sweeps`.

    Raises
    ------
    InputError
        If the name or an option is unknown.
    """
    return NEGATIVE_PHASES.make(name, rbm, seed=seed, **options)
