"""What a fitted `SparseCBMClassifier` computes: held by the estimator, and read from a stored model without it.

Importing scikit-learn and what it brings (scipy.stats, pandas, joblib) takes longer than explaining many pictures.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import InitVar, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from sparsecbm._base.logistic import sigmoid
from sparsecbm._base.model_files import holds_together
from sparsecbm._base.parameters import Count, Flag
from sparsecbm._base.rows import finite, row_lengths
from sparsecbm.bottleneck.gates import GATES, make_gate
from sparsecbm.bottleneck.model import FrozenBottleneck
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.estimators.inputs import unit_rows_lazily
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays, read_record

_ROWS = 4096


def softmax_rows(scores: np.ndarray) -> np.ndarray:
    """Probabilities of class scores (n, K)."""
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def class_probabilities(scores: np.ndarray, multilabel: bool) -> np.ndarray:
    """Probabilities of class scores (n, K): of one class a row, or of each by itself."""
    return sigmoid(scores) if multilabel else softmax_rows(scores)


def standardised(rows: np.ndarray, concepts: np.ndarray | None, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Concept scores (n, M) of rows of length one, by training statistics."""
    rows = rows.astype(np.float64)
    return ((rows if concepts is None else rows @ concepts.T.astype(np.float64)) - mean) / scale


def told_presence(model: Any, X: Any) -> dict[str, Any]:
    """What the ledgers of embeddings X are told: how probable each labelled concept is (n, M), `worth_`, `multilabel`.

    Concepts without labels are NaN: their probability is a guess that nobody has checked. No such without any labels.
    """
    many = {"multilabel": getattr(model, "multilabel_", False)}
    counts = getattr(model, "label_counts_", None)
    if counts is None or model.presence_ is None or model.worth_ is None:
        return many
    slope, intercept = model.presence_
    found = sigmoid(model.units(X).astype(np.float64) * slope + intercept)
    found[:, counts.sum(axis=0) == 0] = np.nan
    return {"presence": found, "worth": model.worth_, **many}


class _Limits(BaseModel):
    """Parameters of `SparseCBMClassifier` that are promises about what it computes."""

    model_config = ConfigDict(extra="ignore")

    max_active_concepts: Count | None
    concepts_per_class: Count | None
    nonnegative: Flag


@dataclass(eq=False)
class InferenceModel:
    """A bottleneck, a linear head, and the names of what goes in and comes out.

    Attributes
    ----------
    bottleneck_ : FrozenBottleneck
    head_weights_ : ndarray of shape (K, M), float64
    head_intercept_ : ndarray of shape (K,), float64
    score_mean_, score_scale_ : ndarray of shape (M,), float64
        Training statistics of the concept scores.
    concept_embeddings_ : ndarray of shape (M, d), float32, or None
        Unit rows; None: the columns of X are the concept scores.
    classes_ : ndarray of shape (K,)
    concept_names_ : list of str
    concept_directions_ : ndarray of shape (M, d), float32, or None
        In place of `concept_embeddings_` in concept scores, where labels moved them.
    presence_, worth_ : ndarray of shape (2, M), float64, or None
        Of `SparseCBMClassifier`; None in models of version 0.1.
    label_counts_ : ndarray of shape (2, M), int64, or None
        Of `SparseCBMClassifier`; None without concept labels.
    max_active_concepts : int or None
    multilabel_ : bool
        Whether classes do not exclude each other.
    metadata_ : dict
    device : str
        Where to compute, if it is there.
    """

    bottleneck_: FrozenBottleneck
    head_weights_: np.ndarray
    head_intercept_: np.ndarray
    score_mean_: np.ndarray
    score_scale_: np.ndarray
    concept_embeddings_: np.ndarray | None
    classes_: np.ndarray
    concept_names_: list[str]
    concept_directions_: np.ndarray | None = None
    presence_: np.ndarray | None = None
    worth_: np.ndarray | None = None
    label_counts_: np.ndarray | None = None
    max_active_concepts: int | None = None
    multilabel_: bool = False
    metadata_: dict[str, Any] = field(default_factory=dict)
    device: InitVar[str] = "auto"

    def __post_init__(self, device: str) -> None:
        self.bottleneck_ = replace(self.bottleneck_, device=device)

    @property
    def n_features_in_(self) -> int:
        """Dimensions d of the embeddings."""
        return int(self.bottleneck_.weight.shape[1])

    # -- storage -------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | Path, device: str = "auto") -> InferenceModel:
        """Read a model that `SparseCBMClassifier.save` wrote.

        Raises
        ------
        StoredFileError
            If a file is missing, foreign or changed, holds another kind of model, or what does not fit together.
        """
        record, arrays = read_record(path, "SparseCBMClassifier")
        with holds_together(path):
            return cls.from_record(record, arrays, device)

    @classmethod
    def from_record(cls, record: ModelRecord, arrays: Arrays, device: str = "auto") -> InferenceModel:
        """Put a model together from what is stored of it.

        Raises
        ------
        StoredFileError
            If arrays, names, classes, gate and limits contradict each other.
        """
        if record.classes is None:
            raise ValueError("it has no classes")
        classes, names = record.classes.array(), record.concept_names
        k, m, d = len(classes), len(names), record.n_features_in
        gate, limits = record.gate, _Limits.model_validate(record.parameters)
        if gate is None or not record.history:
            raise ValueError("it has no gate, or no history")
        GATES.check(gate.name)
        options = _within(limits, gate.options)
        state = make_gate(gate.name, m, options).state_dict()
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "bottleneck.weight": (np.float32, (m, d)),
            "bottleneck.bias": (np.float32, (m,)),
            "head.weight": (np.float64, (k, m)),
            "head.intercept": (np.float64, (k,)),
            "scores.mean": (np.float64, (m,)),
            "scores.scale": (np.float64, (m,)),
            **{f"gate.{name}": (value.numpy().dtype, tuple(value.shape)) for name, value in state.items()},
        }
        optional: dict[str, tuple[Any, tuple[int, ...]]] = {
            "scores.concept_embeddings": (np.float32, (m, d)),
            "scores.directions": (np.float32, (m, d)),
            "concepts.presence": (np.float64, (2, m)),
            "concepts.worth": (np.float64, (2, m)),
            "concepts.label_counts": (np.int64, (2, m)),
        }
        expected |= {name: found for name, found in optional.items() if name in arrays}
        check_arrays(arrays, expected)
        strange = next((name for name in arrays if name not in expected and name.startswith("gate.")), None)
        if strange is not None:
            raise ValueError(f"the array {strange!r} belongs to no {gate.name} gate")
        model = cls(
            bottleneck_=FrozenBottleneck.from_tensors(_tensors(arrays), gate.name, options),
            head_weights_=arrays["head.weight"],
            head_intercept_=arrays["head.intercept"],
            score_mean_=arrays["scores.mean"],
            score_scale_=arrays["scores.scale"],
            concept_embeddings_=arrays.get("scores.concept_embeddings"),
            classes_=classes,
            concept_names_=names,
            concept_directions_=arrays.get("scores.directions"),
            presence_=arrays.get("concepts.presence"),
            worth_=arrays.get("concepts.worth"),
            label_counts_=arrays.get("concepts.label_counts"),
            max_active_concepts=limits.max_active_concepts,
            multilabel_=record.multilabel,
            metadata_=record.metadata,
            device=device,
        )
        model._check(limits)
        return model

    def _check(self, limits: _Limits) -> None:
        """Refuse arrays that do not keep what the parameters promise, or that nothing can be calculated with."""
        # Later edits of the model may set weights of their own; they are kept, and shown, with it.
        edits = self.metadata_.get("edits")
        per_class = limits.concepts_per_class if edits is None else None
        nonzeros = np.count_nonzero(self.head_weights_)
        if per_class is not None and nonzeros > per_class * len(self.classes_):
            raise ValueError(f"concepts_per_class is {per_class}, but the head has {nonzeros} weights")
        if not (self.score_scale_ > 0).all():
            raise ValueError("the array 'scores.scale' holds numbers that are not above 0")
        if self.concept_embeddings_ is not None:
            lengths = row_lengths(self.concept_embeddings_)
            if not np.allclose(lengths, 1.0, atol=1e-2):
                raise ValueError("the concept embeddings are not of length one")

    def arrays(self) -> Arrays:
        """All arrays by name, for `from_record`."""
        stored = {
            **{name: value.numpy() for name, value in self.bottleneck_.tensors().items()},
            "head.weight": np.asarray(self.head_weights_, dtype=np.float64),
            "head.intercept": np.asarray(self.head_intercept_, dtype=np.float64),
            "scores.mean": self.score_mean_,
            "scores.scale": self.score_scale_,
        }
        optional = {
            "scores.concept_embeddings": self.concept_embeddings_,
            "scores.directions": self.concept_directions_,
            "concepts.presence": self.presence_,
            "concepts.worth": self.worth_,
            "concepts.label_counts": self.label_counts_,
        }
        return stored | {name: value for name, value in optional.items() if value is not None}

    # -- what it computes of finite embeddings (n, d) ------------------------------------------------------------------

    def rows(self, X: np.ndarray) -> np.ndarray | Rows:
        """Embeddings as the bottleneck takes them: of length one, unless they are concept scores."""
        return X if self.concept_embeddings_ is None else unit_rows_lazily(X, "X")

    def units(self, X: np.ndarray) -> np.ndarray:
        """Units before selection: shape (n, M), float32."""
        return finite(self.bottleneck_.units(self.rows(X)), "units")

    def transform(self, X: np.ndarray) -> np.ndarray:
        """Concept activations: shape (n, M), float32."""
        return finite(self.bottleneck_.activations(self.rows(X)), "activations")

    def concept_scores(self, X: np.ndarray) -> np.ndarray:
        """Standardised concept scores: shape (n, M), float64."""
        rows = np.asarray(self.rows(X)[:], dtype=np.float32)
        directions = self.concept_embeddings_ if self.concept_directions_ is None else self.concept_directions_
        return standardised(rows, directions, self.score_mean_, self.score_scale_)

    def score_blocks(self, X: np.ndarray) -> Iterator[np.ndarray]:
        """Class scores (rows, K), float64, of some rows at a time: memory does not grow with n times M."""
        rows = self.rows(X)
        for start in range(0, len(rows), _ROWS):
            activations = finite(self.bottleneck_.activations(rows[start : start + _ROWS]), "activations")
            scores = activations.astype(np.float64) @ self.head_weights_.T + self.head_intercept_
            yield finite(scores, "class scores")

    def predict_proba(self, X: np.ndarray) -> np.ndarray:
        """Class probabilities: shape (n, K)."""
        return np.concatenate([class_probabilities(scores, self.multilabel_) for scores in self.score_blocks(X)])


def _within(limits: _Limits, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a gate that keeps what the parameters promise.

    Raises
    ------
    ValueError
        If the gate is of a kind that cannot.
    """
    active, kept = limits.max_active_concepts, options.get("max_active_concepts")
    if active is not None and type(kept) is not int:
        raise ValueError(f"max_active_concepts is {active} in its parameters and {kept!r} in its gate")
    if options.get("nonnegative", limits.nonnegative) is not limits.nonnegative:
        raise ValueError(f"nonnegative is {limits.nonnegative} in its parameters and not so in its gate")
    if active is None or kept is None or kept <= active:
        return dict(options)
    warnings.warn(
        f"the stored model's gate would keep {kept} concepts, its parameters promise {active}: it keeps {active}",
        stacklevel=2,
    )
    return {**options, "max_active_concepts": active}


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    ours = (name for name in arrays if name.startswith(("bottleneck.", "gate.")))
    return {name: torch.from_numpy(arrays[name]) for name in ours}
