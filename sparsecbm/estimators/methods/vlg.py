"""VLG-CBM: concepts learned from detections, judged at a number of effective concepts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, NonNegative, Positive, Seed
from sparsecbm._base.rows import as_numpy
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, descend, spread


class VLGCBM(ConceptMethod):
    """Vision-language-guided concept bottleneck (Srivastava et al. 2024, arXiv 2408.01432).

    Concept logits W_C x + b are trained with binary cross-entropy on detections o_ij of concept j in picture i,
    standardised, and read by a sparse head: the elastic-net path until a class has `concepts_per_class` weights on
    average, the rest cut by magnitude (accuracy at NEC; its mean over 5, 10, ..., 30 is ANEC).

    Deviations: **concept scores stand for detections** (the paper asks Grounding DINO for boxes): o_ij = 1 where a
    standardised score exceeds `threshold`, unless `detections` are given; any class may use any concept; a ridge
    penalty keeps logits of separable detections finite.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        NEC; the paper's headline is 5. None: elastic net with penalty `lam`.
    lam : float
    threshold : float
        Standard deviations above a concept's mean score from which it counts as detected.
    l2, steps, batch_size, learning_rate
        Ridge penalty, and Adam, of the concept logits.
    random_state : int, RandomState or None

    Notes
    -----
    ``fit(X, y, detections=O)``: O (n, M), in [0, 1]. A concept that is detected everywhere or nowhere is dropped.
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = 5,
        lam: NonNegative = 7e-4,
        threshold: float = 1.0,
        l2: NonNegative = 1e-3,
        steps: Count = 300,
        batch_size: Count = 256,
        learning_rate: Positive = 1e-2,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.lam = lam
        self.threshold = threshold
        self.l2 = l2
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64], *, detections: ArrayLike | None = None) -> None:
        import torch

        if detections is None:
            weights, bias = self._standardised_scores(rows)
            seen = (rows @ weights.T + bias > self.threshold).astype(float)
        else:
            seen = np.asarray(as_numpy(detections), dtype=np.float64)
            if seen.shape != (len(rows), len(self.concept_names_)) or not ((seen >= 0) & (seen <= 1)).all():
                raise InputError(f"detections of shape {seen.shape}: expected {len(rows)} rows of numbers in [0, 1]")
        chosen = np.flatnonzero(np.ptp(seen, axis=0) > 0)
        if not len(chosen):
            raise InputError(f"threshold={self.threshold}: no concept is detected in some pictures and not in others")
        centre, scale = rows.mean(axis=0), float(np.sqrt(np.mean(spread(rows) ** 2)))
        x, o = torch.tensor((rows - centre) / scale).float(), torch.tensor(seen[:, chosen]).float()
        W = torch.zeros(o.shape[1], x.shape[1], requires_grad=True)
        b = torch.logit(o.mean(0).clamp(1e-4, 1 - 1e-4)).requires_grad_()

        def loss(batch: Any, step: int) -> Any:
            told = torch.nn.functional.binary_cross_entropy_with_logits(x[batch] @ W.T + b, o[batch], reduction="none")
            return told.mean(0).sum() + 0.5 * self.l2 * W.square().sum()

        options = {"steps": self.steps, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        descend([W, b], loss, len(rows), seed=self._seed, **options)  # type: ignore[arg-type]
        weights = W.detach().double().numpy() / scale
        logits = rows @ weights.T
        size = spread(logits)
        self._keep(weights / size[:, None], -logits.mean(axis=0) / size, chosen)
