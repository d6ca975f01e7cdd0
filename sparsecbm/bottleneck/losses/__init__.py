"""Concept losses, one file each. `LOSSES` maps a name to its default and its published form."""

from __future__ import annotations

from torch import Tensor

from sparsecbm._base.errors import unknown
from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss
from sparsecbm.bottleneck.losses.contrastive import ContrastiveLoss, PublishedContrastiveLoss
from sparsecbm.bottleneck.losses.gumbel import GumbelLoss, PublishedGumbelLoss
from sparsecbm.bottleneck.losses.l1 import L1Loss, PublishedL1Loss
from sparsecbm.bottleneck.losses.none import NoLoss
from sparsecbm.bottleneck.losses.similarity import PublishedSimilarityLoss, SimilarityLoss

LOSSES: dict[str, dict[str, type[ConceptLoss]]] = {
    "gumbel": {"default": GumbelLoss, "published": PublishedGumbelLoss},
    "contrastive": {"default": ContrastiveLoss, "published": PublishedContrastiveLoss},
    "l1": {"default": L1Loss, "published": PublishedL1Loss},
    "similarity": {"default": SimilarityLoss, "published": PublishedSimilarityLoss},
    "none": {"default": NoLoss, "published": NoLoss},
}


def loss_class(name: str, variant: str = "default") -> type[ConceptLoss]:
    """Look up a loss; raises InputError, naming the nearest, for an unknown name or variant."""
    if name not in LOSSES:
        raise unknown("loss", name, LOSSES)
    if variant not in LOSSES[name]:
        raise unknown("variant", variant, LOSSES[name])
    return LOSSES[name][variant]


def make_loss(name: str, variant: str = "default", relevance: Tensor | None = None) -> ConceptLoss:
    """Build a loss by its registered name; `relevance` (K, M) goes to the losses that need it."""
    kind = loss_class(name, variant)
    return kind(relevance) if kind.needs_relevance else kind()  # type: ignore[call-arg]


__all__ = ["LOSSES", "Batch", "ConceptLoss", "loss_class", "make_loss"]
