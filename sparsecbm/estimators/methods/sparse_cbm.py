"""SparseCBM's published models under a budget, and this package's own at points of its frontier."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.parameters import Count, Seed, Text
from sparsecbm.estimators.methods.base import ConceptMethod, Rows
from sparsecbm.estimators.sparse_cbm import SparseCBMClassifier


class PublishedSparseCBM(ConceptMethod):
    """The authors' layer, head and loss (Semenov et al. 2024, arXiv 2404.03323), with a budget.

    ``SparseCBMClassifier(variant="published")``: units W_CBL psi of raw scaled cosines, W_CBL (M, M) untied, trained
    with cross-entropy and the loss "gumbel", "contrastive" or "l1". With ``concepts_per_class=k`` the trained head
    gives way to the published rule for a budget (`ConceptMethod`).

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        None: the authors' dense head.
    loss : {"gumbel", "contrastive", "l1", "similarity", "none"}
    learning_rate : float
    steps : int
    random_state : int, RandomState or None
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        loss: Text = "gumbel",
        learning_rate: float = 1e-3,
        steps: Count = 300,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.loss = loss
        self.learning_rate = learning_rate
        self.steps = steps
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        model = SparseCBMClassifier(
            self.concept_embeddings_, self.concept_names_, variant="published", loss=self.loss, verbose=False,
            learning_rate=self.learning_rate, max_iter=self.steps, random_state=self._seed, device="cpu",
        ).fit(rows, labels)  # fmt: skip
        weight, bias = model.bottleneck_.weight, model.bottleneck_.bias
        self._W, self._b = model.head_weights_, model.head_intercept_
        self._keep(weight.double().numpy(), bias.double().numpy())

    def _own_head(self, A: Rows, labels: NDArray[np.int64]) -> tuple[Rows, Rows]:
        return self._W, self._b


gumbel = partial(PublishedSparseCBM, loss="gumbel")
contrastive = partial(PublishedSparseCBM, loss="contrastive")
l1 = partial(PublishedSparseCBM, loss="l1")

earned_8 = partial(SparseCBMClassifier, max_active_concepts=8)
earned_32 = partial(SparseCBMClassifier, max_active_concepts=32)
exact_32 = partial(SparseCBMClassifier, max_active_concepts=32, tie="exact")
