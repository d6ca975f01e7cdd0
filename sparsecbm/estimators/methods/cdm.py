"""CDM: which concepts take part is decided picture by picture, by Bernoulli gates that the picture opens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.parameters import Count, NonNegative, OpenShare, Positive, Seed
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, descend, spread


class ConceptDiscoveryModel(ConceptMethod):
    """Sparse linear concept discovery (Panousis et al. 2023, arXiv 2308.10782).

    Scores are ``W (z * s) + b``: s the concept scores of a picture, z_j ~ Bernoulli(sigmoid(v_j . x + g_j)) gates of
    its own. Trained on CE + kl_weight * sum_j KL(q(z_j | x) || Bernoulli(active_prior)), gates relaxed to binary
    Concrete ones (temperature .1). The prior makes most gates close.

    Deviations: at inference a gate is open where its logit is positive (the paper samples it, and counts as active
    what is above .01): an inactive concept is exactly zero; scores are divided by their mean size, and x is centred and
    scaled by one number, so that one set of rates suits every encoder; gates have biases, and start half open.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        Budget of the head; None: the dense W that was trained with the gates.
    active_prior : float
        Share of concepts that are active a priori.
    kl_weight : float
    temperature : float
    steps, batch_size, learning_rate
        Of Adam.
    random_state : int, RandomState or None

    Notes
    -----
    `units` are the logits of the gates: what decides whether a concept takes part.
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        active_prior: OpenShare = 1e-2,
        kl_weight: NonNegative = 1e-3,
        temperature: Positive = 0.1,
        steps: Count = 500,
        batch_size: Count = 128,
        learning_rate: Positive = 3e-3,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.active_prior = active_prior
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.steps = steps
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        import torch

        from sparsecbm.bottleneck.gates.binary_concrete import BinaryConcreteGate

        centre, scale = rows.mean(axis=0), float(np.sqrt(np.mean(spread(rows) ** 2)))
        scores = self._scores_of(rows)
        self.score_scale_ = np.array([float(np.abs(scores).mean()) or 1.0])
        x, s, y = (torch.tensor(v) for v in ((rows - centre) / scale, scores / self.score_scale_, labels))
        x, s = x.float(), s.float()
        m, d, k = s.shape[1], x.shape[1], len(self.classes_)
        generator, noise = torch.Generator().manual_seed(self._seed), BinaryConcreteGate(m)
        V = torch.randn(m, d, generator=generator).div_(d).requires_grad_()
        g, W, b = (torch.zeros(shape, requires_grad=True) for shape in ((m,), (k, m), (k,)))

        def loss(batch: Any, step: int) -> Any:
            logits = x[batch] @ V.T + g
            z = torch.sigmoid((logits + noise.draw_noise(len(logits), generator)) / self.temperature)
            entropy = torch.nn.functional.cross_entropy((z * s[batch]) @ W.T + b, y[batch])
            return entropy + self.kl_weight * divergence(logits, self.active_prior).sum(1).mean()

        options = {"steps": self.steps, "learning_rate": self.learning_rate, "batch_size": self.batch_size}
        descend([V, g, W, b], loss, len(rows), seed=self._seed, **options)  # type: ignore[arg-type]
        weights, bias, self._W, self._b = (value.detach().double().numpy() for value in (V, g, W, b))
        self._keep(weights / scale, bias - weights @ centre / scale)

    def _activate(self, rows: Rows) -> Rows:
        return np.where(self._units(rows) > 0, self._scores_of(rows) / self.score_scale_, 0.0)

    def _own_head(self, A: Rows, labels: NDArray[np.int64]) -> tuple[Rows, Rows]:
        return self._W, self._b

    def _shapes(self, k: int, m: int, d: int) -> dict[str, tuple[int, ...]]:
        return super()._shapes(k, m, d) | {"score_scale_": (1,)}


def divergence(logits: Any, prior: float) -> Any:
    """KL(Bernoulli(sigmoid(logits)) || Bernoulli(prior)), elementwise; a tensor."""
    import torch

    on, off = torch.nn.functional.logsigmoid(logits), torch.nn.functional.logsigmoid(-logits)
    return on.exp() * (on - np.log(prior)) + off.exp() * (off - np.log1p(-prior))
