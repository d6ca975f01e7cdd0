"""Post-hoc CBM and its residual variant."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, Flag, NonNegative, Positive, Seed
from sparsecbm._base.rows import as_numpy
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, spread


class PostHocCBM(ConceptMethod):
    """Post-hoc concept bottleneck (Yuksekgonul et al. 2023, arXiv 2205.15480).

    A picture's features x are projected on concept vectors c_j: f_j = (c_j . x) / |c_j|^2. A vector is a text's
    embedding or, where examples are given, the normal of a linear SVM between pictures with and without the concept.
    The head g is an elastic net, ``lam (0.99 |w|_1 + 0.01 / 2 |w|^2)``. With `residual` (PCBM-h) a linear map r of x is
    then fitted to what g leaves, g being fixed: minimise CE(g(f(x)) + r(x)) + residual_l2 / 2 |r|^2.

    Deviations: f is centred and scaled by one number for all concepts, so that one `lam` suits every encoder; g and r
    are solved, not run for some epochs of SGD.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`.
    concepts_per_class : int or None
        Budget of the head; None: the paper's, `lam`. The residual is not counted: it names no concept.
    residual : bool
    lam : float
    svm_c : float
        Of the SVMs, which read `concept_labels`.
    residual_l2 : float
    random_state : int, RandomState or None
        Nothing is drawn.

    Notes
    -----
    ``fit(X, y, concept_labels=L)``: L (n, M), 1 where a picture shows a concept, 0 where not, NaN where nobody knows. A
    concept without labels of both kinds keeps its text.
    """

    draws = False

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        residual: Flag = False,
        lam: NonNegative = 7e-4,
        svm_c: Positive = 0.1,
        residual_l2: Positive = 1e-3,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.residual = residual
        self.lam = lam
        self.svm_c = svm_c
        self.residual_l2 = residual_l2
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64], *, concept_labels: ArrayLike | None = None) -> None:
        m, d = len(self.concept_names_), rows.shape[1]
        bank = np.eye(d) if self.concept_embeddings_ is None else self.concept_embeddings_.astype(np.float64)
        offset = np.zeros(m)
        if concept_labels is not None:
            truth = np.asarray(as_numpy(concept_labels), dtype=np.float64)
            if truth.shape != (len(rows), m):
                raise InputError(f"concept_labels have shape {truth.shape}: expected {(len(rows), m)}")
            for j in range(m):
                known = ~np.isnan(truth[:, j])
                if len(np.unique(truth[known, j] > 0.5)) == 2:
                    bank[j], offset[j] = self._vector(rows[known], truth[known, j] > 0.5)
        scores = rows @ bank.T + offset
        scale = np.sqrt(np.mean(spread(scores) ** 2))
        self._keep(bank / scale, (offset - scores.mean(axis=0)) / scale)

    def _vector(self, rows: Rows, shown: NDArray[np.bool_]) -> tuple[Rows, float]:
        from sklearn.svm import SVC

        svm = SVC(C=self.svm_c, kernel="linear").fit(rows, shown)
        normal = svm.coef_[0]
        return normal / (normal @ normal), float(svm.intercept_[0] / (normal @ normal))

    def _decided(self, rows: Rows, labels: NDArray[np.int64]) -> None:
        k, d = len(self.classes_), rows.shape[1]
        self.residual_weights_, self.residual_intercept_ = np.zeros((k, d)), np.zeros(k)
        if self.residual:
            found = fit_residual(rows, labels, self._scores(rows), self.residual_l2)
            self.residual_weights_, self.residual_intercept_ = found

    def _leftover(self, rows: Rows) -> Rows | None:
        return rows @ self.residual_weights_.T + self.residual_intercept_ if self.residual else None

    def _shapes(self, k: int, m: int, d: int) -> dict[str, tuple[int, ...]]:
        return super()._shapes(k, m, d) | {"residual_weights_": (k, d), "residual_intercept_": (k,)}


def fit_residual(rows: Rows, labels: NDArray[np.int64], scores: Rows, l2: float) -> tuple[Rows, Rows]:
    """Weights (K, d) and intercepts of the ridge-penalised multinomial regression with fixed `scores` (n, K) added."""
    from scipy.optimize import minimize
    from scipy.special import log_softmax

    n, k = scores.shape
    centre = rows.mean(axis=0)
    scale = np.sqrt(((rows - centre) ** 2).sum(axis=1).mean() / rows.shape[1]) or 1.0
    columns = np.column_stack([(rows - centre) / scale, np.ones(n)])

    def value(flat: Rows) -> tuple[float, Rows]:
        w = flat.reshape(k, -1)
        logs = log_softmax(scores + columns @ w.T, axis=1)
        slope = np.exp(logs)
        slope[np.arange(n), labels] -= 1.0
        penalised = np.column_stack([w[:, :-1], np.zeros(k)])
        gradient = slope.T @ columns / n + l2 * penalised
        loss = -logs[np.arange(n), labels].mean() + 0.5 * l2 * float((penalised**2).sum())
        return loss, gradient.ravel()

    start = np.zeros(k * columns.shape[1])
    w = minimize(value, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "gtol": 1e-7}).x.reshape(k, -1)
    weights = w[:, :-1] / scale
    return weights, w[:, -1] - weights @ centre


with_residual = partial(PostHocCBM, residual=True)
