"""Label-free CBM: a projection that follows another model's concept scores, and an elastic-net head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, NonNegative, OpenShare, Positive, Seed, Share
from sparsecbm._base.rows import as_numpy
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, descend, spread


class LabelFreeCBM(ConceptMethod):
    """Label-free concept bottleneck (Oikarinen et al. 2023, arXiv 2304.06129).

    Units q_j = W_j x of a backbone's features maximise, over the training pictures, the cos-cubed similarity with the
    concept scores P of a CLIP model,

        sim(q_j, P_j) = (q^3 . P^3) / (|q^3| |P^3|),    q, P of mean 0 and standard deviation 1.

    Concepts whose similarity on held-out pictures is below `cutoff` are dropped; units are standardised; the head is an
    elastic net with penalty ``lam (0.99 |w|_1 + 0.01 / 2 |w|^2)``.

    Deviations: where features and scores come from one embedding (no `concept_scores` in `fit`), W = C is the maximum
    (similarity 1) and is taken without steps; else W starts at the least-squares fit, not at random, and the step that
    is best on held-out pictures is kept. The head is solved to a duality gap, not by a number of SAGA epochs.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        Budget of the head; None: the paper's, `lam`.
    lam : float
        Penalty of the head.
    cutoff : float
        Least held-out similarity of a concept.
    steps, learning_rate : int, float
        Adam steps on all pictures.
    validation_fraction : float
    random_state : int, RandomState or None

    Attributes
    ----------
    similarity_ : ndarray of shape (M,)
        Held-out similarity of each concept that is kept.

    Notes
    -----
    ``fit(X, y, concept_scores=P)``: P (n, M), scores of the same pictures by another CLIP model.
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        lam: NonNegative = 7e-4,
        cutoff: Share = 0.45,
        steps: Count = 1000,
        learning_rate: Positive = 1e-3,
        validation_fraction: OpenShare = 0.1,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.lam = lam
        self.cutoff = cutoff
        self.steps = steps
        self.learning_rate = learning_rate
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64], *, concept_scores: ArrayLike | None = None) -> None:
        if concept_scores is None:
            self.similarity_ = np.ones(len(self.concept_names_))
            self._keep(*self._standardised_scores(rows))
            return
        P = np.asarray(as_numpy(concept_scores), dtype=np.float64)
        if P.shape != (len(rows), len(self.concept_names_)) or not np.isfinite(P).all():
            raise InputError(f"concept_scores have shape {P.shape}: expected {(len(rows), len(self.concept_names_))}")
        weights, self.similarity_ = self._project(rows, P)
        chosen = np.flatnonzero(self.similarity_ >= self.cutoff)
        if not len(chosen):
            raise InputError(f"cutoff={self.cutoff}: no concept is that similar; the best {self.similarity_.max():.2f}")
        self.similarity_ = self.similarity_[chosen]
        units = rows @ weights[chosen].T
        scale = spread(units)
        self._keep(weights[chosen] / scale[:, None], -units.mean(axis=0) / scale, chosen)

    def _project(self, rows: Rows, P: Rows) -> tuple[Rows, Rows]:
        import torch

        order = np.random.default_rng(self._seed).permutation(len(rows))
        held, train = np.split(order, [max(2, round(self.validation_fraction * len(rows)))])
        if len(train) < 2:
            raise InputError(f"{len(rows)} pictures: too few to hold some out; expected at least 4")
        centred = rows[train] - rows[train].mean(axis=0)
        ridge = 1e-3 * np.trace(centred.T @ centred) / rows.shape[1]
        start = np.linalg.solve(centred.T @ centred + ridge * np.eye(rows.shape[1]), centred.T @ P[train]).T
        best, kept = np.full(len(start), -np.inf), start.copy()
        W = torch.tensor(start, dtype=torch.float32, requires_grad=True)
        x, p = torch.tensor(rows[train]).float(), torch.tensor(P[train]).float()

        def loss(batch: Any, step: int) -> Any:
            if step % 50 == 0:
                look()
            return -cos_cubed(x @ W.T, p).sum()

        def look() -> None:
            now = W.detach().double().numpy()
            found = cos_cubed(torch.tensor(rows[held] @ now.T), torch.tensor(P[held])).numpy()
            better = found > best
            best[better], kept[better] = found[better], now[better]

        size = len(train)
        descend([W], loss, size, steps=self.steps, learning_rate=self.learning_rate, batch_size=size, seed=0)
        look()
        return kept, best


def cos_cubed(q: Any, p: Any) -> Any:
    """Cos-cubed similarity of columns, tensors (n, M): shape (M,); 0 for a constant column."""

    def cubed(values: Any) -> Any:
        values = values - values.mean(0)
        values = (values / values.std(0).clamp_min(1e-12)) ** 3
        return values / values.norm(dim=0).clamp_min(1e-12)

    return (cubed(q) * cubed(p)).sum(0)
