"""SparseCBMClassifier: a sparse concept bottleneck on embeddings, with scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import ModelHubMixin
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassifierMixin, TransformerMixin
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.model_files import holds_together, read_model, write_model
from sparsecbm.bottleneck import (
    ConceptBottleneck,
    ConceptBottleneckLayer,
    FrozenBottleneck,
    PublishedBottleneckLayer,
    Rows,
    Trainer,
    TrainingOptions,
    class_means,
    loss_class,
    make_gate,
    make_loss,
    whitening,
)
from sparsecbm.estimators.inference import InferenceModel, score_blocks, softmax_rows
from sparsecbm.estimators.inputs import check_concepts, check_finite, unit_rows_lazily

if TYPE_CHECKING:
    from sparsecbm.explain import Ledgers


class SparseCBMClassifier(
    ModelHubMixin, ClassifierMixin, TransformerMixin, BaseEstimator, library_name="sparsecbm", tags=["sparsecbm"]
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
    loss : {"gumbel", "contrastive", "l1", "similarity", "none"}
        The concept loss added to the cross-entropy.
    variant : {"default", "published"}
        "published" is the authors' model and formula to the letter (raw scores, untied dense layer, head without
        intercept), as a baseline; its activations are never exactly zero.
    max_active_concepts : int or None
        The most concepts that may be active in one image: a hard limit on non-zeros of every row of `transform`.
        None: "gumbel" and "l1" choose themselves; the other losses leave all active.
    concepts_per_class : int or None
        Number of effective concepts (NEC), on average over classes: the head is refitted with at most
        ``K * concepts_per_class`` non-zero weights. None keeps the dense head that was trained with the layer. Where
        dense activations of all rows would take more than 512 MB, they stay sparse.
    concept_relevance : array-like of shape (K, M) or None
        How much each concept belongs to each class (rows in sorted class order), for "contrastive". None: the positive
        part of each class's mean standardised concept score.
    min_alignment : float
        In (0, 1]: the least correlation of unit j with concept score j over the (shrunk) training distribution.
        1 keeps units equal to the concept scores.
    nonnegative : bool
        Whether only positive units can be active, so that an explanation names concepts that are there.
    loss_weight : float or None
        Weight of the concept loss; None takes the loss's own default.
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
        Optimizer steps; None takes 300, or three passes over the data if that is more.
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
    device : {"auto", "cpu", "cuda", "mps"}
        Where to train. Inference is on the CPU.
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
    score_mean_, score_scale_ : ndarray of shape (M,)
        Training statistics of the concept scores.
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
        loss: str = "gumbel",
        variant: str = "default",
        max_active_concepts: int | None = None,
        concepts_per_class: int | None = None,
        concept_relevance: ArrayLike | None = None,
        min_alignment: float = 0.9,
        nonnegative: bool = True,
        loss_weight: float | None = None,
        covariance_shrinkage: float = 0.3,
        input_noise: float = 1.0,
        temperature: tuple[float, float] = (1.0, 0.1),
        head_l2: float = 1e-4,
        learning_rate: float = 3e-3,
        batch_size: int = 256,
        max_iter: int | None = None,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 5,
        mixed_precision: str = "no",
        gradient_accumulation_steps: int = 1,
        logit_scale: float = 100.0,
        log_with: str | None = None,
        log_dir: str | None = None,
        device: str = "auto",
        random_state: Any = None,
        verbose: bool | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.loss = loss
        self.variant = variant
        self.max_active_concepts = max_active_concepts
        self.concepts_per_class = concepts_per_class
        self.concept_relevance = concept_relevance
        self.min_alignment = min_alignment
        self.nonnegative = nonnegative
        self.loss_weight = loss_weight
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
        checkpoint_dir: str | Path | None = None,
    ) -> SparseCBMClassifier:
        """Train layer, gate and head.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, or concept scores if there are no concept embeddings. Memory-mapped float16 or float32 arrays
            stay on disk: they are never copied whole, also not to scale rows or to hold some out.
        y : array-like of shape (n,)
            Class labels.
        X_val, y_val : array-like, optional
            Validation data, for the history and for early stopping.
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
        X, y = self._validated(X, y, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, labels = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds one class only, {self.classes_[0]!r}: expected at least two classes")
        concepts, self.concept_names_ = check_concepts(self.concept_embeddings, self.concept_names, self.n_features_in_)
        X = self._rows(X)
        validation = self._validation_data(X_val, y_val)
        if self.early_stopping and validation is None:
            X, labels, validation = self._hold_out(X, labels)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

        published = self.variant == "published"
        kind = loss_class(self.loss, self.variant)
        if published and self.max_active_concepts is not None:
            raise InputError("max_active_concepts with variant='published': the published models have no hard limit")
        space = whitening(X, self.covariance_shrinkage)
        self._set_score_statistics(space, concepts)
        n_concepts, n_classes = len(self.concept_names_), len(self.classes_)
        loss = make_loss(self.loss, self.variant, self._relevance(X, labels) if kind.needs_relevance else None)
        generator = torch.Generator().manual_seed(seed) if published else None
        if generator is not None:
            layer = PublishedBottleneckLayer(concepts, X.shape[1], self.logit_scale, generator)
            gate = make_gate("dense", n_concepts, {})
        else:
            layer = ConceptBottleneckLayer(space, concepts, self.min_alignment)
            gate = self._make_gate(loss.gate_name(self.max_active_concepts), n_concepts)
        model = ConceptBottleneck(layer, gate, n_classes, generator)
        trainer = Trainer(
            model,
            loss,
            self._options(len(X), kind.default_weight, published),
            seed=seed,
            device=self.device,
            scores=self._torch_scores(concepts, raw=published),
            checkpoint_dir=checkpoint_dir,
            log_with=self.log_with,
            log_dir=self.log_dir,
            progress=self.verbose,
        )
        self.history_ = trainer.fit(X, labels, *(validation or (None, None)))
        self.n_iter_ = int(self.history_[-1]["step"])
        self.bottleneck_ = FrozenBottleneck.freeze(trainer.model)
        head = trainer.model.head
        self.head_weights_ = head.weight.detach().cpu().numpy().astype(np.float64)
        self.head_intercept_ = (
            np.zeros(n_classes) if head.bias is None else head.bias.detach().cpu().numpy().astype(np.float64)
        )
        if self.concepts_per_class is not None:
            self._refit_head(X, labels, seed, checkpoint_dir)
        self.metadata_: dict[str, Any] = {}
        return self

    def _make_gate(self, name: str, n_concepts: int):
        options: dict[str, object] = {}
        if name != "dense":
            options["nonnegative"] = bool(self.nonnegative)
        if name in ("top_k", "gumbel_top_k", "soft_threshold"):
            options["max_active_concepts"] = self.max_active_concepts
        return make_gate(name, n_concepts, options)

    def _options(self, n: int, default_weight: float, published: bool) -> TrainingOptions:
        max_iter = self.max_iter
        if max_iter is None:
            max_iter = max(300, 3 * -(-n // min(self.batch_size, n)))
        return TrainingOptions(
            max_iter=max_iter,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            layer_learning_rate=(1.0 if published else 0.3) * self.learning_rate,
            loss_weight=default_weight if self.loss_weight is None else self.loss_weight,
            head_l2=0.0 if published else self.head_l2,
            input_noise=0.0 if published else self.input_noise,
            temperature=tuple(self.temperature),
            early_stopping=self.early_stopping,
            n_iter_no_change=self.n_iter_no_change,
            mixed_precision=self.mixed_precision,
            gradient_accumulation_steps=self.gradient_accumulation_steps,
        )

    def _rows(self, X: np.ndarray) -> np.ndarray | Rows:
        return X if self.concept_embeddings is None else unit_rows_lazily(X, "X")

    def _validation_data(
        self, X_val: ArrayLike | None, y_val: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray] | None:
        if X_val is None and y_val is None:
            return None
        if X_val is None or y_val is None:
            raise InputError("X_val and y_val go together: one of them is missing")
        X_val = self._rows(self._validated(X_val, reset=False))
        y_val = np.asarray(y_val)
        if len(y_val) != len(X_val):
            raise InputError(f"X_val has {len(X_val)} rows but y_val has {len(y_val)}: expected one label a row")
        unseen = np.setdiff1d(y_val, self.classes_)
        if len(unseen):
            raise InputError(f"y_val holds {unseen[0]!r}, which is not among the training classes")
        return X_val, np.searchsorted(self.classes_, y_val)

    def _hold_out(self, X: np.ndarray | Rows, labels: np.ndarray) -> tuple[Rows, np.ndarray, tuple[Rows, np.ndarray]]:
        counts = np.bincount(labels)
        if counts.min() < 2:
            raise InputError(
                f"class {self.classes_[counts.argmin()].item()!r} has one image: early_stopping cannot split it; "
                "give X_val and y_val, or set early_stopping=False"
            )
        state = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        n_held = max(round(self.validation_fraction * len(X)), len(self.classes_))
        split = train_test_split(np.arange(len(X)), test_size=n_held, stratify=labels, random_state=int(state))
        rows = X if isinstance(X, Rows) else Rows(X)
        train, held = ((rows.take(index), labels[index]) for index in map(np.sort, split))
        return *train, held

    def _set_score_statistics(self, space, concepts: np.ndarray | None) -> None:
        rows = np.eye(self.n_features_in_) if concepts is None else concepts.astype(np.float64)
        self.score_mean_ = rows @ space.center
        variance = np.einsum("ij,jk,ik->i", rows, space.covariance, rows, optimize=True)
        scale = np.sqrt(np.maximum(variance, 0.0))
        self.score_scale_ = np.where(scale > 1e-12 * max(scale.max(), 1e-300), scale, 1.0)  # a constant score stays 0
        self.concept_embeddings_ = concepts

    def _torch_scores(self, concepts: np.ndarray | None, raw: bool):
        mean, scale = torch.from_numpy(self.score_mean_).float(), torch.from_numpy(self.score_scale_).float()
        rows = None if concepts is None else torch.from_numpy(np.ascontiguousarray(concepts.T))

        def scores(x: torch.Tensor) -> torch.Tensor:
            psi = x if rows is None else x @ rows.to(x.device)
            return psi if raw else (psi - mean.to(x.device)) / scale.to(x.device)

        return scores

    def _relevance(self, X: np.ndarray | Rows, labels: np.ndarray) -> torch.Tensor:
        shape = (len(self.classes_), len(self.concept_names_))
        if self.concept_relevance is not None:
            relevance = np.asarray(self.concept_relevance, dtype=np.float64)
            if relevance.shape != shape or not np.isfinite(relevance).all():
                raise InputError(
                    f"concept_relevance has shape {relevance.shape}: expected finite numbers of shape {shape} "
                    "(classes in sorted order, concepts)"
                )
            return torch.from_numpy(relevance).float()
        means = class_means(X, labels, shape[0])
        return torch.from_numpy(np.maximum(self._standardised(means), 0.0)).float()

    def _refit_head(
        self, X: np.ndarray | Rows, labels: np.ndarray, seed: int, checkpoint_dir: str | Path | None
    ) -> None:
        from sparsecbm.heads import SparseHead, stays_sparse

        head = SparseHead(concepts_per_class=self.concepts_per_class, random_state=seed)
        # Sparse only where the dense matrix is too large: a dense one is faster to work on while it fits.
        sparse = self.bottleneck_.gate.name != "dense" and stays_sparse((len(X), len(self.concept_names_)))
        make = self.bottleneck_.sparse_activations if sparse else self.bottleneck_.activations
        head.fit(make(X), labels, checkpoint_dir=checkpoint_dir)
        self.head_weights_ = np.asarray(head.coef_, dtype=np.float64)
        self.head_intercept_ = np.asarray(head.intercept_, dtype=np.float64)
        self.certificate_ = head.certificate_

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float32"]  # activations are float32 whatever comes in
        return tags

    # -- inference -----------------------------------------------------------------------------------------------------

    def _checked(self, X: ArrayLike) -> np.ndarray | Rows:
        check_is_fitted(self)
        X = self._validated(X, reset=False)
        return X if self.concept_embeddings_ is None else unit_rows_lazily(X, "X")

    def _validated(self, X: ArrayLike, *y: ArrayLike, **options: Any) -> Any:
        """As scikit-learn's `validate_data`, for embeddings that may be memory-mapped."""
        # float16 stays so: a memory-mapped matrix of it would be copied whole, so rows become float32 as they are used.
        # Finiteness is checked here, since scikit-learn's check of float16 makes masks as long as the matrix.
        narrow = getattr(X, "dtype", None) == np.float16
        checked = validate_data(
            self, X, *y, dtype=[np.float32, np.float16], ensure_all_finite=not narrow, **options
        )  # fmt: skip
        if narrow:
            check_finite(checked[0] if y else checked, "X")
        return checked

    def _standardised(self, X: np.ndarray) -> np.ndarray:
        scores = X if self.concept_embeddings_ is None else X @ self.concept_embeddings_.T
        return (scores - self.score_mean_) / self.score_scale_

    def concept_scores(self, X: ArrayLike) -> np.ndarray:
        """Concept scores psi = cos(x, c), standardised with training statistics: shape (n, M), float64."""
        return self._standardised(np.asarray(self._checked(X)[:], dtype=np.float32))

    def units(self, X: ArrayLike) -> np.ndarray:
        """Outputs of the Concept Bottleneck Layer before selection: shape (n, M), float32."""
        return self.bottleneck_.units(self._checked(X))

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
        return self.bottleneck_.activations(X)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """Names of the columns of `transform`: the concepts, shape (M,)."""
        check_is_fitted(self)
        return np.asarray(self.concept_names_, dtype=object)

    def logits(self, X: ArrayLike) -> np.ndarray:
        """Class scores, one column a class also for two classes: shape (n, K), float64."""
        return np.concatenate(list(self._score_blocks(X)))

    def _score_blocks(self, X: ArrayLike) -> Iterator[np.ndarray]:
        X = self._checked(X)
        return score_blocks(self.bottleneck_, X, self.head_weights_, self.head_intercept_)

    def decision_function(self, X: ArrayLike) -> np.ndarray:
        """Class scores: shape (n, K); for two classes, the second's minus the first's, shape (n,)."""
        scores = self.logits(X)
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """Softmax of the class scores: shape (n, K), rows sum to 1."""
        return np.concatenate([softmax_rows(scores) for scores in self._score_blocks(X)])

    def predict(self, X: ArrayLike) -> np.ndarray:
        """Class of each image: shape (n,). Memory does not grow with n times M or K."""
        best = [scores.argmax(axis=1) for scores in self._score_blocks(X)]
        return self.classes_[np.concatenate(best)]

    def explain(self, X: ArrayLike, sources: Sequence[str] | None = None, truths: Sequence | None = None) -> Ledgers:
        """Account for the predictions: class score = intercept + sum of activation times weight, exactly.

        Parameters
        ----------
        X : array-like of shape (n, d)
        sources, truths : sequence, optional
            n image names and n true class names, for titles.

        Returns
        -------
        Ledgers
            One ledger an image.
        """
        from sparsecbm.explain import explain

        names = (getattr(self, "metadata_", None) or {}).get("class_names") or [str(c) for c in self.classes_.tolist()]
        return explain(
            self.transform(X),
            self.head_weights_,
            self.head_intercept_,
            self.concept_names_,
            names,
            sources=sources,
            truths=truths,
        )

    # -- storage -------------------------------------------------------------------------------------------------------

    _CONSTRUCTOR_ARRAYS = ("concept_embeddings", "concept_names", "concept_relevance", "random_state", "verbose")

    def save(self, path: str | Path) -> None:
        """Write the fitted model to a folder: ``model.safetensors`` and ``config.json``. No pickle.

        Raises
        ------
        StoredFileError
            If the folder cannot be written.
        """
        check_is_fitted(self)
        parameters = {k: v for k, v in self.get_params(deep=False).items() if k not in self._CONSTRUCTOR_ARRAYS}
        parameters["temperature"] = list(self.temperature)
        tensors = {
            **self.bottleneck_.tensors(),
            "head.weight": torch.from_numpy(self.head_weights_),
            "head.intercept": torch.from_numpy(self.head_intercept_),
            "scores.mean": torch.from_numpy(self.score_mean_),
            "scores.scale": torch.from_numpy(self.score_scale_),
        }
        if self.concept_embeddings_ is not None:
            tensors["scores.concept_embeddings"] = torch.from_numpy(np.array(self.concept_embeddings_, order="C"))
        gate = self.bottleneck_.gate
        write_model(
            path,
            tensors,
            {
                "class": type(self).__name__,
                "parameters": parameters,
                "gate": {"name": gate.name, "options": gate.options()},
                "concept_names": self.concept_names_,
                "classes": {"dtype": self.classes_.dtype.str, "values": self.classes_.tolist()},
                "n_features_in": int(self.n_features_in_),
                "history": self.history_,
                "metadata": getattr(self, "metadata_", {}),
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> SparseCBMClassifier:
        """Read a model that `save` wrote; it predicts bit for bit as the saved one did.

        Raises
        ------
        StoredFileError
            If a file is missing, foreign or changed.
        """
        tensors, config = read_model(path)
        with holds_together(path):
            return cls._from_parts(tensors, config)

    @classmethod
    def _from_parts(cls, tensors: dict[str, torch.Tensor], config: dict[str, Any]) -> SparseCBMClassifier:
        if config["class"] != cls.__name__:
            raise StoredFileError(f"the folder holds a {config['class']}, not a {cls.__name__}")
        parameters = dict(config["parameters"])
        parameters["temperature"] = tuple(parameters["temperature"])
        concepts = tensors.get("scores.concept_embeddings")
        concepts = None if concepts is None else concepts.numpy()
        model = cls(concepts, list(config["concept_names"]), **parameters)
        model.concept_embeddings_ = concepts
        # What predicts is read, and checked, in one place.
        frozen = InferenceModel(tensors, config)
        model.concept_names_, model.classes_ = frozen.concept_names_, frozen.classes_
        model.n_features_in_, model.metadata_ = frozen.n_features_in_, frozen.metadata_
        model.bottleneck_ = frozen.bottleneck_
        model.head_weights_, model.head_intercept_ = frozen.head_weights_, frozen.head_intercept_
        model.score_mean_ = tensors["scores.mean"].numpy()
        model.score_scale_ = tensors["scores.scale"].numpy()
        model.history_ = config["history"]
        model.n_iter_ = int(config["history"][-1]["step"])
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory)

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **kwargs: Any,
    ) -> SparseCBMClassifier:
        if Path(model_id).is_dir():
            return cls.load(model_id)
        from huggingface_hub import snapshot_download

        return cls.load(
            snapshot_download(
                model_id,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=["config.json", "model.safetensors"],
            )
        )
