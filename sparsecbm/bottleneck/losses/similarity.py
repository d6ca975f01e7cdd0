"""The similarity losses: each unit should vary over a batch as its own concept score does."""

from __future__ import annotations

from torch import Tensor

from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss


def concept_cosines(scores: Tensor, units: Tensor, cubed: bool) -> Tensor:
    """Cosine over the batch of each unit with its concept score, both batch-centred and optionally cubed.

    Parameters
    ----------
    scores, units : Tensor of shape (n, M)
        Concept scores and units.
    cubed : bool
        Raise both to the third power after centring (the "cos cubed" of Label-free CBM, arXiv 2304.06129, eq. 1).

    Returns
    -------
    Tensor of shape (M,)
    """
    scores = scores - scores.mean(0)
    units = units - units.mean(0)
    if cubed:
        scores, units = scores**3, units**3
    return (scores * units).sum(0) / (scores.norm(dim=0) * units.norm(dim=0)).clamp_min(1e-12)


class SimilarityLoss(ConceptLoss):
    """Minus the mean over concepts of the cosine between the batch-centred score and unit, cubed."""

    name = "similarity"
    needs_scores = True
    whole_batch = True

    def __init__(self, cubed: bool = True) -> None:
        self.cubed = cubed

    def __call__(self, batch: Batch) -> Tensor:
        assert batch.scores is not None
        return -concept_cosines(batch.scores, batch.units, self.cubed).mean()


class PublishedSimilarityLoss(SimilarityLoss):
    """The authors' default: the same formula, not cubed, on the untied published layer."""

    def __init__(self) -> None:
        super().__init__(cubed=False)
