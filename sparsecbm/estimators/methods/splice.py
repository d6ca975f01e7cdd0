"""SpLiCE and a linear head on its codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.parameters import Count, NonNegative, OpenShare, Seed
from sparsecbm.estimators.methods.base import ConceptMethod, Rows
from sparsecbm.estimators.sparse_decomposer import SparseDecomposer


class SpliceCBM(ConceptMethod):
    """A linear head on SpLiCE's sparse non-negative codes (Bhalla et al. 2024, arXiv 2402.10376).

    Activations are the codes of `SparseDecomposer`: minimise over w >= 0 ``1/2 |x - C'w|^2 + alpha sum_j w_j``, image
    and texts centred by their own means. Labels take no part in them. The head is an elastic net.

    Deviations: codes are solved to a duality gap of 1e-6 and divided by their mean spread; concept scores (X without
    concept embeddings) are decomposed over the axes.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        Budget of the head; None: penalty `lam`.
    alpha : float
        Of the decomposition; SpLiCE's ``l1_penalty`` is twice it.
    max_concepts : int or None
        At most so many a picture, in place of `alpha`.
    lam : float
    random_state : int, RandomState or None
        Nothing is drawn.
    """

    draws = False

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        alpha: OpenShare = 0.125,
        max_concepts: Count | None = None,
        lam: NonNegative = 1e-4,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.alpha = alpha
        self.max_concepts = max_concepts
        self.lam = lam
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        self.image_mean_, self.code_scale_ = rows.mean(axis=0), np.ones(1)
        codes = self._activate(rows)
        self.code_scale_ = np.array([float(np.sqrt(codes.var(axis=0).mean())) or 1.0])
        self._keep(*self._standardised_scores(rows))

    def _activate(self, rows: Rows) -> Rows:
        bank = np.eye(rows.shape[1]) if self.concept_embeddings_ is None else self.concept_embeddings_
        known = None if self.concept_embeddings_ is None else self.image_mean_
        made = SparseDecomposer(
            bank, alpha=self.alpha, max_concepts=self.max_concepts, image_mean=known, center=known is not None,
            tolerance=1e-6, verbose=False,
        ).fit(bank)  # fmt: skip
        lengths = np.linalg.norm(rows, axis=1)
        codes = np.zeros((len(rows), len(bank)))
        codes[lengths > 0] = made.transform(rows[lengths > 0])
        return codes / self.code_scale_

    def _shapes(self, k: int, m: int, d: int) -> dict[str, tuple[int, ...]]:
        return super()._shapes(k, m, d) | {"image_mean_": (d,), "code_scale_": (1,)}
