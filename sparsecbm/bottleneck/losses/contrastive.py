"""The contrastive losses: images against classes with positives from the data; and as published, against positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecbm._base.rows import unit_rows
from sparsecbm.bottleneck.losses.base import Batch, ConceptLoss


class ContrastiveLoss(ConceptLoss):
    """Symmetric InfoNCE between an image's activations and the relevance of the concepts for its class.

    logits_ik = cos(activations_i, relevance_k) / temperature. Rows: each image against all K classes. Columns: each
    class in the batch against all images, its positives being all of its own images (the supervised form of Khosla et
    al. 2020, arXiv 2004.11362, eq. 2). The mean of the two directions.

    Parameters
    ----------
    relevance : Tensor of shape (K, M)
        How much each concept belongs to each class: given by the user, or the positive part of the mean standardised
        score of the class over training images.
    temperature : float
        Positive.
    """

    name = "contrastive"
    default_weight = 0.5
    whole_batch = True
    needs_relevance = True

    def __init__(self, relevance: Tensor, temperature: float = 0.1) -> None:
        self.relevance = torch.from_numpy(unit_rows(relevance, dtype=np.float32))
        self.temperature = temperature

    def __call__(self, batch: Batch) -> Tensor:
        relevance = self.relevance.to(batch.activations)
        logits = F.normalize(batch.activations, dim=1) @ relevance.T / self.temperature
        images = F.cross_entropy(logits, batch.labels)
        positive = F.one_hot(batch.labels, len(relevance)).to(logits)
        log_share = F.log_softmax(logits, dim=0)
        counts = positive.sum(0)
        present = counts > 0
        classes = -((log_share * positive).sum(0)[present] / counts[present]).mean()
        return (images + classes) / 2


class PublishedContrastiveLoss(ConceptLoss):
    """The authors' formula: InfoNCE on the diagonal of the (B x M) units, row i paired with column i.

    Batch position i is taken to match concept number i, so concepts beyond the batch size are never a positive and the
    pairing changes with every shuffle (see the test that shows it). Kept as a labelled baseline.
    """

    name = "contrastive"
    whole_batch = True

    def __call__(self, batch: Batch) -> Tensor:
        columns = torch.diagonal(F.log_softmax(batch.units, dim=0))
        rows = torch.diagonal(F.log_softmax(batch.units, dim=1))
        return -(columns.mean() + rows.mean()) / 2
