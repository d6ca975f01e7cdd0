"""Concept losses, one file each; their names are lines of `sparsecbm._base.parts`."""

from __future__ import annotations

from torch import Tensor

from sparsecbm._base.errors import unknown
from sparsecbm._base.parts import LOSSES, PUBLISHED_LOSSES
from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss

_VARIANTS = {"default": LOSSES, "published": PUBLISHED_LOSSES}


def loss_class(name: str, variant: str = "default") -> type[ConceptLoss]:
    """Look up a loss; raises InputError, naming the nearest, for an unknown name or variant."""
    if variant not in _VARIANTS:
        raise unknown("variant", variant, _VARIANTS)
    LOSSES.check(name)
    return _VARIANTS[variant].find(name)


def make_loss(name: str, variant: str = "default", relevance: Tensor | None = None) -> ConceptLoss:
    """Build a loss by its registered name; `relevance` (K, M) goes to the losses that need it."""
    kind = loss_class(name, variant)
    return kind(relevance) if kind.needs_relevance else kind()  # type: ignore[call-arg]


__all__ = ["LOSSES", "PUBLISHED_LOSSES", "Batch", "ConceptLoss", "loss_class", "make_loss"]
