"""LaBo: concepts chosen class by class, a class-concept matrix that starts from whose concept it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from typing_extensions import Self

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, NonNegative, Positive, Seed
from sparsecbm._base.rows import unit_rows
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, descend, spread


class LaBo(ConceptMethod):
    """Language in a Bottle (Yang et al. 2023, arXiv 2211.11158).

    Each class y chooses k of its candidates S_y, greedily maximising the submodular

        F(C) = discriminability * sum_{c in C} D(c) + coverage * sum_{s in S_y} max_{c in C} phi(s, c),

    D(c) the negative entropy over classes of how well c fits each, phi the similarity of texts. Scores are
    ``x C^T sigma(W)^T``, sigma the softmax over classes of the matrix W (K, concepts), which starts at 1 where a class
    chose the concept and 0 elsewhere, and is trained with cross-entropy (Adam).

    Deviations: a class's candidates come from `relevance`, or are the `candidates` concepts whose mean standardised
    score in the class is highest (for the paper's language model); how well c fits is the softmax of these means, and
    D is 1 minus its entropy over log K, so that both terms are of one size; concept scores are centred. Under a budget
    every class chooses k, and of the trained weights, less each concept's median over classes (which no decision
    notices), the K k largest stay.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        Concepts a class chooses, and then the budget of weights; None: the paper's 50, all weights kept.
    candidates : int
    discriminability, coverage : float
        Weights of the two terms.
    logit_scale : float
        Standard deviation of the concept scores, on average (CLIP's own is near 2).
    steps, batch_size, learning_rate
        Of Adam.
    random_state : int, RandomState or None

    Notes
    -----
    ``fit(X, y, relevance=R)``: R (K, M), positive where a concept is a class's candidate.
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        candidates: Count = 100,
        discriminability: NonNegative = 1.0,
        coverage: NonNegative = 0.1,
        logit_scale: Positive = 2.0,
        steps: Count = 500,
        batch_size: Count = 512,
        learning_rate: Positive = 1e-2,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.candidates = candidates
        self.discriminability = discriminability
        self.coverage = coverage
        self.logit_scale = logit_scale
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64], *, relevance: ArrayLike | None = None) -> None:
        k, m = len(self.classes_), len(self.concept_names_)
        weights, bias = self._standardised_scores(rows)
        scores = rows @ weights.T + bias
        fits = np.stack([scores[labels == y].mean(axis=0) for y in range(k)])
        pool = np.argsort(-fits, axis=1, kind="stable")[:, : self.candidates]
        theirs = list(pool)
        if relevance is not None:
            given = np.asarray(relevance, dtype=np.float64)
            if given.shape != (k, m) or not (given > 0).any(axis=1).all():
                raise InputError(f"relevance has shape {given.shape}: expected {(k, m)}, a candidate for every class")
            theirs = [np.flatnonzero(row > 0) for row in given]
        share = softmax(fits, axis=0)
        worth = 1.0 + (share * np.log(share + 1e-300)).sum(axis=0) / np.log(k)
        texts = unit_rows(scores.T if self.concept_embeddings_ is None else self.concept_embeddings_, dtype=np.float64)
        size = self.concepts_per_class or 50
        picked = [self._choose(pool, worth, texts, size) for pool in theirs]
        chosen = np.unique(np.concatenate(picked))
        self._own = np.stack([np.isin(chosen, mine) for mine in picked]).astype(float)
        bank = np.eye(m) if self.concept_embeddings_ is None else self.concept_embeddings_.astype(np.float64)
        raw = rows @ bank.T
        scale = self.logit_scale / np.sqrt(np.mean(spread(raw) ** 2))
        self._keep(bank[chosen] * scale, -raw[:, chosen].mean(axis=0) * scale, chosen)

    def _choose(self, pool: NDArray[np.int64], worth: Rows, texts: Rows, size: int) -> NDArray[np.int64]:
        cover = np.maximum(texts[pool] @ texts[pool].T, 0.0)
        held, chosen = np.zeros(len(pool)), np.zeros(len(pool), dtype=bool)
        for _ in range(min(size, len(pool))):
            gain = np.maximum(cover - held[:, None], 0.0).sum(axis=0)
            total = self.discriminability * worth[pool] + self.coverage * gain
            best = int(np.where(chosen, -np.inf, total).argmax())
            chosen[best], held = True, np.maximum(held, cover[best])
        return pool[chosen]

    def _matrix(self, A: Rows, labels: NDArray[np.int64]) -> Rows:
        import torch

        a, y = torch.tensor(A).float(), torch.tensor(labels)
        W = torch.tensor(self._own, dtype=torch.float32, requires_grad=True)

        def loss(batch: Any, step: int) -> Any:
            return torch.nn.functional.cross_entropy(a[batch] @ W.softmax(0).T, y[batch])

        options = {"steps": self.steps, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        descend([W], loss, len(A), seed=self._seed, **options)  # type: ignore[arg-type]
        return W.detach().double().softmax(0).numpy()

    def _own_head(self, A: Rows, labels: NDArray[np.int64]) -> tuple[Rows, Rows]:
        return self._matrix(A, labels), np.zeros(len(self.classes_))

    def _head(self, A: Rows, labels: NDArray[np.int64], budgets: Sequence[int]) -> list[tuple[Rows, Rows]]:
        from sparsecbm.heads.nec import largest

        W = self._matrix(A, labels)
        W = W - np.median(W, axis=0)
        return [(np.where(largest(np.abs(W), k), W, 0.0), np.zeros(len(W))) for k in budgets]

    def budgets(self, X: ArrayLike, y: ArrayLike, nec: Sequence[int]) -> list[Self]:
        """A model for each budget: what is chosen depends on it, so each is fitted."""
        made = ({name: getattr(self, name) for name in self.get_params(deep=False)} for _ in nec)
        return [type(self)(**{**held, "concepts_per_class": k}).fit(X, y) for held, k in zip(made, nec)]
