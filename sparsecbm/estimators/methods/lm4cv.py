"""LM4CV: few learned vectors, each snapped to the nearest word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.parameters import Count, NonNegative, Positive, Seed
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, descend, snap, spread


class LM4CV(ConceptMethod):
    """Concise and descriptive attributes (Yan et al. 2023, arXiv 2308.03685).

    A dictionary E of `n_attributes` vectors is learned with a linear head on x E^T, by cross-entropy plus the squared
    Mahalanobis distance of its rows from the distribution of the concept embeddings; each vector is then replaced by
    the nearest concept, none twice, and a head is fitted on the scores of these concepts.

    Deviations: the last head is an elastic net (``concepts_per_class=None``: penalty `lam`) where the paper trains a
    dense one; x is centred and scaled by one number.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
    n_attributes : int or None
        None: as many as classes, and at least 32; never more than concepts.
    mahalanobis_weight : float
    lam : float
    steps, batch_size, learning_rate
        Of Adam.
    random_state : int, RandomState or None
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        n_attributes: Count | None = None,
        mahalanobis_weight: NonNegative = 1e-2,
        lam: NonNegative = 1e-4,
        steps: Count = 500,
        batch_size: Count = 512,
        learning_rate: Positive = 1e-2,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.n_attributes = n_attributes
        self.mahalanobis_weight = mahalanobis_weight
        self.lam = lam
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        m = len(self.concept_names_)
        bank = np.eye(m) if self.concept_embeddings_ is None else self.concept_embeddings_.astype(np.float64)
        count = min(m, self.n_attributes or max(32, len(self.classes_)))
        start = np.zeros((0, rows.shape[1]))
        options = {"steps": self.steps, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        weight = self.mahalanobis_weight
        vectors = learn_vectors(rows, labels, start, count, bank, mahalanobis=weight, seed=self._seed, **options)
        chosen = np.array(snap(vectors - bank.mean(axis=0), bank - bank.mean(axis=0)))
        weights, bias = self._standardised_scores(rows)
        self._keep(weights[chosen], bias[chosen], chosen)


def learn_vectors(
    rows: Rows,
    labels: NDArray[np.int64],
    fixed: Rows,
    count: int,
    bank: Rows,
    *,
    seed: int,
    mahalanobis: float = 0.0,
    near: float = 0.0,
    **options: Any,
) -> Rows:
    """Directions (count, d) that, with `fixed` (m, d) ones beside them, a linear head on x reads best.

    Parameters
    ----------
    mahalanobis : float
        Weight of their mean squared distance from the mean of `bank` (M, d), in units of its covariance, over d.
    near : float
        Weight of 1 minus the cosine with the nearest row of `bank`.
    **options
        Of `descend`.
    """
    import torch

    rng = np.random.default_rng(seed)
    mean = bank.mean(axis=0)
    covariance = (bank - mean).T @ (bank - mean) / len(bank) + 1e-6 * np.eye(bank.shape[1])
    precision = torch.tensor(np.linalg.inv(covariance) / len(covariance)).float()
    texts = torch.nn.functional.normalize(torch.tensor(bank - mean).float(), dim=1)
    centre, scale = rows.mean(axis=0), float(np.sqrt(np.mean(spread(rows) ** 2)))
    x, y = torch.tensor((rows - centre) / scale).float(), torch.tensor(labels)
    E = torch.tensor(bank[rng.choice(len(bank), count, replace=count > len(bank))]).float().requires_grad_()
    k, m = int(labels.max()) + 1, len(fixed) + count
    W, b = torch.zeros(k, m, requires_grad=True), torch.zeros(k, requires_grad=True)
    others, middle = torch.tensor(fixed).float(), torch.tensor(mean).float()

    def loss(batch: Any, step: int) -> Any:
        units = x[batch] @ torch.cat([others, E]).T
        value = torch.nn.functional.cross_entropy(units @ W.T + b, y[batch])
        away = E - middle
        if mahalanobis:
            value = value + mahalanobis * ((away @ precision) * away).sum(1).mean()
        if near:
            value = value + near * (1 - (torch.nn.functional.normalize(away, dim=1) @ texts.T).amax(1)).mean()
        return value

    descend([E, W, b], loss, len(rows), seed=seed, **options)
    return E.detach().double().numpy()
