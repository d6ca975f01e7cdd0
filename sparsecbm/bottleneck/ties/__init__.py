"""Ties: how far a unit may turn away from its concept's score, one file each; named in `sparsecbm._base.parts`."""

from __future__ import annotations

from sparsecbm._base.parts import TIES
from sparsecbm.bottleneck.ties.base import ConceptGeometry, Tie, Tied, hand_out

__all__ = ["TIES", "ConceptGeometry", "Tie", "Tied", "hand_out", "make_tie"]


def make_tie(name: str, min_alignment: float | None = None, min_survival: float | None = None) -> Tie:
    """Build a tie by its registered name; raises InputError, naming the nearest, for an unknown one."""
    return TIES.find(name)(min_alignment, min_survival)
