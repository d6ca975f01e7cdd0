"""One fit of `SparseCBMClassifier`: from checked data and what is known of the concepts to units, a gate and a head."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from sparsecbm._base.errors import InputError
from sparsecbm.bottleneck import (
    GATES,
    ConceptBottleneck,
    ConceptBottleneckLayer,
    ConceptGeometry,
    ConceptLoss,
    FrozenBottleneck,
    Gate,
    PublishedBottleneckLayer,
    Rows,
    Tied,
    Trainer,
    TrainingOptions,
    Whitening,
    class_means,
    hand_out,
    loss_class,
    make_gate,
    make_loss,
    make_tie,
)
from sparsecbm.estimators.inference import standardised
from sparsecbm.estimators.recipe import LEAST_ACTIVE, LEAST_NEC, Head, HeadChoice, Trained

_LOOK = 8192
"""Rows whose loss stands in the history of a model without training steps."""

_FEW, _FEW_FOR_CLASSES = 4, 16
"""Concepts up to which all stay active: a price on each would shut those that decide. The second where there are at
least four classes for each concept."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a fit leaves: what decides, the training's history (at least one entry), and what another budget needs.

    `trained` and `cone_widths` (M,), in degrees, are None of the published variant.
    """

    bottleneck: FrozenBottleneck
    head: Head
    history: list[dict[str, float]]
    trained: Trained | None = None
    cone_widths: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """Data and options of a fit.

    Attributes
    ----------
    given : SimpleNamespace
        Parameters of the estimator, checked.
    space : Whitening
        Of the embeddings.
    concepts : ndarray of shape (M, d) or None
        What concept scores are products with; None: the columns of X are the scores.
    score_mean, score_scale : ndarray of shape (M,)
    presence : ndarray of shape (2, M) or None
        Slope and intercept of each labelled concept's probability.
    X : ndarray or Rows of shape (n, d)
    labels : ndarray of shape (n,) or (n, K)
        Class numbers, or 0 and 1 for classes that do not exclude each other.
    n_classes : int
    weights : ndarray of shape (n,) or None
    validation : tuple or None
        The same of held-out pictures: X, labels.
    seed : int
    checkpoint_dir : path or None
    """

    given: SimpleNamespace
    space: Whitening
    concepts: np.ndarray | None
    score_mean: np.ndarray
    score_scale: np.ndarray
    presence: np.ndarray | None
    X: np.ndarray | Rows
    labels: np.ndarray
    n_classes: int
    weights: np.ndarray | None
    validation: tuple[np.ndarray | Rows, np.ndarray] | None
    seed: int
    checkpoint_dir: str | Path | None

    @property
    def multilabel(self) -> bool:
        """Whether classes do not exclude each other."""
        return self.labels.ndim == 2

    def joint(self) -> Fitted:
        """Layer, gate and head learn together, then few weights are chosen; see `sparsecbm.estimators.recipe`."""
        given, kind = self.given, loss_class(self.given.loss)
        if self.multilabel and kind.needs_relevance:
            raise InputError(f"loss={given.loss!r} needs one class a picture, and y is an indicator matrix")
        means = class_means(self.X, self.labels, self.n_classes)
        tied, pool, widths = self._tied(means, given.tie)
        budget = given.concepts_per_class is not None
        limit = given.max_active_concepts
        if limit is not None and budget:
            limit = max(limit, LEAST_ACTIVE)
        relevance = self._relevance(means)[:, torch.from_numpy(pool)] if kind.needs_relevance else None
        loss = make_loss(given.loss, relevance=relevance)
        few = limit is None and len(pool) <= max(_FEW, min(_FEW_FOR_CLASSES, self.n_classes // 4))
        gate = given.gate if given.gate != "auto" else "dense" if few else loss.gate_name(limit)
        half = HeadChoice(
            max(given.concepts_per_class or 0, LEAST_NEC), given.nonnegative_head, self.seed, weights=self.weights
        )
        trainer = self._train(
            self._untrained(tied, pool, gate, limit),
            loss,
            kind.default_weight,
            decide=half.at_half_time(self.X, self.labels) if budget else None,
            scores=self._torch_scores(pool),
        )
        frozen, dense = FrozenBottleneck.freeze(trainer.model), _trained_head(trainer.model)
        trained = Trained(frozen, dense, tied, self.space, pool, self.seed, weights=self.weights)
        return Fitted(*self._decided(trained), trainer.history, trained, widths)

    def head_alone(self, truth: np.ndarray | None) -> Fitted:
        """Units as they are; a head on what they say, or on the truth (n, M) where it is told."""
        given = self.given
        tied, pool, widths = self._tied(class_means(self.X, self.labels, self.n_classes), "exact")
        gate = given.gate
        if gate == "auto":
            bare = "dense" if self.presence is None else "presence"
            gate = bare if given.max_active_concepts is None else "top_k"
        bottleneck = FrozenBottleneck.freeze(self._untrained(tied, pool, gate, given.max_active_concepts))
        told = None if truth is None else truth[:, pool]
        # With a budget of weights nobody reads a head of all.
        dense = None
        if given.concepts_per_class is None:
            dense = HeadChoice(None, False, self.seed, truth=told, weights=self.weights)(
                bottleneck, self.X, self.labels
            )
        trained = Trained(bottleneck, dense, tied, self.space, pool, self.seed, told, self.weights)
        whole, head = self._decided(trained)
        labels = self.labels[:_LOOK]
        scores = whole.activations(self.X[:_LOOK]) @ head.weights.T + head.intercept
        if self.multilabel:
            each = (np.logaddexp(0.0, scores) - scores * labels).sum(axis=1)
        else:
            each = np.logaddexp.reduce(scores, axis=1) - scores[np.arange(len(labels)), labels]
        lost = float(each.mean())
        return Fitted(whole, head, [{"step": 1, "loss": lost, "cross_entropy": lost}], trained, widths)

    def published(self) -> Fitted:
        """The authors' model and formula."""
        given, kind = self.given, loss_class(self.given.loss, "published")
        if self.multilabel:
            raise InputError("y is an indicator matrix with variant='published': the published models have one class")
        if given.max_active_concepts is not None:
            raise InputError("max_active_concepts with variant='published': the published models have no hard limit")
        if given.gate != "auto":
            raise InputError(f"gate={given.gate!r} with variant='published': the published models have none")
        means = class_means(self.X, self.labels, self.n_classes)
        loss = make_loss(given.loss, "published", self._relevance(means) if kind.needs_relevance else None)
        generator = torch.Generator().manual_seed(self.seed)
        layer = PublishedBottleneckLayer(self.concepts, self.X.shape[1], given.logit_scale, generator)
        model = ConceptBottleneck(layer, make_gate("dense", len(self.score_mean), {}), self.n_classes, generator)
        trainer = self._train(model, loss, kind.default_weight, scores=self._torch_scores(None))
        bottleneck, head = FrozenBottleneck.freeze(trainer.model), _trained_head(trainer.model)
        if given.concepts_per_class is not None:
            choice = HeadChoice(
                given.concepts_per_class,
                given.nonnegative_head,
                self.seed,
                checkpoint_dir=self.checkpoint_dir,
                weights=self.weights,
            )
            head = choice(bottleneck, self.X, self.labels)
        return Fitted(bottleneck, head, trainer.history)

    def _decided(self, trained: Trained) -> tuple[FrozenBottleneck, Head]:
        given = self.given
        return trained.decide(
            self.X,
            self.labels,
            given.concepts_per_class,
            given.max_active_concepts,
            given.nonnegative_head,
            self.checkpoint_dir,
        )

    def _tied(self, means: np.ndarray, tie: str) -> tuple[Tied, np.ndarray, np.ndarray]:
        """Anchors and turns of all concepts, the numbers of those that take part, and the widths of their cones."""
        given = self.given
        counts = None if self.multilabel else np.bincount(self.labels)
        geometry = ConceptGeometry.measure(self.space, self.concepts, means, counts, self.seed)
        own = (given.min_alignment, given.min_survival) if tie == given.tie else ()
        tied = make_tie(tie, *own).bind(geometry)
        pool = tied.pool(given.candidates_per_class)
        if given.cone_widths is not None:
            tied = hand_out(_tangents(given.cone_widths), tied, pool)
        turns = np.zeros(len(tied.turns))
        turns[pool] = tied.turns[pool]
        return tied, pool, np.degrees(np.arctan(turns))

    def _untrained(self, tied: Tied, pool: np.ndarray, name: str, limit: int | None) -> ConceptBottleneck:
        """Layer, gate and head of the concepts that take part, before any training."""
        gate = _make_gate(name, len(pool), limit, self.given.nonnegative)
        if gate.name == "presence":
            if self.presence is None:
                raise InputError("gate='presence' needs concept_labels: without them nobody knows what is probable")
            gate.load_state_dict(
                {key: torch.from_numpy(v[pool]).float() for key, v in zip(("slope", "intercept"), self.presence)}
            )
        layer = ConceptBottleneckLayer(self.space, tied.anchors[pool], tied.turns[pool], tied.min_survival)
        return ConceptBottleneck(layer, gate, self.n_classes)

    def _train(self, model: ConceptBottleneck, loss: ConceptLoss, default_weight: float, **options: Any) -> Trainer:
        given = self.given
        trainer = Trainer(
            model,
            loss,
            _options(given, len(self.X), default_weight),
            weights=self.weights,
            seed=self.seed,
            device=given.device,
            checkpoint_dir=self.checkpoint_dir,
            log_with=given.log_with,
            log_dir=given.log_dir,
            progress=given.verbose,
            **options,
        )
        trainer.fit(self.X, self.labels, *(self.validation or (None, None)))
        return trainer

    def _torch_scores(self, pool: np.ndarray | None) -> Callable[[torch.Tensor], torch.Tensor]:
        """Concept scores of the pool, standardised; without one, of all, raw."""
        kept = np.arange(len(self.score_mean)) if pool is None else pool
        mean, scale = (torch.from_numpy(part[kept]).float() for part in (self.score_mean, self.score_scale))
        rows = None if self.concepts is None else torch.from_numpy(np.ascontiguousarray(self.concepts[kept].T))

        def scores(x: torch.Tensor) -> torch.Tensor:
            psi = x[:, kept] if rows is None else x @ rows.to(x.device)
            return psi if pool is None else (psi - mean.to(x.device)) / scale.to(x.device)

        return scores

    def _relevance(self, means: np.ndarray) -> torch.Tensor:
        """How much each concept belongs to each class, (K, M)."""
        shape = (self.n_classes, len(self.score_mean))
        if self.given.concept_relevance is not None:
            relevance = np.asarray(self.given.concept_relevance, dtype=np.float64)
            if relevance.shape != shape or not np.isfinite(relevance).all():
                raise InputError(
                    f"concept_relevance has shape {relevance.shape}: expected finite numbers of shape {shape} "
                    "(classes in sorted order, concepts)"
                )
            return torch.from_numpy(relevance).float()
        relevance = standardised(means, self.concepts, self.score_mean, self.score_scale)
        return torch.from_numpy(np.maximum(relevance, 0.0)).float()


def _tangents(widths: Any) -> np.ndarray:
    """Of cones given in degrees."""
    degrees = np.asarray(widths, dtype=np.float64)
    if degrees.ndim != 1 or not ((degrees >= 0) & (degrees < 90)).all():
        raise InputError(f"cone_widths of shape {degrees.shape}: expected a row of angles in [0, 90) degrees")
    return np.tan(np.radians(degrees))


def _make_gate(name: str, n_concepts: int, limit: int | None, nonnegative: bool) -> Gate:
    takes = inspect.signature(GATES.find(name)).parameters
    bound = takes.get("max_active_concepts")
    if limit is not None and bound is None:
        raise InputError(f"gate={name!r} knows no limit: expected max_active_concepts=None, or a gate such as 'top_k'")
    if limit is None and bound is not None and bound.default is bound.empty:
        raise InputError(f"gate={name!r} needs max_active_concepts: give the most concepts active in one image")
    options = {"nonnegative": nonnegative, "max_active_concepts": limit}
    return make_gate(name, n_concepts, {key: value for key, value in options.items() if key in takes})


def _trained_head(model: ConceptBottleneck) -> Head:
    weights = model.head_weight().detach().cpu().numpy().astype(np.float64)
    bias = model.head.bias
    return Head(weights, np.zeros(len(weights)) if bias is None else bias.detach().cpu().numpy().astype(np.float64))


def _options(given: SimpleNamespace, n: int, default_weight: float) -> TrainingOptions:
    published = given.variant == "published"
    return TrainingOptions(
        max_iter=given.max_iter or max(1000, 3 * n // 256),
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        layer_learning_rate=(1.0 if published else 0.3) * given.learning_rate,
        loss_weight=default_weight if given.loss_weight is None else given.loss_weight,
        head_l2=0.0 if published else given.head_l2,
        input_noise=0.0 if published else given.input_noise,
        temperature=given.temperature,
        early_stopping=given.early_stopping,
        n_iter_no_change=given.n_iter_no_change,
        mixed_precision=given.mixed_precision,
        gradient_accumulation_steps=given.gradient_accumulation_steps,
    )
