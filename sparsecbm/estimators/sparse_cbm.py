"""SparseCBMClassifier: a sparse concept bottleneck on embeddings, with scikit-learn's conventions."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin, clone
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.labels import class_numbers, indicator, number_classes
from sparsecbm._base.parameters import (
    Annealing,
    ClassWeights,
    Count,
    Flag,
    NonNegative,
    OpenShare,
    Positive,
    PositiveShare,
    Seed,
    Share,
    Text,
    Verbosity,
    checked_parameters,
)
from sparsecbm._base.rows import as_numpy, check_scale, unit_rows
from sparsecbm.bottleneck import (
    TIES,
    FrozenBottleneck,
    Rows,
    TrainingOptions,
    Whitening,
    whitening,
)
from sparsecbm.estimators.class_scores import ExplainedScores
from sparsecbm.estimators.concept_labels import ConceptTrust, check_concept_labels
from sparsecbm.estimators.fitting import Fit
from sparsecbm.estimators.frontier import ACTIVE, NEC, Frontier, make_frontier
from sparsecbm.estimators.hub import PublishedEstimator
from sparsecbm.estimators.inference import InferenceModel
from sparsecbm.estimators.inputs import (
    SAFE_SCALE,
    UNIT,
    check_concepts,
    check_finite,
    column_names,
    encoder_note,
    unit_rows_lazily,
)
from sparsecbm.estimators.recipe import Head
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays

if TYPE_CHECKING:
    from sparsecbm.encoders import Encoder
    from sparsecbm.encoders.base import Pictures
    from sparsecbm.explain import Ledgers


class SparseCBMClassifier(
    ExplainedScores, ConceptTrust, PublishedEstimator, ClassifierMixin, TransformerMixin, BaseEstimator
):
    """A classifier whose every decision is a short sum over named concepts.

    An embedding x becomes concept scores psi = cos(x, c), standardised with training statistics; the Concept Bottleneck
    Layer turns them into units, each kept within a cone around its own concept; a gate leaves few of them active, the
    others exactly zero; a linear head adds the active ones up to class scores. After Semenov et al. 2024,
    arXiv 2404.03323.

    Parameters
    ----------
    concept_embeddings : array-like of shape (M, d) or None
        Text embeddings of the concepts, from the encoder that made `X`. None: the columns of `X` are the concept
        scores.
    concept_names : sequence of str or None
        M names; ``"concept 0"``, ... if None.
    training : {"joint", "sequential", "independent"} or None
        "joint": layer and head learn together; units may turn towards the classes as far as the tie lets them, and a
        corrected concept is worth what it was in that mixture. "sequential": units are their concepts, from texts and
        labels alone; the head learns on what they say. "independent": the same units, but where concept labels are
        known the head learns on the truth, so that a corrected concept means to it exactly what a true one did. None:
        "joint" where fewer than half of the concepts have labels, or yes-or-no answers of so few concepts lose classes
        that their scores tell apart; else "independent" with labels of the pictures of `X`, "sequential" with others.
    loss : {"gumbel", "contrastive", "l1", "similarity", "none"}
        The concept loss added to the cross-entropy ("joint").
    variant : {"default", "published"}
        "published" is the authors' model and formula to the letter (raw scores, untied dense layer, head without
        intercept), as a baseline; its activations are never exactly zero.
    max_active_concepts : int or None
        The most concepts that may be active in one image: a hard limit on non-zeros of every row of `transform`.
        None: "gumbel" and "l1" choose themselves; the other losses leave all active.
    concepts_per_class : int or None
        Number of effective concepts (NEC), on average over classes: the head is refitted with at most
        ``K * concepts_per_class`` non-zero weights, chosen at half time and again at the end; concepts then compete for
        their place among the active ones by activation times importance, the spread of their weights over the classes.
        None keeps the dense head that was trained with the layer. Where dense activations of all rows would take more
        than 512 MB, they stay sparse.
    concept_relevance : array-like of shape (K, M) or None
        How much each concept belongs to each class (rows in sorted class order), for "contrastive". None: the positive
        part of each class's mean standardised concept score.
    gate : {"auto", "top_k", "gumbel_top_k", "soft_threshold", "binary_concrete", "presence", "dense"}
        What sets all but a few units to zero. "auto": what goes with the loss; without a limit, "dense" for the joint
        training of up to 4 concepts, or 16 where there are four classes for each (of so few, what is absent is evidence
        too), and "presence" for concepts with labels trained otherwise: activations are the probabilities of concepts,
        so that a true concept is 1. A gate that knows no limit is refused with `max_active_concepts`.
    tie : {"earned", "exact", "shared", "free"}
        How far unit j may turn away from concept score j, and so how much of the decision its name carries. "exact":
        not at all. "shared": all concepts go through one map that knows the classes but no concept. "earned": as far as
        the concept's own evidence exceeds what meaningless directions reach by chance, and as it keeps its own
        pictures. "free": equally far, wherever the classes pull; at .9 the names decide next to nothing.
    min_alignment : float or None
        In (0, 1]: the least correlation of unit j with concept score j over the (shrunk) training distribution. None
        takes the tie's own: 1 for "exact", .98 for "shared", .93 for "earned", .9 for "free".
    min_survival : float or None
        In [0, 1]: of the 20 training pictures (a quarter of them, if fewer than 80) that concept score j ranks highest,
        the least share that unit j ranks highest too. A unit that turned further is turned back, at half time and at
        the end. None takes the tie's own: .75 for "earned", 0 for the others.
    cone_widths : array-like of shape (M',) or None
        Angles in degrees that units may turn, in place of those of the tie: the widest for the concept that stands out
        most, and so on. With the ``cone_widths_`` of another model, these concepts get the freedom that its concepts
        earned (the *equal-freedom* control).
    candidates_per_class : int or None
        Only the concepts along which some class stands out most take part, so many for each class; None: all.
    nonnegative : bool
        Whether only positive units can be active, so that an explanation names concepts that are there; where all
        units are active (`max_active_concepts` of None with "contrastive", "similarity" or "none"), it says nothing.
    nonnegative_head : bool
        Whether weights may only speak for a class. Needs `concepts_per_class`.
    loss_weight : float or None
        Weight of the concept loss; None takes the loss's own default.
    class_weight : "balanced", dict or None
        Weight of the classes in every cross-entropy, by label; "balanced": as heavy as they are rare, together one
        apiece. None: 1 each.
    covariance_shrinkage : float
        In [0, 1], of the training embeddings' covariance.
    input_noise : float
        Standard deviation of the noise added to whitened embeddings in training.
    temperature : tuple of float
        First and last temperature of the gates.
    head_l2 : float
        Penalty on the squared head weights.
    learning_rate, batch_size : float, int
        Of AdamW: the head's rate; the layer takes 0.3 of it (all of it in the published variant), the gate 3 times it.
    max_iter : int or None
        Optimizer steps; None takes 1,000, or three for every 256 images if that is more.
    early_stopping : bool
        Keep the best step by validation accuracy, and stop when it no longer rises. Uses ``fit(..., X_val, y_val)`` or,
        without them, a stratified `validation_fraction` of the training data.
    validation_fraction : float
        In (0, 1).
    n_iter_no_change : int
        Evaluations (there are 20 a run) without improvement before stopping.
    mixed_precision : {"no", "fp16", "bf16"}
        Accelerate's autocast.
    gradient_accumulation_steps : int
        Batches per optimizer step.
    logit_scale : float
        Scale of the raw scores of the published variant; CLIP's is 100.
    log_with, log_dir : str or None
        An Accelerate tracker ("tensorboard", "wandb", ...) and its folder.
    device : {"auto", "cpu", "cuda", "cuda:N", "mps"}
        Where to train, and to compute units afterwards where it is there (MPS trains only; heads are the CPU's).
    random_state : int, RandomState instance or None
        Seeds every random draw.
    verbose : bool or None
        Progress bar; None shows it on a terminal when training takes more than a second.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    concept_names_ : list of str
    head_weights_ : ndarray of shape (K, M), float64
    head_intercept_ : ndarray of shape (K,), float64
    history_ : list of dict
        Training, one entry an evaluation.
    bottleneck_ : FrozenBottleneck
        The layer and gate at inference.
    cone_widths_ : ndarray of shape (M,)
        Angle in degrees that each unit was allowed to turn; 0 for concepts that took no part.
    score_mean_, score_scale_ : ndarray of shape (M,)
        Training statistics of the concept scores.
    concept_directions_ : ndarray of shape (M, d), float32, or None
        What concept scores are cosines with in place of `concept_embeddings_`, where labels moved them.
    presence_ : ndarray of shape (2, M), float64
        Slope and intercept of each concept's probability in its unit.
    worth_ : ndarray of shape (2, M), float64
        Activation that an absent and a present concept are worth.
    label_counts_ : ndarray of shape (2, M), int64, or None
        Labelled pictures without and with each concept; None where `fit` had no concept labels.
    label_share_, label_auc_ : ndarray of shape (M,), float64
        How far labels moved each concept from its text, in [0, 1], and its AUC on held-out labelled pictures (NaN
        without). Only with concept labels; not stored.
    multilabel_ : bool
        Whether `y` was an indicator matrix; `classes_` are then the numbers of its columns.
    metadata_ : dict
        JSON values of the user's choice that `save` keeps (encoder, class names, prompts).
    n_features_in_ : int
    n_iter_ : int
        Optimizer steps taken.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = np.arange(200) % 4
    >>> X = np.eye(4)[y] @ rng.normal(size=(4, 16)) + 0.1 * rng.normal(size=(200, 16))
    >>> concepts = rng.normal(size=(30, 16))
    >>> model = SparseCBMClassifier(concepts, max_active_concepts=3, max_iter=100, random_state=0).fit(X, y)
    >>> int((model.transform(X) != 0).sum(axis=1).max()) <= 3
    True
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        training: Literal["joint", "sequential", "independent"] | None = None,
        loss: Text = "gumbel",
        variant: Literal["default", "published"] = "default",
        max_active_concepts: Count | None = None,
        concepts_per_class: Count | None = None,
        concept_relevance: ArrayLike | None = None,
        gate: Text = "auto",
        tie: Text = "earned",
        min_alignment: PositiveShare | None = None,
        min_survival: Share | None = None,
        cone_widths: ArrayLike | None = None,
        candidates_per_class: Count | None = 10,
        nonnegative: Flag = True,
        nonnegative_head: Flag = False,
        loss_weight: NonNegative | None = None,
        class_weight: ClassWeights | None = None,
        covariance_shrinkage: Share = 0.3,
        input_noise: NonNegative = 1.0,
        temperature: Annealing = (1.0, 0.1),
        head_l2: NonNegative = 1e-4,
        learning_rate: Positive = 3e-3,
        batch_size: Count = 64,
        max_iter: Count | None = None,
        early_stopping: Flag = False,
        validation_fraction: OpenShare = 0.1,
        n_iter_no_change: Count = 5,
        mixed_precision: Literal["no", "fp16", "bf16"] = "no",
        gradient_accumulation_steps: Count = 1,
        logit_scale: Positive = 100.0,
        log_with: Text | None = None,
        log_dir: Text | None = None,
        device: Text = "auto",
        random_state: Seed | None = None,
        verbose: Verbosity = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.training = training
        self.loss = loss
        self.variant = variant
        self.max_active_concepts = max_active_concepts
        self.concepts_per_class = concepts_per_class
        self.concept_relevance = concept_relevance
        self.gate = gate
        self.tie = tie
        self.min_alignment = min_alignment
        self.min_survival = min_survival
        self.cone_widths = cone_widths
        self.candidates_per_class = candidates_per_class
        self.nonnegative = nonnegative
        self.nonnegative_head = nonnegative_head
        self.loss_weight = loss_weight
        self.class_weight = class_weight
        self.covariance_shrinkage = covariance_shrinkage
        self.input_noise = input_noise
        self.temperature = temperature
        self.head_l2 = head_l2
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.mixed_precision = mixed_precision
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.logit_scale = logit_scale
        self.log_with = log_with
        self.log_dir = log_dir
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # -- training ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_val: ArrayLike | None = None,
        y_val: ArrayLike | None = None,
        *,
        concept_labels: ArrayLike | None = None,
        concept_X: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        checkpoint_dir: str | Path | None = None,
    ) -> SparseCBMClassifier:
        """Train layer, gate and head.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, or concept scores if there are no concept embeddings: the columns of a DataFrame name the
            concepts then. Of what `embed_images` returns the model remembers the encoder. Memory-mapped float16 or
            float32 arrays stay on disk: they are never copied whole, also not to scale rows or to hold some out.
        y : array-like of shape (n,), or (n, K) of 0 and 1
            Class labels; an indicator matrix for classes that do not exclude each other, each with its own sigmoid.
        X_val, y_val : array-like, optional
            Validation data, for the history and for early stopping.
        concept_labels : array-like of shape (n, M), optional
            Whether each picture shows each concept: 0, 1, a probability in between, or NaN where nobody knows. Any
            share may be labelled. A concept moves from its text's direction towards the probe of its labelled
            pictures as far as held-out labels say (`sparsecbm.bottleneck.labelled`). Without concept embeddings, and
            with another number of columns than X, labels alone make the concepts.
        concept_X : array-like of shape (n', d), optional
            Pictures that `concept_labels` (n', M) are about, in place of those of `X`.
        sample_weight : array-like of shape (n,), optional
            Not negative: weight of each picture in every cross-entropy. A picture of weight 0 is left out; what is
            measured of the pictures alone (their mean, covariance, class means) counts the others alike.
        checkpoint_dir : path, optional
            Keep a checkpoint there, and resume from it if the same fit was interrupted.

        Returns
        -------
        self

        Raises
        ------
        InputError
            If a parameter, a shape or a value is not as expected; one line says which.
        """
        given = checked_parameters(self)
        made_by = encoder_note(X)
        many = indicator(y)
        checked, y = self._validated(X, y, ensure_min_samples=2, multi_output=many is not None)
        truth = check_concept_labels(concept_labels, concept_X, len(checked), self.concept_names)
        weights, kept = None, None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, checked, dtype=np.float64, ensure_non_negative=True)
            kept = None if weights.all() else np.flatnonzero(weights)
        self.multilabel_ = many is not None
        labels: np.ndarray
        if many is not None:
            self.classes_, labels = np.arange(many.shape[1]), many if kept is None else many[kept]
        else:
            some = y if kept is None else np.asarray(y)[kept]
            self.classes_, labels = number_classes(some, len(checked) if kept is None else len(kept))
        names = column_names(self) if self.concept_names is None and truth is None else self.concept_names
        concepts, self.concept_names_ = check_concepts(
            self.concept_embeddings, names, self.n_features_in_, None if truth is None else truth.shape[1]
        )
        rows = self._rows(checked)
        if kept is not None and weights is not None:
            rows, weights = (rows if isinstance(rows, Rows) else Rows(rows)).take(kept), weights[kept]
            truth = truth[kept] if truth is not None and concept_X is None else truth
        weights = self._weights(given, labels, weights)
        validation = self._validation_data(X_val, y_val)
        if given.early_stopping and validation is None:
            train, held = self._hold_out(labels, given)
            whole = rows if isinstance(rows, Rows) else Rows(rows)
            validation = whole.take(held), labels[held]
            rows, labels, weights = whole.take(train), labels[train], None if weights is None else weights[train]
            truth = truth[train] if truth is not None and concept_X is None else truth
        pictures = rows if concept_X is None else self._rows(self._validated(concept_X, reset=False))
        seed = int(check_random_state(given.random_state).randint(np.iinfo(np.int32).max))

        space = whitening(rows, given.covariance_shrinkage)
        self.concept_embeddings_ = concepts
        presence = self._learn_concepts(space, truth, pictures, seed)
        self._set_score_statistics(space)
        told = 0.0 if truth is None else (~np.isnan(truth)).any(axis=0).mean()
        how = given.training or ("joint" if told < 0.5 else "independent" if concept_X is None else "sequential")
        if given.nonnegative_head and given.concepts_per_class is None and given.variant == "default":
            raise InputError("nonnegative_head=True needs concepts_per_class: a dense head has no sign constraint")
        if how == "independent" and (truth is None or concept_X is not None) and given.variant == "default":
            raise InputError('training="independent" needs concept_labels of the pictures of X: try "sequential"')
        fit = Fit(
            given, space, self._score_rows(), self.score_mean_, self.score_scale_, self._presence, rows, labels,
            len(self.classes_), weights, validation, seed, checkpoint_dir,
        )  # fmt: skip
        if given.variant == "published":
            fitted = fit.published()
        else:
            fitted = fit.joint() if how == "joint" else fit.head_alone(truth if how == "independent" else None)
            asked = given.training is not None
            if how != "joint" and self._too_coarse(fitted, rows, labels, seed, asked) and not asked:
                fitted = fit.joint()
            self.cone_widths_ = fitted.cone_widths
        self._trained = fitted.trained
        self.history_, self.n_iter_ = fitted.history, int(fitted.history[-1]["step"])
        self._take(fitted.bottleneck, fitted.head)
        self._check_converged(given)
        self._judge_concepts(rows, labels, presence, truth if concept_X is None else None, seed)
        self.metadata_: dict[str, Any] = {} if made_by is None else {"encoder": made_by}
        return self

    def _take(self, bottleneck: FrozenBottleneck, head: Head) -> None:
        self.bottleneck_, self.head_weights_, self.head_intercept_ = bottleneck, head.weights, head.intercept
        self.certificate_ = head.certificate

    def refit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        *,
        concepts_per_class: int | None = None,
        max_active_concepts: int | None = None,
    ) -> SparseCBMClassifier:
        """The same trained units under another budget: only head and gate are made again.

        Parameters
        ----------
        X, y : array-like
            The training data of `fit`.
        concepts_per_class, max_active_concepts : int or None
            As in the constructor; None keeps the model's own.

        Returns
        -------
        SparseCBMClassifier
            A fitted model of its own; this one stays as it is. Up to `LEAST_NEC` concepts a class and for any number of
            active ones up to `LEAST_ACTIVE`, it is to the bit what `fit` with that budget makes.

        Raises
        ------
        InputError
            If this model was loaded, not fitted, has no limits of its own to change, or is of the published variant.
        """
        check_is_fitted(self)
        trained = getattr(self, "_trained", None)
        if trained is None:
            raise InputError("refit needs a model as fitted, of the default variant: fit it again, it was loaded")
        changed = {"concepts_per_class": concepts_per_class, "max_active_concepts": max_active_concepts}
        changed = {name: value for name, value in changed.items() if value is not None}
        for name in changed:
            if getattr(self, name) is None:
                raise InputError(f"refit to {name}={changed[name]!r}: the model was fitted without; give it to fit")
        model = clone(self).set_params(**changed)
        model.__dict__.update({key: value for key, value in vars(self).items() if key.endswith("_")})
        model._trained, model.metadata_ = self._trained, dict(self.metadata_)
        # Units stay, and so their probabilities; what a concept is worth is a matter of the new gate.
        model._presence, model._looked_at = self._presence, self._looked_at
        given = checked_parameters(model)
        checked = self._validated(X, reset=False)
        rows, labels = self._rows(checked), self._numbers(y, len(checked), "y")
        weights = model._trained.weights
        if weights is not None and len(weights) != len(labels):
            raise InputError("refit after sample weights of 0, or with some held out: give the other pictures alone")
        model._take(
            *trained.decide(rows, labels, given.concepts_per_class, given.max_active_concepts, given.nonnegative_head)
        )
        return model

    def _numbers(self, y: ArrayLike, n_rows: int, what: str) -> np.ndarray:
        """Class numbers (n,) of labels, or 0 and 1 (n, K)."""
        if not self.multilabel_:
            return class_numbers(y, n_rows, self.classes_, what)
        given = np.asarray(y)
        if given.shape != (n_rows, len(self.classes_)) or not np.isin(given, (0, 1)).all():
            raise InputError(f"{what} of shape {given.shape}: expected 0 or 1 for each of {len(self.classes_)} classes")
        return given.astype(np.float32)

    def _weights(self, given: SimpleNamespace, labels: np.ndarray, weights: np.ndarray | None) -> np.ndarray | None:
        """Weights (n,) of pictures, their classes' included, with mean 1; None where all are alike."""
        if given.class_weight is not None:
            if self.multilabel_:
                raise InputError("class_weight needs one class a picture, and y is an indicator matrix")
            counts = np.bincount(labels)
            if given.class_weight == "balanced":
                of_class = len(labels) / (len(counts) * counts)
            else:
                names = self.classes_.tolist()
                for name in given.class_weight:
                    if name not in names:
                        raise unknown("class of class_weight", name, names)
                of_class = np.array([given.class_weight.get(name, 1.0) for name in names])
            weights = of_class[labels] * (1.0 if weights is None else weights)
        if weights is None or not np.ptp(weights):
            return None
        return weights / weights.mean()

    def without(self, concepts: str | Sequence[str]) -> SparseCBMClassifier:
        """Return the fitted model without some concepts; no training pictures are needed.

        Their units go, and their head weights; every other unit gives what it gave. Where a limit on active concepts
        left others out for them, those are active now. To weigh the rest anew, `refit` with training pictures. No
        concept can be added so: its unit stands on the mean and spread of its scores over the training pictures, which
        the model does not keep; fit again with it.

        Parameters
        ----------
        concepts : str or sequence of str

        Raises
        ------
        InputError
            If a name is unknown, or no concept would be left.
        """
        check_is_fitted(self)
        wanted = [concepts] if isinstance(concepts, str) else list(concepts)
        for name in wanted:
            if name not in self.concept_names_:
                raise unknown("concept", name, self.concept_names_)
        if self._score_rows() is None:
            raise InputError("this model was fitted on concept scores: leave the column out of X and fit again")
        if "edits" in self.metadata_:
            raise InputError("this model carries edits, which name concepts by place: undo them first")
        kept = np.array([j for j, name in enumerate(self.concept_names_) if name not in set(wanted)], dtype=np.int64)
        if not len(kept):
            raise InputError(f"all {len(self.concept_names_)} concepts are named: leave at least one")
        model = copy.copy(self)
        model.metadata_ = copy.deepcopy(self.metadata_)
        model.bottleneck_ = self.bottleneck_.select(kept)
        model.head_weights_ = self.head_weights_[:, kept]
        by_row = ("score_mean_", "score_scale_", "concept_embeddings_", "concept_directions_", "cone_widths_")
        for name in (*by_row, "label_share_", "label_auc_"):
            if getattr(self, name, None) is not None:
                setattr(model, name, getattr(self, name)[kept])
        model.concept_names_ = [self.concept_names_[j] for j in kept]
        model.concept_embeddings, model.concept_names = model.concept_embeddings_, model.concept_names_
        for name in ("concept_relevance", "cone_widths", "presence_", "worth_", "label_counts_"):
            if getattr(self, name, None) is not None:
                setattr(model, name, np.asarray(getattr(self, name))[..., kept])
        return model

    def frontier(
        self,
        X: ArrayLike,
        y: ArrayLike,
        X_test: ArrayLike,
        y_test: ArrayLike,
        *,
        nec: Sequence[int] = NEC,
        active: Sequence[int] = ACTIVE,
        ties: Sequence[str] | None = None,
        control: bool = True,
        checkpoint_dir: str | Path | None = None,
        verbose: bool | None = None,
    ) -> Frontier:
        """What this recipe reaches for every number of concepts, and what of it the concepts owe to what they mean.

        One fit for each tie, and one on as many meaningless directions (each as free to turn as the concepts); head and
        gate are made again for every budget. Points of up to `LEAST_NEC` concepts a class are to the bit what `fit`
        with that budget makes; those above come from units trained with `LEAST_NEC`, and `fit` may do better.

        Parameters
        ----------
        X, y : array-like of shape (n, d) and (n,)
            Training data. This model itself need not be fitted, and is left as it is.
        X_test, y_test : array-like
            Held-out pictures and labels to measure on; where a budget is then chosen, keep others to report it on.
        nec, active : sequence of int
            Concepts a class, and active concepts a picture.
        ties : sequence of str, optional
            Names of ties; None: the model's own.
        control : bool
            Whether to train the meaningless directions.
        checkpoint_dir : path, optional
            Keep fits and finished points there; the same call, interrupted or asking for more, goes on from them.
        verbose : bool or None
            Progress bar; None shows it on a terminal when it takes more than a second.

        Returns
        -------
        Frontier

        Raises
        ------
        InputError
            If a budget is below 1, or the model is of the published variant.
        """
        return make_frontier(
            self, X, y, X_test, y_test, nec=nec, active=active, ties=ties, control=control,
            checkpoint_dir=checkpoint_dir, verbose=verbose,
        )  # fmt: skip

    def freedoms(self) -> dict[str, Any]:
        """Parameters that give other concepts the freedom that these have earned; none where all are equally free.

        With them, a model of as many meaningless directions is the *equal-freedom* control.
        """
        check_is_fitted(self)
        earned = self.variant == "default" and TIES.find(self.tie).earned and hasattr(self, "cone_widths_")
        return {"cone_widths": self.cone_widths_} if earned else {}

    def _check_converged(self, given: SimpleNamespace) -> None:
        arrays = {**self.bottleneck_.tensors(), "weights": self.head_weights_, "intercept": self.head_intercept_}
        numbers = [self.history_[-1]["loss"], *(np.abs(np.asarray(value)).max() for value in arrays.values())]
        if not np.isfinite(numbers).all():
            raise InputError(
                "the training diverged: its loss or its weights are no finite numbers; learning_rate="
                f"{given.learning_rate!r} is too large for these data, try {TrainingOptions.learning_rate}"
            )

    def _rows(self, X: np.ndarray) -> np.ndarray | Rows:
        return X if self.concept_embeddings is None else unit_rows_lazily(X, "X")

    def _validation_data(
        self, X_val: ArrayLike | None, y_val: ArrayLike | None
    ) -> tuple[np.ndarray | Rows, np.ndarray] | None:
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            raise InputError("X_val and y_val go together: one of them is missing")
        rows = self._rows(self._validated(X_val, reset=False))
        return rows, self._numbers(y_val, len(rows), "y_val")

    def _hold_out(self, labels: np.ndarray, given: SimpleNamespace) -> tuple[np.ndarray, np.ndarray]:
        """Rows to train on and rows to hold out, ascending."""
        counts = np.bincount(labels) if not self.multilabel_ else np.array([len(labels)])
        if counts.min() < 2:
            raise InputError(
                f"class {self.classes_.tolist()[counts.argmin()]!r} has one image: early_stopping cannot split it; "
                "give X_val and y_val, or set early_stopping=False"
            )
        state = check_random_state(given.random_state).randint(np.iinfo(np.int32).max)
        n, by = len(labels), None if self.multilabel_ else labels
        n_held = max(round(given.validation_fraction * n), 1 if by is None else len(self.classes_))
        train, held = train_test_split(np.arange(n), test_size=n_held, stratify=by, random_state=int(state))
        return np.sort(train), np.sort(held)

    def _score_rows(self) -> np.ndarray | None:
        """What concept scores are products with, (M, d); None: the columns of X are the scores."""
        return self.concept_embeddings_ if self.concept_directions_ is None else self.concept_directions_

    def _set_score_statistics(self, space: Whitening) -> None:
        found = self._score_rows()
        rows = np.eye(self.n_features_in_) if found is None else found.astype(np.float64)
        self.score_mean_ = rows @ space.center
        variance = np.einsum("ij,jk,ik->i", rows, space.covariance, rows, optimize=True)
        scale = np.sqrt(np.maximum(variance, 0.0))
        varying = scale > 1e-12 * max(scale.max(), 1e-300)  # a constant score stays 0
        noise = 6e-6 * np.abs(self.score_mean_).max()  # as in `whitening`
        self.score_scale_ = np.where(varying, np.maximum(scale, noise), 1.0)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        tags.transformer_tags.preserves_dtype = ["float32"]  # activations are float32 whatever comes in
        return tags

    # -- inference -----------------------------------------------------------------------------------------------------

    def _inference(self) -> InferenceModel:
        return InferenceModel(
            bottleneck_=self.bottleneck_,
            head_weights_=self.head_weights_,
            head_intercept_=self.head_intercept_,
            score_mean_=self.score_mean_,
            score_scale_=self.score_scale_,
            concept_embeddings_=self.concept_embeddings_,
            concept_directions_=self.concept_directions_,
            presence_=self._presence,
            worth_=self._worth,
            label_counts_=self.label_counts_,
            classes_=self.classes_,
            concept_names_=self.concept_names_,
            device=self.device,
            multilabel_=self.multilabel_,
        )

    def _checked(self, X: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        return self._validated(X, reset=False)

    def _validated(self, X: ArrayLike, *y: ArrayLike, **options: Any) -> Any:
        """As scikit-learn's `validate_data`, for embeddings that may be memory-mapped."""
        # float16 stays so: a memory-mapped matrix of it would be copied whole, so rows become float32 as they are used.
        # Finiteness is checked here, since scikit-learn's check of float16 makes masks as long as the matrix.
        X = as_numpy(X)
        narrow = getattr(X, "dtype", None) == np.float16
        kinds = [np.float64, np.float32, np.float16]
        checked = validate_data(self, X, *y, dtype=kinds, ensure_all_finite=not narrow, **options)
        rows = checked[0] if y else checked
        if narrow:
            check_finite(rows, "X")
        # Rows of any length become unit rows before they become float32, which could not hold them.
        if self.concept_embeddings is None:
            check_scale(rows, "X", *SAFE_SCALE)
        elif rows.dtype == np.float64:
            rows = unit_rows(rows, "X", tolerance=UNIT)
        rows = rows.astype(np.float32) if rows.dtype == np.float64 else rows
        return (rows, *checked[1:]) if y else rows

    def concept_scores(self, X: ArrayLike) -> np.ndarray:
        """Concept scores psi = cos(x, c), standardised with training statistics: shape (n, M), float64."""
        X = self._checked(X)
        return self._inference().concept_scores(X)

    def units(self, X: ArrayLike) -> np.ndarray:
        """Outputs of the Concept Bottleneck Layer before selection: shape (n, M), float32."""
        X = self._checked(X)
        return self._inference().units(X)

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Concept activations: shape (n, M), float32, exactly zero where a concept is inactive.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, M)
        """
        X = self._checked(X)
        return self._inference().transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`: the concepts, shape (M,)."""
        check_is_fitted(self)
        return np.asarray(self.concept_names_, dtype=object)

    def logits(self, X: ArrayLike) -> np.ndarray:
        """Class scores, one column a class also for two classes: shape (n, K), float64."""
        X = self._checked(X)
        return np.concatenate(list(self._inference().score_blocks(X)))

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Class scores: shape (n, K); for two classes, the second's minus the first's, shape (n,)."""
        scores = self.logits(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 and not self.multilabel_ else scores

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Class probabilities (n, K): softmax of the class scores; a sigmoid each for an indicator matrix."""
        X = self._checked(X)
        return self._inference().predict_proba(X)

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Class of each image: shape (n,), or 0 and 1 (n, K). Memory does not grow with n times M."""
        X = self._checked(X)
        if self.multilabel_:
            return np.concatenate([(scores > 0).astype(np.int64) for scores in self._inference().score_blocks(X)])
        best = [scores.argmax(axis=1) for scores in self._inference().score_blocks(X)]
        return self.classes_[np.concatenate(best)]

    def _parts(self, X: ArrayLike) -> tuple[Any, ...]:
        return self.transform(X), self.head_weights_, self.head_intercept_, self.concept_names_, None, None

    def predict_images(self, images: Pictures, *, encoder: Encoder | str | None = None) -> np.ndarray:
        """Class of each picture, shape (n,).

        Parameters
        ----------
        images : picture, path, array, or sequence of them, length n
            See `Encoder.encode_images`.
        encoder : Encoder or str, optional
            That made the embeddings of `fit`; None takes the one that the model remembers.

        Raises
        ------
        InputError
            If a picture cannot be decoded, or the encoder is not known or another one.
        """
        return self.predict(self._encoder(encoder).encode_images(images))

    def _encoder(self, given: Encoder | str | None) -> Encoder:
        check_is_fitted(self)
        if self._score_rows() is None:
            raise InputError("this model was fitted on concept scores: no encoder makes them of pictures")
        if given is not None and not isinstance(given, str):
            return given
        from sparsecbm.encoders.remembered import remembered_encoder

        return remembered_encoder(self.metadata_.get("encoder"), self.n_features_in_, spec=given, holder=self)

    def explain_images(
        self,
        images: Pictures,
        *,
        encoder: Encoder | str | None = None,
        maps: bool = False,
        sources: Sequence[str] | None = None,
        truths: Sequence | None = None,
        **options: Any,
    ) -> Ledgers:
        """Account for the predictions of pictures, and say where in them the concepts are seen.

        Parameters
        ----------
        images : picture, path, array, or sequence of them, length n
        encoder : Encoder or str, optional
            See `predict_images`.
        maps : bool
            Whether each ledger also gets the maps of its active concepts.
        sources, truths : sequence, optional
            See `explain`.
        **options
            Of the maps, such as `method`; see `sparsecbm.encoders.maps.map_images`.

        Raises
        ------
        InputError
            If the encoder has no such maps, or X are concept scores, which come from no encoder.
        """
        from sparsecbm.encoders.base import as_pictures, loaded

        made_by, given = self._encoder(encoder), list(as_pictures(images))
        if sources is None and all(isinstance(image, (str, Path)) for image in given):
            sources = [str(image) for image in given]
        ledgers = self.explain(made_by.encode_images(given), sources, truths)
        if not maps:
            return ledgers
        pictures = [loaded(image, i) for i, image in enumerate(given)]
        return ledgers.with_maps(
            pictures, made_by, self.bottleneck_.weight.numpy(), self.bottleneck_.bias.numpy(), **options
        )

    # -- storage -------------------------------------------------------------------------------------------------------

    _ARRAY_PARAMETERS = ("concept_relevance", "cone_widths")

    def _arrays(self) -> Arrays:
        held = replace(self._inference(), presence_=self.presence_, worth_=self.worth_)
        widths = getattr(self, "cone_widths_", None)
        return held.arrays() | ({} if widths is None else {"tie.cone_widths": widths})

    def _extra(self) -> dict[str, Any]:
        gate = self.bottleneck_.gate
        return {
            "gate": {"name": gate.name, "options": gate.options()},
            "concept_names": self.concept_names_,
            "multilabel": self.multilabel_,
            "history": self.history_,
            "certificate": getattr(self, "certificate_", None),
        }

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        held = InferenceModel.from_record(record, arrays)
        self.concept_embeddings, self.concept_names = held.concept_embeddings_, held.concept_names_
        for name in (
            "bottleneck_", "head_weights_", "head_intercept_", "score_mean_", "score_scale_", "concept_embeddings_",
            "concept_names_", "concept_directions_", "presence_", "worth_", "label_counts_",
        ):  # fmt: skip
            setattr(self, name, getattr(held, name))
        if "tie.cone_widths" in arrays:  # not in models of version 0.1, nor of the published variant
            shape = (len(self.concept_names_),)
            check_arrays(arrays, {"tie.cone_widths": (np.float64, shape)})
            self.cone_widths_ = arrays["tie.cone_widths"]
        self.multilabel_ = held.multilabel_
        self.history_, self.certificate_ = record.history, record.certificate
        self.n_iter_ = int(record.history[-1]["step"])
