"""Res-CBM: what a first set of concepts misses is learned as vectors, which become words of a larger bank."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.parameters import Count, NonNegative, Positive, Seed
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, snap
from sparsecbm.estimators.methods.lm4cv import learn_vectors


class ResidualCBM(ConceptMethod):
    """Incremental residual concept bottleneck (Shang et al. 2024, arXiv 2404.08978).

    Scores of a base set of concepts are read beside `n_residual` learned vectors, trained with cross-entropy plus
    their distance from the nearest candidate; each vector is then replaced by that candidate, which joins the
    concepts, and the head is fitted on all.

    Deviations: the base set are the `base_per_class` concepts along which each class stands out most (the paper takes
    a given list), the candidates are the rest of the bank; all vectors are learned at once, not one by one; the head is
    an elastic net.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        Budget of the head; None: penalty `lam`.
    base_per_class : int
    n_residual : int or None
        None: as many as classes; never more than there are candidates.
    similarity_weight : float
        Of the distance from the nearest candidate.
    lam : float
    steps, batch_size, learning_rate
        Of Adam.
    random_state : int, RandomState or None

    Attributes
    ----------
    discovered_ : ndarray of shape (n_residual,)
        Numbers, among `concept_names_`, of the concepts that came by residual vectors.
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        base_per_class: Count = 3,
        n_residual: Count | None = None,
        similarity_weight: NonNegative = 0.1,
        lam: NonNegative = 1e-4,
        steps: Count = 500,
        batch_size: Count = 512,
        learning_rate: Positive = 1e-2,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.base_per_class = base_per_class
        self.n_residual = n_residual
        self.similarity_weight = similarity_weight
        self.lam = lam
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        m, k = len(self.concept_names_), len(self.classes_)
        bank = np.eye(m) if self.concept_embeddings_ is None else self.concept_embeddings_.astype(np.float64)
        weights, bias = self._standardised_scores(rows)
        scores = rows @ weights.T + bias
        fits = np.stack([scores[labels == y].mean(axis=0) for y in range(k)])
        base = np.unique(np.argsort(-fits, axis=1, kind="stable")[:, : self.base_per_class])
        candidates = np.setdiff1d(np.arange(m), base)
        found = np.zeros(0, dtype=np.int64)
        if len(candidates):
            count = min(self.n_residual or k, len(candidates))
            options = {"steps": self.steps, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
            words = bank[candidates]
            vectors = learn_vectors(
                rows, labels, bank[base], count, words, seed=self._seed, near=self.similarity_weight, **options
            )
            middle = words.mean(axis=0)
            found = candidates[snap(vectors - middle, words - middle)]
        chosen = np.concatenate([base, found])
        self.discovered_ = np.arange(len(base), len(chosen))
        self._keep(weights[chosen], bias[chosen], chosen)
