"""How a bottleneck is trained to decide by few concepts: pool, half time, head, importance.

1. Only a pool of concepts trains, those along which some class stands out most: gains, head and, if the tie lets them,
   turns. The others stay what they are, and inactive.
2. At half time a `SparseHead` on the clean activations chooses the weights; only they, and their concepts, train on.
3. At the end it chooses again among them.
4. Concepts then compete for their place in an image by activation times importance, the spread of their weights over
   the classes: what would move the decision most is kept. Importance and weights depend on each other, so both are
   made twice.

Steps 3 and 4 leave units as they are: one training serves every budget (`Trained.decide`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsecbm._base.checkpoint import fingerprint
from sparsecbm.bottleneck import ConceptBottleneck, FrozenBottleneck, Rows, Tied, Whitening
from sparsecbm.bottleneck.gates.top_k import TopKGate
from sparsecbm.bottleneck.labelled import told

LEAST_ACTIVE, LEAST_NEC = 32, 5
"""Budgets below these are met by steps 3 and 4 alone: training itself is never narrower."""

_HEAD_L2, _DENSE_L2, _TOLD_L2 = 0.03, 1e-3, 5e-3
"""Ridge of heads with a budget, without one, and without one on the truth: it tells classes apart more surely than what
is seen of a picture does, and weights fitted to it are too sure."""
_ROUNDS = 2


@dataclass(frozen=True)
class Head:
    """A linear head: weights (K, M) and intercepts (K,), float64, and the certificate of its solver, if one made it."""

    weights: np.ndarray
    intercept: np.ndarray
    certificate: dict[str, Any] | None = None


@dataclass(frozen=True)
class Trained:
    """What training leaves: units, and all that the choice of a head needs.

    Attributes
    ----------
    bottleneck : FrozenBottleneck
        Of the pool, with the gate as trained.
    dense : Head or None
        Of the pool, as trained; None where a budget of weights makes another and nothing trained.
    tied : Tied
        Of all concepts.
    space : Whitening
    pool : ndarray of int
    seed : int
    truth : ndarray of shape (n, pool) or None
        Concept labels on which the head learns in place of the activations; NaN where there is none.
    weights : ndarray of shape (n,) or None
        Of the training embeddings.
    """

    bottleneck: FrozenBottleneck
    dense: Head | None
    tied: Tied
    space: Whitening
    pool: np.ndarray
    seed: int
    truth: np.ndarray | None = None
    weights: np.ndarray | None = None
    _first: dict[str, Head] = field(default_factory=dict, repr=False, compare=False)
    """Heads on activations as trained, by their budget and data: the same for every number of active concepts."""

    def decide(
        self,
        X: np.ndarray | Rows,
        labels: np.ndarray,
        concepts_per_class: int | None,
        max_active_concepts: int | None,
        nonnegative: bool = False,
        checkpoint_dir: str | Path | None = None,
    ) -> tuple[FrozenBottleneck, Head]:
        """Bottleneck and head over all concepts for a budget.

        Parameters
        ----------
        X, labels : ndarray or Rows of shape (n, d), ndarray of int, shape (n,)
            Training embeddings and their class numbers.
        concepts_per_class : int or None
            NEC; None keeps the head as trained.
        max_active_concepts : int or None
            Of the gate, where it keeps a given number.
        nonnegative : bool
            Whether weights may be below 0.
        checkpoint_dir : path, optional
            Of the heads.
        """
        if concepts_per_class is None:
            assert self.dense is not None
            return self._whole(self.bottleneck, self.dense)
        kept = self.bottleneck.copy(max_active_concepts)
        told: dict[str, Any] = {"truth": self.truth, "weights": self.weights}
        last = HeadChoice(concepts_per_class, nonnegative, self.seed, checkpoint_dir=checkpoint_dir, **told)
        if isinstance(kept.gate, TopKGate):
            first = replace(last, method="forward", checkpoint_dir=None)
            rows = X.parts if isinstance(X, Rows) else (X,)
            key = fingerprint(concepts_per_class, nonnegative, labels, *rows)
            if key not in self._first:
                self._first[key] = first(self.bottleneck, X, labels)
            head = self._first[key]
            for choose in (*[first] * (_ROUNDS - 1), last):
                kept.gate.weigh(torch.from_numpy(head.weights.std(axis=0)).float())
                head = choose(kept, X, labels)
        else:
            head = last(kept, X, labels)
        # A concept that no class weighs is in nobody's explanation, and in nobody's way.
        kept.gate.silence(torch.from_numpy((head.weights == 0).all(axis=0)))
        return self._whole(kept, head)

    def _whole(self, bottleneck: FrozenBottleneck, head: Head) -> tuple[FrozenBottleneck, Head]:
        """Of all concepts: those outside the pool have the units of their anchors, and are inactive."""
        n_concepts = len(self.tied.anchors)
        if len(self.pool) == n_concepts:
            return bottleneck, head
        weights = np.zeros((len(head.weights), n_concepts))
        weights[:, self.pool] = head.weights
        rows = self.tied.anchors @ self.space.matrix
        whole = bottleneck.spread(rows, -(rows @ self.space.center), self.pool)
        return whole, Head(weights, head.intercept, head.certificate)


@dataclass(frozen=True)
class HeadChoice:
    """Chooses the weights of a head within a budget, on activations.

    Parameters
    ----------
    concepts_per_class, nonnegative, seed, method, checkpoint_dir
        Of `SparseHead`.
    truth : ndarray of shape (n, M) or None
        Concept labels: where one is known, the head learns on what an absent or a present concept is worth.
    weights : ndarray of shape (n,) or None
        Of the embeddings.
    """

    concepts_per_class: int | None
    nonnegative: bool
    seed: int
    method: str = "splice"
    checkpoint_dir: str | Path | None = None
    truth: np.ndarray | None = None
    weights: np.ndarray | None = None

    def __call__(self, bottleneck: FrozenBottleneck, X: np.ndarray | Rows, labels: np.ndarray) -> Head:
        """Choose on the activations of embeddings `X` (n, d)."""
        from sparsecbm.heads import SparseHead, stays_sparse

        # Sparse only where the dense matrix is too large: a dense one is faster to work on while it fits.
        sparse = bottleneck.gate.name != "dense" and stays_sparse((len(X), len(bottleneck.weight)))
        activations: Any = bottleneck.sparse_activations(X) if sparse else bottleneck.activations(X)
        if self.truth is not None:
            activations = told(
                activations.toarray() if sparse else activations, self.truth, bottleneck.gate.name == "presence"
            )
        dense = _DENSE_L2 if self.truth is None else _TOLD_L2
        head = SparseHead(
            self.concepts_per_class,
            nonnegative=self.nonnegative,
            method=self.method,
            l2=dense if self.concepts_per_class is None else _HEAD_L2,
            random_state=self.seed,
        ).fit(activations, labels, self.weights, checkpoint_dir=self.checkpoint_dir)
        return Head(np.asarray(head.coef_), np.asarray(head.intercept_), head.certificate_)

    def at_half_time(self, X: np.ndarray | Rows, labels: np.ndarray) -> Any:
        """For `Trainer`: the head of a model as far as it is trained."""

        def decide(model: ConceptBottleneck) -> tuple[np.ndarray, np.ndarray]:
            head = self(FrozenBottleneck.freeze(model), X, labels)
            return head.weights, head.intercept

        return decide
