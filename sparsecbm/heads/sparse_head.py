"""`SparseHead`: a linear classifier over concepts that uses exactly as many of them as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csr_matrix, issparse
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from sparsecbm._base.checkpoint import Steps
from sparsecbm._base.errors import InputError
from sparsecbm._base.labels import class_numbers, indicator, number_classes
from sparsecbm._base.logistic import sigmoid
from sparsecbm._base.parameters import (
    Count,
    Counts,
    Flag,
    OpenShare,
    Positive,
    Positives,
    Seed,
    Text,
    checked,
    checked_parameters,
)
from sparsecbm._base.rows import check_scale, finite
from sparsecbm.heads.nec import anec, counting_rules
from sparsecbm.heads.selection import SELECTIONS, Budget, State
from sparsecbm.heads.selection.base import gains, refit, saliency
from sparsecbm.heads.solver.elastic_net import make_problem, multinomial_logistic
from sparsecbm.heads.solver.logistic import LogisticProblem
from sparsecbm.heads.solver.newton import newton
from sparsecbm.heads.solver.softmax import Problem, Support, few_threads
from sparsecbm.heads.solver.softmax_sparse import AnyProblem, SparseProblem, class_scores, sparse_problem, stays_sparse

#: Ridge penalties that ``l2="auto"`` chooses from.
L2_GRID = (0.03, 0.01, 0.005, 0.003, 0.001)
_GROWING = ("forward", "splice")
#: Class scores (samples x classes) made at a time where only the best is wanted.
_SCORES = 2**24
#: Options for the later points of a path, which start from a refined support.
_LATER = {"splice": {"rounds": 6}}

_SCALES, _UNSCALED = (1e-100, 1e100), (1e-8, 1e8)
"""Sizes of the largest activation that can be calculated with: scaled in float64, or not."""


class SparseHead(ClassifierMixin, BaseEstimator):
    """Softmax regression with an exact number of non-zero weights per class (NEC) and a ridge penalty.

    Minimises the mean cross-entropy plus ``l2 / 2 * ||W||^2`` over weights W with the asked number of non-zeros,
    by the named selection method, and solves the final support to optimality.

    Labels may be an indicator matrix (n, K), classes that do not exclude each other: the loss is then a sum of K binary
    cross-entropies, the budget is shared as ever, and probabilities are sigmoids. Methods "splice" and "forward", dense
    activations, and one number for `l2`.

    Parameters
    ----------
    concepts_per_class : int or None
        k >= 1, the NEC. None keeps every concept (a dense ridge head).
    counting : {"average", "strict"}
        Exactly k * K weights in all (classes share the budget), or at most k in every class.
    nonnegative : bool
        Only weights >= 0: a class is then explained by concepts that are present. A budget may stay unused.
    method : str
        A name in `sparsecbm.heads.SELECTIONS`.
    l2 : float or "auto" or sequence of float
        Ridge penalty > 0 on the scaled activations. "auto" (`L2_GRID`) or a sequence: the bilevel choice, in which
        every value selects and solves its own head, and the one of least log loss (ties: accuracy) on `validation`
        data wins, else on a seeded stratified quarter of the training data; never on test data. The head is then
        fitted to all training data. Log loss tells penalties apart on a few hundred samples where accuracy cannot.
    scaling : {"global", "column", None}
        Divide all activations by one number (root mean variance of the columns), or each by its standard deviation, or
        not at all. The weights returned always apply to the activations as given.
    tol : float
        Relative duality gap of the final fit.
    random_state : int, RandomState or None
        Seed of the split that chooses `l2`; the selection itself draws no random number.

    Attributes
    ----------
    coef_ : ndarray of shape (K, M), float64
        Weights with exact zeros; two classes have two rows as well.
    intercept_ : ndarray of shape (K,)
        Intercepts.
    classes_ : ndarray of shape (K,)
        Labels.
    certificate_ : dict
        ``objective``; ``gap``, ``relative_gap`` and ``kkt`` of the final fit on its support (proof of optimality
        there); ``add_gain`` and ``drop_price``, the best second-order gain of one more weight and the least price of
        one fewer (the selection is locally optimal where the first is below the second); ``nonzeros``.
    multilabel_ : bool
        Whether the labels were an indicator matrix.
    nec_ : dict
        The three counting rules (`counting_rules`).
    l2_ : float
        Penalty used.
    n_features_in_ : int
        M.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A = rng.normal(size=(300, 40))
    >>> y = A[:, :3].argmax(1)
    >>> head = SparseHead(concepts_per_class=1).fit(A, y)
    >>> np.argwhere(head.coef_)[:, 1].tolist()
    [0, 1, 2]
    """

    def __init__(
        self,
        concepts_per_class: Count | None = 5,
        *,
        counting: Literal["average", "strict"] = "average",
        nonnegative: Flag = False,
        method: Text = "splice",
        l2: Positive | Literal["auto"] | Positives = 0.005,
        scaling: Literal["global", "column"] | None = "global",
        tol: OpenShare = 1e-6,
        random_state: Seed | None = None,
    ) -> None:
        self.concepts_per_class = concepts_per_class
        self.counting = counting
        self.nonnegative = nonnegative
        self.method = method
        self.l2 = l2
        self.scaling = scaling
        self.tol = tol
        self.random_state = random_state

    def fit(
        self,
        A: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        checkpoint_dir: str | Path | None = None,
    ) -> SparseHead:
        """Choose concepts and weights.

        Parameters
        ----------
        A : array-like or sparse matrix of shape (n, M)
            Activations (or concept scores); columns that are constant are never chosen. A SciPy sparse matrix stays
            sparse where a dense float64 copy would take more than 512 MB (`stays_sparse`) and the method is "splice" or
            "forward": time and memory then go with the non-zeros. Otherwise it is made dense.
        y : array-like of shape (n,), or (n, K) of 0 and 1
            Labels of at least two classes.
        sample_weight : array-like of shape (n,), optional
            Non-negative.
        validation : tuple of (activations, labels), optional
            Held-out data that chooses among several `l2`.
        checkpoint_dir : path, optional
            Keep each finished part there; the same fit, interrupted, goes on with the next.

        Raises
        ------
        InputError
            On invalid parameters or labels of one class.
        """
        A, codes, weights = self._check(A, y, sample_weight)
        steps = self._steps(checkpoint_dir, A, codes, weights)
        with few_threads(float(A.size) * len(self.classes_)):
            penalty = self._choose_l2(A, codes, weights, validation, steps)

            def solve() -> dict[str, Any]:
                problem, mean, scale = self._problem(A, codes, weights)
                return self._finish(problem, self._select(problem, penalty), penalty, mean, scale)

            return self._take(steps.result("head", solve, penalty, self.concepts_per_class))

    def path(
        self,
        A: ArrayLike,
        y: ArrayLike,
        nec: Sequence[int] = (5, 10, 15, 20, 25, 30),
        *,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        sample_weight: ArrayLike | None = None,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
        checkpoint_dir: str | Path | None = None,
    ) -> HeadPath:
        """Fit one head for each NEC, each growing from the one before where the method can.

        Parameters
        ----------
        A, y, sample_weight, validation
            As in `fit`.
        nec : sequence of int
            Concepts per class.
        test : tuple of (activations, labels), optional
            Data to score; the training data otherwise.
        checkpoint_dir : path, optional
            Keep each finished head there; the same path, interrupted or made longer, goes on from the last.

        Returns
        -------
        HeadPath
            Heads, accuracies, the three counts, ANEC.
        """
        sizes = sorted(set(checked("nec", nec, Counts)))
        first = clone(self).set_params(concepts_per_class=sizes[0])
        A, codes, weights = first._check(A, y, sample_weight)
        labels = codes.astype(np.int64) if first.multilabel_ else first.classes_[codes]
        steps = first._steps(checkpoint_dir, A, codes, weights)
        penalty = first._choose_l2(A, codes, weights, validation, steps)
        problem, mean, scale = first._problem(A, codes, weights)
        heads: list[SparseHead] = []
        found: dict[str, Any] | None = None
        for number, size in enumerate(sizes):
            head = clone(self).set_params(concepts_per_class=size)
            head.classes_, head.n_features_in_ = first.classes_, first.n_features_in_
            head.multilabel_ = first.multilabel_
            if hasattr(first, "feature_names_in_"):
                head.feature_names_in_ = first.feature_names_in_
            with few_threads(problem.product):
                grow = partial(head._grow, problem, penalty, mean, scale, found)
                found = steps.result(f"nec-{size}", grow, penalty, sizes[: number + 1])
            heads.append(head._take(found))
        scored, wanted = (A, labels) if test is None else test
        return HeadPath(
            tuple(sizes),
            tuple(heads),
            tuple(float(head.score(scored, wanted)) for head in heads),
            "train" if test is None else "test",
        )

    def decision_function(self, A: ArrayLike) -> np.ndarray:
        """Class scores (n, K), or for two classes the score of the second minus that of the first (n,)."""
        scores = self._scores(A)
        if self.multilabel_:
            return scores
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, A: ArrayLike) -> np.ndarray:
        """Class probabilities (n, K)."""
        scores = self._scores(A)
        return sigmoid(scores) if self.multilabel_ else softmax(scores, axis=1)

    def predict(self, A: ArrayLike) -> np.ndarray:
        """Labels (n,), or 0 and 1 (n, K)."""
        rows = self._checked(A)
        if self.multilabel_:
            return (self._linear(rows) > 0).astype(np.int64)
        step = max(1, _SCORES // len(self.classes_))
        blocks = [self._linear(rows[start : start + step]).argmax(1) for start in range(0, rows.shape[0], step)]
        return self.classes_[np.concatenate(blocks)]

    def __sklearn_tags__(self):
        """Declare sparse input to scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.classifier_tags.multi_label = True
        return tags

    def _checked(self, A: ArrayLike) -> Any:
        check_is_fitted(self)
        return validate_data(self, A, reset=False, dtype=np.float64, accept_sparse="csr")

    def _linear(self, A: Any) -> np.ndarray:
        return finite(class_scores(A, self.coef_, self.intercept_), "class scores")

    def _scores(self, A: ArrayLike) -> np.ndarray:
        return self._linear(self._checked(A))

    def _check(
        self, A: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[np.ndarray | csr_matrix, np.ndarray, np.ndarray | None]:
        given = checked_parameters(self)
        SELECTIONS.check(given.method)
        if given.concepts_per_class is None and given.nonnegative:
            raise InputError("nonnegative=True needs concepts_per_class: the dense head has no sign constraint")
        kinds = [np.float64, np.float32] if issparse(A) else np.float64
        many = indicator(y)
        rows, labels = validate_data(self, A, y, dtype=kinds, accept_sparse="csr", multi_output=many is not None)
        low, high = _SCALES if given.scaling and rows.dtype == np.float64 else _UNSCALED
        check_scale(rows.data if issparse(rows) else rows, "A", low, high)
        growing = given.method in _GROWING and given.concepts_per_class is not None
        if many is not None and not (growing or given.concepts_per_class is None):
            raise InputError(f"method={given.method!r} with an indicator matrix: expected {' or '.join(_GROWING)}")
        if issparse(rows) and not (growing and many is None and stays_sparse(rows.shape)):
            rows = rows.toarray().astype(np.float64, copy=False)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, rows, dtype=np.float64, ensure_non_negative=True)
        self.multilabel_ = many is not None
        if many is not None:
            self.classes_ = np.arange(many.shape[1])
            return rows, many, weights
        self.classes_, codes = number_classes(labels, rows.shape[0])
        return rows, codes, weights

    def _problem(
        self, A: np.ndarray | csr_matrix, codes: np.ndarray, weights: np.ndarray | None
    ) -> tuple[AnyProblem, np.ndarray, np.ndarray]:
        if issparse(A):
            problem, scale = sparse_problem(A, codes, weights, len(self.classes_), self.scaling)
            return problem, np.zeros(A.shape[1]), scale
        share = np.full(len(A), 1 / len(A)) if weights is None else weights / weights.sum()
        mean = share @ A
        centred = A - mean
        deviation = np.sqrt(share @ (centred * centred))
        varying = deviation > 1e-12 * np.maximum(np.abs(A).max(0), 1e-300)
        scale = np.ones(A.shape[1])
        if self.scaling == "global" and varying.any():
            scale[:] = np.sqrt((deviation[varying] ** 2).mean())
        elif self.scaling == "column":
            scale[varying] = deviation[varying]
        # Rounding leaves specks in constant columns; exact zeros mark them as unusable.
        centred[:, ~varying] = 0.0
        if self.multilabel_:
            columns, targets = (np.array(part.T, dtype=np.float64, order="C") for part in (centred / scale, codes))
            return LogisticProblem(columns, targets, share), mean, scale
        return make_problem(centred / scale, codes, weights, n_classes=len(self.classes_)), mean, scale

    def _choose_l2(
        self,
        A: np.ndarray,
        codes: np.ndarray,
        weights: np.ndarray | None,
        validation: tuple[ArrayLike, ArrayLike] | None,
        steps: Steps,
    ) -> float:
        given = L2_GRID if isinstance(self.l2, str) else self.l2
        grid = tuple(given) if isinstance(given, (Sequence, np.ndarray)) else (given,)
        if len(grid) == 1:
            return float(grid[0])
        if self.multilabel_:
            raise InputError("y is an indicator matrix: give one number for l2")
        if validation is None:
            if np.bincount(codes).min() < 2:
                raise InputError(
                    "a class has one sample, so no split can choose l2: give `validation` data or one number for l2"
                )
            size = max(0.25, len(self.classes_) / len(codes))
            split = StratifiedShuffleSplit(1, test_size=size, random_state=self.random_state)
            inner, outer = next(split.split(A, codes))
            held, held_codes = A[outer], codes[outer]
        else:
            inner = np.arange(A.shape[0])
            held = validate_data(self, validation[0], reset=False, dtype=np.float64, accept_sparse="csr")
            held_codes = class_numbers(validation[1], held.shape[0], self.classes_, "validation")
        problem, mean, scale = self._problem(A[inner], codes[inner], None if weights is None else weights[inner])

        def judge(value: float) -> dict[str, float]:
            state = self._select(problem, value)
            coef = state.coef / scale
            likelihoods, hits = [], []
            step = max(1, _SCORES // len(self.classes_))
            for start in range(0, len(held_codes), step):
                labels = held_codes[start : start + step]
                logits = class_scores(held[start : start + step], coef, state.intercept - coef @ mean)
                likelihoods.append(np.log(softmax(logits, 1)[np.arange(len(labels)), labels] + 1e-300))
                hits.append(logits.argmax(1) == labels)
            likelihood, accuracy = (float(np.concatenate(parts).mean()) for parts in (likelihoods, hits))
            return {"likelihood": likelihood, "accuracy": accuracy}

        best: tuple[float, float] = (-np.inf, -1.0)
        chosen = float(grid[0])
        for number, value in enumerate(map(float, grid)):
            made = steps.result(
                f"l2-{number}", partial(judge, value), value, self.concepts_per_class, inner, held, held_codes
            )
            if (made["likelihood"], made["accuracy"]) > best:
                best, chosen = (made["likelihood"], made["accuracy"]), value
        return chosen

    def _steps(self, folder: str | Path | None, A: np.ndarray, codes: np.ndarray, weights: np.ndarray | None) -> Steps:
        options = [self.counting, self.nonnegative, self.method, self.scaling, self.tol]
        return Steps(folder, options, A, codes, weights)

    def _grow(
        self, problem: AnyProblem, penalty: float, mean: np.ndarray, scale: np.ndarray, before: dict[str, Any] | None
    ) -> dict[str, Any]:
        """One point of a path, from what was kept of the one before."""
        state = None
        if before is not None and self.concepts_per_class is not None and self.method in _GROWING:
            # From the kept numbers also where the state is still at hand: to the same bits after an interruption.
            budget = Budget(int(self.concepts_per_class), self.counting, self.nonnegative)
            mask, weights, constants = before["mask"], before["weights"], before["constants"]
            state = refit(problem.single, mask, weights, constants, budget, penalty, steps=0)
        state = self._select(problem, penalty, state)
        grown = {"mask": state.mask, "weights": state.coef, "constants": state.intercept}
        return {**self._finish(problem, state, penalty, mean, scale), **grown}

    def _select(self, problem: AnyProblem, penalty: float, state: State | None = None) -> State:
        if isinstance(problem, LogisticProblem) and self.concepts_per_class is None:
            mask = np.repeat(problem.usable[None], problem.n_classes, axis=0)
            prior = problem.log_prior()
            return refit(problem.single, mask, np.zeros(mask.shape), prior, Budget(1), penalty, steps=50)
        if self.concepts_per_class is None:
            assert isinstance(problem, Problem)  # only growing methods keep activations sparse
            result = multinomial_logistic(problem, l1=0.0, l2=penalty, tol=self.tol)
            return State(result.coef != 0, result.coef, result.intercept, result.objective, None, result)
        budget = Budget(int(self.concepts_per_class), self.counting, self.nonnegative)
        extra = {} if state is None else {"state": state, **_LATER.get(self.method, {})}
        return SELECTIONS.find(self.method)(problem, budget, penalty, **extra)

    def _finish(
        self, problem: AnyProblem, state: State, penalty: float, mean: np.ndarray, scale: np.ndarray
    ) -> dict[str, Any]:
        """Solve a selected support; what `_take` takes."""
        coef, intercept = state.coef, state.intercept
        if self.concepts_per_class is None and not self.multilabel_:
            assert isinstance(problem, Problem)
            result = multinomial_logistic(problem, l1=0.0, l2=penalty, tol=self.tol, start=state.fit)
            coef, intercept = result.coef, result.intercept
            certificate = {**result.certificate, "nonzeros": int(np.count_nonzero(coef))}
        else:
            if self.method != "path_cut":  # the published practice leaves the path's weights as they are
                state = _solve(problem, state, self.nonnegative, penalty, self.tol)
                coef, intercept = state.coef, state.intercept
            certificate = _certificate(state, self.nonnegative, penalty, self.counting)
        coef = coef / scale
        # A softmax does not see what all intercepts share.
        intercept = intercept - (0.0 if self.multilabel_ else intercept.mean()) - coef @ mean
        return {"coef": coef, "intercept": intercept, "certificate": certificate, "l2": penalty}

    def _take(self, found: dict[str, Any]) -> SparseHead:
        self.coef_, self.intercept_ = found["coef"], found["intercept"]
        self.certificate_, self.l2_ = dict(found["certificate"]), found["l2"]
        self.nec_ = counting_rules(self.coef_)
        return self


@dataclass(frozen=True)
class HeadPath:
    """Heads of growing NEC.

    Attributes
    ----------
    nec : tuple of int
        Concepts per class asked for.
    heads : tuple of SparseHead
        Fitted heads.
    accuracy : tuple of float
        Accuracy of each head.
    scored_on : str
        "test" or "train".
    """

    nec: tuple[int, ...]
    heads: tuple[SparseHead, ...] = field(repr=False)
    accuracy: tuple[float, ...]
    scored_on: str

    @property
    def anec(self) -> float:
        """Mean accuracy over the path."""
        return anec(self.accuracy)

    def table(self) -> list[dict[str, float]]:
        """One row for each head: ``nec``, ``accuracy``, the three counts and the certificate's relative gap."""
        return [
            {"nec": k, "accuracy": hit, **head.nec_, "relative_gap": head.certificate_["relative_gap"]}
            for k, head, hit in zip(self.nec, self.heads, self.accuracy)
        ]


def _solve(problem: AnyProblem, state: State, nonnegative: bool, penalty: float, tol: float) -> State:
    """Solve the chosen support to the asked gap."""
    lower = np.ones(int(state.mask.sum())) if nonnegative else None
    if isinstance(problem, SparseProblem):
        support, w, b = state.support, state.fit.w, state.fit.b
        # Every stage costs products with all samples; most often the first is enough.
        for precision in (1e-8, 1e-9, 1e-10, 1e-11, 1e-12):
            state.fit.made = None  # room for those of the next fit
            fit = newton(support, w, b, l2=penalty, lower=lower, tol=precision, max_steps=30)
            w, b = fit.w, fit.b
            state = State(state.mask, support.dense(w), b, fit.objective, support, fit)
            if _gap(state, nonnegative, penalty)[0] <= tol * abs(fit.objective):
                break
        return state
    single = Support(problem.single, state.mask)
    w, b = state.coef[single.rows, single.cols], state.intercept
    # Float32 as far as it goes, then float64 as far as is needed.
    fit = newton(single, w, b, l2=penalty, lower=lower, tol=1e-6, max_steps=50)
    w, b = fit.w.astype(np.float64), fit.b.astype(np.float64)
    support = Support(problem, state.mask)
    for precision in (1e-11, 1e-12):
        fit = newton(support, w, b, l2=penalty, lower=lower, tol=precision, max_steps=100)
        w, b = fit.w, fit.b
        state = State(state.mask, support.dense(w), b, fit.objective, support, fit)
        if _gap(state, nonnegative, penalty)[0] <= tol * abs(fit.objective):
            break
    return state


def _gap(state: State, nonnegative: bool, penalty: float) -> tuple[float, float]:
    """Duality gap and KKT violation of the ridge problem on a support."""
    slope, constant, entropy = state.support.dual_parts(state.fit)
    excess = np.maximum(-slope, 0.0) if nonnegative else slope
    total = slope + penalty * state.fit.w
    violation = np.where((state.fit.w == 0) & (total > 0), 0.0, np.abs(total)) if nonnegative else np.abs(total)
    dual = entropy - float(excess @ excess) / (2 * penalty)
    kkt = max(float(violation.max(initial=0.0)), float(np.abs(constant).max()))
    return max(state.objective - dual, 0.0), kkt


def _certificate(state: State, nonnegative: bool, penalty: float, counting: str) -> dict[str, float | int]:
    gap, kkt = _gap(state, nonnegative, penalty)
    prices = saliency(state, penalty)[state.mask]
    added = gains(state, penalty, Budget(1, counting, nonnegative))
    return {
        "objective": state.objective,
        "gap": gap,
        "relative_gap": gap / max(abs(state.objective), 1e-12),
        "kkt": kkt,
        "add_gain": float(added.max(initial=0.0)),
        "drop_price": float(prices.min()) if prices.size else 0.0,
        "nonzeros": int(np.count_nonzero(state.coef)),
    }
