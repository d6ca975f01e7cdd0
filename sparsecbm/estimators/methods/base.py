"""What the published methods share: concept scores, units, activations, and a linear head with its budget."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsecbm._base.errors import InputError
from sparsecbm._base.labels import class_numbers, number_classes
from sparsecbm._base.parameters import checked_parameters
from sparsecbm._base.rows import as_numpy, check_scale, row_lengths, unit_rows
from sparsecbm.estimators.class_scores import ClassScoreClassifier, ExplainedScores
from sparsecbm.estimators.inputs import SAFE_SCALE, check_concepts, column_names, encoder_note
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

Rows = NDArray[np.float64]

ALPHA = 0.99
"""Share of the l1 norm in the elastic net of the published heads."""


class ConceptMethod(ExplainedScores, TransformerMixin, ClassScoreClassifier):
    """Base of the published methods: class scores = W a(x) + b, a(x) the activations of named concepts.

    A subclass makes units in `_learn` and may turn them into activations of its own. Its parameters include
    `concept_embeddings`, `concept_names` (None: the columns of X are the concept scores), `concepts_per_class` and
    `random_state`. The head: with ``concepts_per_class=None`` the paper's own; with k the published rule for a budget
    (VLG-CBM, arXiv 2408.01432), the first point of the elastic-net path with k weights a class, cut by magnitude.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    concept_names_ : list of str
        Of the M concepts that the method keeps.
    concept_embeddings_ : ndarray of shape (M, d), float32, or None
    unit_weights_, unit_bias_ : ndarray of shape (M, d) and (M,)
        Units are ``x @ unit_weights_.T + unit_bias_``.
    head_weights_, head_intercept_ : ndarray of shape (K, M) and (K,)
    n_features_in_ : int
    """

    concept_embeddings: Any
    concept_names: Any
    concepts_per_class: int | None
    random_state: Any
    lam: float
    draws = True
    """Whether anything is drawn: without it, every `random_state` gives the same model."""
    concept_names_: list[str]
    concept_embeddings_: NDArray[np.float32] | None

    # -- for a subclass ------------------------------------------------------------------------------------------------

    @abstractmethod
    def _learn(self, *data: Any, **given: Any) -> None:
        """Make the units, by `_keep`: of unit rows (n, d), class numbers (n,), and what `fit` was given besides."""

    def _activate(self, rows: Rows) -> Rows:
        """Activations (n, M) of checked rows; the units themselves unless a method has gates."""
        return self._units(rows)

    def _own_head(self, A: Rows, labels: NDArray[np.int64]) -> tuple[Rows, Rows]:
        """The paper's head without a budget: elastic net with penalty `lam`."""
        from sparsecbm.heads import multinomial_logistic

        centre = A.mean(axis=0)
        found = multinomial_logistic(A - centre, labels, l1=self.lam * ALPHA, l2=self.lam * (1 - ALPHA), tol=1e-4)
        return found.coef, found.intercept - found.coef @ centre

    def _head(self, A: Rows, labels: NDArray[np.int64], budgets: Sequence[int]) -> list[tuple[Rows, Rows]]:
        """Heads with at most so many weights a class."""
        from sparsecbm.heads import SparseHead

        path = SparseHead(budgets[0], method="path_cut").path(A, labels, budgets)
        found = dict(zip(path.nec, path.heads))
        return [(found[k].coef_, found[k].intercept_) for k in budgets]

    def _leftover(self, rows: Rows) -> Rows | None:
        """Part of the scores (n, K) that no concept carries."""
        return None

    def _decided(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        """Called when the head stands."""

    def _shapes(self, k: int, m: int, d: int) -> dict[str, tuple[int, ...]]:
        """Fitted arrays (float64) and their shapes, for storage."""
        return {"unit_weights_": (m, d), "unit_bias_": (m,), "head_weights_": (k, m), "head_intercept_": (k,)}

    def _scores_of(self, rows: Rows) -> Rows:
        """Concept scores of rows."""
        return rows if self.concept_embeddings_ is None else rows @ self.concept_embeddings_.T.astype(np.float64)

    def _keep(self, weights: Rows, bias: Rows, chosen: NDArray[np.int64] | None = None) -> None:
        """Take units, of the concepts numbered `chosen`."""
        self.unit_weights_, self.unit_bias_ = np.ascontiguousarray(weights), bias
        if chosen is not None:
            self.concept_names_ = [self.concept_names_[j] for j in chosen]
            if self.concept_embeddings_ is not None:
                self.concept_embeddings_ = self.concept_embeddings_[chosen]

    def _standardised_scores(self, rows: Rows) -> tuple[Rows, Rows]:
        """Weights and bias of units that are concept scores, of mean 0 and standard deviation 1 over `rows`."""
        bank = np.eye(rows.shape[1]) if self.concept_embeddings_ is None else self.concept_embeddings_.astype(float)
        scores = self._scores_of(rows)
        scale = spread(scores)
        return bank / scale[:, None], -scores.mean(axis=0) / scale

    @property
    def _seed(self) -> int:
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    # -- what everyone calls -------------------------------------------------------------------------------------------

    def fit(self, X: ArrayLike, y: ArrayLike, **given: Any) -> Self:
        """Fit units and head.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, or concept scores if there are no concept embeddings.
        y : array-like of shape (n,)
            Class labels.
        **given
            What the method reads besides, see its class.

        Raises
        ------
        InputError
            If a parameter, a shape or a value is not as expected; one line says which.
        """
        checked_parameters(self)
        made_by = encoder_note(X)
        rows, y = validate_data(self, as_numpy(X), as_numpy(y), dtype=[np.float64, np.float32], ensure_min_samples=2)
        rows = self._prepared(rows)
        self.classes_, labels = number_classes(y, len(rows))
        names = column_names(self) if self.concept_names is None else self.concept_names
        self.concept_embeddings_, self.concept_names_ = check_concepts(
            self.concept_embeddings, names, self.n_features_in_
        )
        self._learn(rows, labels, **given)
        self._decide(rows, labels)
        self.metadata_ = {} if made_by is None else {"encoder": made_by}
        return self

    def budgets(self, X: ArrayLike, y: ArrayLike, nec: Sequence[int]) -> list[Self]:
        """The same units under other budgets `nec` (`concepts_per_class`): a model each; X, y are those of `fit`."""
        rows = self._float_rows(self._checked(X))
        labels = class_numbers(y, len(rows), self.classes_, "y")
        models = []
        for k, (weights, intercept) in zip(nec, self._head(self._activate(rows), labels, list(nec))):
            model = copy.copy(self).set_params(concepts_per_class=k)
            model.head_weights_, model.head_intercept_ = weights, intercept
            model._decided(rows, labels)
            models.append(model)
        return models

    def units(self, X: ArrayLike) -> Rows:
        """Units before any gate: shape (n, M)."""
        return self._units(self._float_rows(self._checked(X)))

    def transform(self, X: ArrayLike) -> Rows:
        """Activations: shape (n, M), exactly zero where a concept is inactive."""
        return self._activate(self._float_rows(self._checked(X)))

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        """Names of the columns of `transform`: the concepts, shape (M,)."""
        check_is_fitted(self)
        return np.asarray(self.concept_names_, dtype=object)

    def _decide(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        A, k = self._activate(rows), self.concepts_per_class
        head = self._own_head(A, labels) if k is None else self._head(A, labels, [int(k)])[0]
        self.head_weights_, self.head_intercept_ = head
        self._decided(rows, labels)

    def _prepared(self, rows: NDArray[Any]) -> Rows:
        if not self._unit_rows():
            check_scale(rows, "X", *SAFE_SCALE)
            return rows.astype(np.float64)
        row_lengths(rows, "X")
        return unit_rows(rows, dtype=np.float64)

    def _unit_rows(self) -> bool:
        return self.concept_embeddings is not None

    def _units(self, rows: Rows) -> Rows:
        return rows @ self.unit_weights_.T + self.unit_bias_

    def _scores(self, X: Rows) -> Rows:
        scores = self._activate(X) @ self.head_weights_.T + self.head_intercept_
        left = self._leftover(X)
        return scores if left is None else scores + left

    def _parts(self, X: ArrayLike) -> tuple[Any, ...]:
        rows = self._float_rows(self._checked(X))
        left, scores = self._leftover(rows), self._scores(rows)
        return self._activate(rows), self.head_weights_, self.head_intercept_, self.concept_names_, scores, left

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64"]
        return tags

    def _arrays(self) -> Arrays:
        k, m, d = len(self.classes_), len(self.concept_names_), self.n_features_in_
        held = {name: np.asarray(getattr(self, name), dtype=np.float64) for name in self._shapes(k, m, d)}
        return held if self.concept_embeddings_ is None else held | {"concept_embeddings_": self.concept_embeddings_}

    def _extra(self) -> dict[str, Any]:
        return {"concept_names": self.concept_names_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        self.concept_names = self.concept_names_ = record.concept_names
        k, m, d = len(self.classes_), len(record.concept_names), record.n_features_in
        shapes = self._shapes(k, m, d)
        expected: dict[str, Any] = {name: (np.float64, shape) for name, shape in shapes.items()}
        if "concept_embeddings_" in arrays:
            expected["concept_embeddings_"] = (np.float32, (m, d))
        check_arrays(arrays, expected)
        for name in shapes:
            setattr(self, name, arrays[name])
        self.concept_embeddings = self.concept_embeddings_ = arrays.get("concept_embeddings_")


def spread(scores: Rows) -> Rows:
    """Standard deviations of columns, 1 where a column is constant."""
    deviation = scores.std(axis=0)
    return np.where(deviation > 1e-9 * max(float(np.abs(scores).max(initial=0.0)), 1e-300), deviation, 1.0)


def descend(
    parameters: Sequence[Tensor],
    loss: Callable[[Tensor, int], Tensor],
    n: int,
    *,
    steps: int,
    learning_rate: float,
    batch_size: int,
    seed: int,
) -> None:
    """Adam on batches of rows: `loss` takes the numbers of the rows of a batch, and of the step."""
    import torch

    from sparsecbm._base.training import threads_for

    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(list(parameters), lr=learning_rate)
    size, order = min(n, batch_size), torch.arange(0)
    with threads_for(size * sum(value.numel() for value in parameters)):
        for step in range(steps):
            if len(order) < size:
                order = torch.randperm(n, generator=generator) if size < n else torch.arange(n)
            batch, order = order[:size], order[size:]
            optimizer.zero_grad(set_to_none=True)
            value = loss(batch, step)
            if not torch.isfinite(value):
                raise InputError(f"training diverged at step {step}: lower learning_rate ({learning_rate})")
            value.backward()  # type: ignore[no-untyped-call]
            optimizer.step()


def snap(vectors: Rows, bank: Rows, taken: Sequence[int] = ()) -> list[int]:
    """Number of the nearest row of `bank` (by cosine) to each vector, the nearest pair first, none twice."""
    cosines = unit_rows(vectors) @ unit_rows(bank).T
    cosines[:, list(taken)] = -np.inf
    found = [0] * len(vectors)
    for _ in range(len(vectors)):
        i, j = np.unravel_index(int(cosines.argmax()), cosines.shape)
        found[int(i)] = int(j)
        cosines[i], cosines[:, j] = -np.inf, -np.inf
    return found
