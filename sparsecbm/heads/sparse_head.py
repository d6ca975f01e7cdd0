"""`SparseHead`: a linear classifier over concepts that uses exactly as many of them as asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.model_selection import StratifiedShuffleSplit
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from sparsecbm._errors import InputError, unknown
from sparsecbm.heads._support import Problem, Support, few_threads, newton
from sparsecbm.heads.multinomial import make_problem, multinomial_logistic
from sparsecbm.heads.nec import anec, counting_rules
from sparsecbm.heads.selection import SELECTIONS, Budget, State
from sparsecbm.heads.selection.base import gains, saliency

#: Ridge penalties that ``l2="auto"`` chooses from.
L2_GRID = (0.03, 0.01, 0.005, 0.003, 0.001)
_GROWING = ("forward", "splice")
#: Options for the later points of a path, which start from a refined support.
_LATER = {"splice": {"rounds": 6}}


class SparseHead(ClassifierMixin, BaseEstimator):
    """Softmax regression with an exact number of non-zero weights per class (NEC) and a ridge penalty.

    Minimises the mean cross-entropy plus ``l2 / 2 * ||W||^2`` over weights W with the asked number of non-zeros,
    by the named selection method, and solves the final support to optimality.

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
        concepts_per_class: int | None = 5,
        *,
        counting: str = "average",
        nonnegative: bool = False,
        method: str = "splice",
        l2: float | str | Sequence[float] = 0.005,
        scaling: str | None = "global",
        tol: float = 1e-6,
        random_state: int | np.random.RandomState | None = None,
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
    ) -> SparseHead:
        """Choose concepts and weights.

        Parameters
        ----------
        A : array-like or sparse matrix of shape (n, M)
            Activations (or concept scores); columns that are constant are never chosen.
        y : array-like of shape (n,)
            Labels of at least two classes.
        sample_weight : array-like of shape (n,), optional
            Non-negative.
        validation : tuple of (activations, labels), optional
            Held-out data that chooses among several `l2`.

        Raises
        ------
        InputError
            On invalid parameters or labels of one class.
        """
        A, codes, weights = self._check(A, y, sample_weight)
        with few_threads(float(A.size) * len(self.classes_)):
            penalty = self._choose_l2(A, codes, weights, validation)
            problem, mean, scale = self._problem(A, codes, weights)
            return self._finish(problem, self._select(problem, penalty), penalty, mean, scale)

    def path(
        self,
        A: ArrayLike,
        y: ArrayLike,
        nec: Sequence[int] = (5, 10, 15, 20, 25, 30),
        *,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        sample_weight: ArrayLike | None = None,
        validation: tuple[ArrayLike, ArrayLike] | None = None,
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

        Returns
        -------
        HeadPath
            Heads, accuracies, the three counts, ANEC.
        """
        sizes = sorted({int(k) for k in nec})
        if not sizes or sizes[0] < 1:
            raise InputError(f"nec={nec!r}: expected concepts per class, each >= 1")
        first = clone(self).set_params(concepts_per_class=sizes[0])
        A, codes, weights = first._check(A, y, sample_weight)
        labels = first.classes_[codes]
        penalty = first._choose_l2(A, codes, weights, validation)
        problem, mean, scale = first._problem(A, codes, weights)
        heads: list[SparseHead] = []
        state: State | None = None
        for size in sizes:
            head = clone(self).set_params(concepts_per_class=size)
            head.classes_, head.n_features_in_ = first.classes_, first.n_features_in_
            if hasattr(first, "feature_names_in_"):
                head.feature_names_in_ = first.feature_names_in_
            with few_threads(problem.product):
                state = head._select(problem, penalty, state if self.method in _GROWING else None)
                heads.append(head._finish(problem, state, penalty, mean, scale))
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
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, A: ArrayLike) -> np.ndarray:
        """Class probabilities (n, K)."""
        return softmax(self._scores(A), axis=1)

    def predict(self, A: ArrayLike) -> np.ndarray:
        """Labels (n,)."""
        scores = self._scores(A)
        return self.classes_[scores.argmax(1)]

    def __sklearn_tags__(self):
        """Declare sparse input to scikit-learn."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _scores(self, A: ArrayLike) -> np.ndarray:
        check_is_fitted(self)
        A = validate_data(self, A, reset=False, dtype=np.float64, accept_sparse="csr")
        return np.asarray(A @ self.coef_.T) + self.intercept_

    def _check(
        self, A: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        k = self.concepts_per_class
        if k is not None and (not isinstance(k, Integral) or isinstance(k, bool) or k < 1):
            raise InputError(f"concepts_per_class={k!r}: expected an integer >= 1, or None for a dense head")
        if self.counting not in ("average", "strict"):
            raise unknown("counting", self.counting, ("average", "strict"))
        if self.method not in SELECTIONS:
            raise unknown("method", self.method, SELECTIONS)
        if self.scaling not in ("global", "column", None):
            raise unknown("scaling", self.scaling, ("global", "column", "None"))
        for value in self._grid():
            if not isinstance(value, Real) or not np.isfinite(value) or value <= 0:
                raise InputError(f"l2={self.l2!r}: expected a positive number, several, or 'auto'")
        if k is None and self.nonnegative:
            raise InputError("nonnegative=True needs concepts_per_class: the dense head has no sign constraint")
        A, y = validate_data(self, A, y, dtype=np.float64, accept_sparse="csr")
        check_classification_targets(y)
        if hasattr(A, "toarray"):
            A = A.toarray()
        if sample_weight is not None:
            sample_weight = _check_sample_weight(sample_weight, A, dtype=np.float64, ensure_non_negative=True)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise InputError(f"y holds one class, {self.classes_[0]!r}: a classifier needs at least two classes")
        return A, codes, sample_weight

    def _grid(self) -> tuple:
        if isinstance(self.l2, str):
            if self.l2 != "auto":
                raise InputError(f"l2={self.l2!r}: expected a positive number, several, or 'auto'")
            return L2_GRID
        return tuple(self.l2) if isinstance(self.l2, (Sequence, np.ndarray)) else (self.l2,)

    def _problem(
        self, A: np.ndarray, codes: np.ndarray, weights: np.ndarray | None
    ) -> tuple[Problem, np.ndarray, np.ndarray]:
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
        return make_problem(centred / scale, codes, weights, n_classes=len(self.classes_)), mean, scale

    def _choose_l2(
        self,
        A: np.ndarray,
        codes: np.ndarray,
        weights: np.ndarray | None,
        validation: tuple[ArrayLike, ArrayLike] | None,
    ) -> float:
        grid = self._grid()
        if len(grid) == 1:
            return float(grid[0])
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
            inner = np.arange(len(A))
            held = validate_data(self, validation[0], reset=False, dtype=np.float64, accept_sparse="csr")
            held_y = np.asarray(validation[1])
            strange = np.setdiff1d(held_y, self.classes_)
            if strange.size or held_y.shape != (held.shape[0],):
                raise InputError(
                    f"validation labels have shape {held_y.shape} and hold unknown {strange[:3].tolist()}: "
                    f"expected {held.shape[0]} labels of the training classes"
                )
            held_codes = np.searchsorted(self.classes_, held_y)
        problem, mean, scale = self._problem(A[inner], codes[inner], None if weights is None else weights[inner])
        best: tuple[float, float] = (-np.inf, -1.0)
        chosen = float(grid[0])
        for value in grid:
            state = self._select(problem, float(value))
            logits = held @ (state.coef / scale).T + (state.intercept - (state.coef / scale) @ mean)
            hits = float((logits.argmax(1) == held_codes).mean())
            likelihood = float(np.log(softmax(logits, 1)[np.arange(len(held_codes)), held_codes] + 1e-300).mean())
            if (likelihood, hits) > best:
                best, chosen = (likelihood, hits), float(value)
        return chosen

    def _select(self, problem: Problem, penalty: float, state: State | None = None) -> State:
        if self.concepts_per_class is None:
            result = multinomial_logistic(problem, l1=0.0, l2=penalty, tol=self.tol)
            mask = np.zeros(result.coef.shape, bool)
            support = Support(problem, mask)
            fit = newton(support, np.zeros(0), result.intercept, l2=penalty, max_steps=0)
            return State(mask, result.coef, result.intercept, result.objective, support, fit)
        budget = Budget(int(self.concepts_per_class), self.counting, self.nonnegative)
        extra = {} if state is None else {"state": state, **_LATER.get(self.method, {})}
        return SELECTIONS[self.method](problem, budget, penalty, **extra)

    def _finish(
        self, problem: Problem, state: State, penalty: float, mean: np.ndarray, scale: np.ndarray
    ) -> SparseHead:
        coef, intercept = state.coef, state.intercept
        if self.concepts_per_class is None:
            result = multinomial_logistic(
                problem, l1=0.0, l2=penalty, tol=self.tol,
                start=_start(coef, intercept, penalty),
            )  # fmt: skip
            coef, intercept = result.coef, result.intercept
            self.certificate_ = {**result.certificate, "nonzeros": int(np.count_nonzero(coef))}
        else:
            if self.method != "path_cut":  # the published practice leaves the path's weights as they are
                state = _solve(problem, state, self.nonnegative, penalty, self.tol)
                coef, intercept = state.coef, state.intercept
            self.certificate_ = _certificate(problem, state, self.nonnegative, penalty, self.counting)
        self.coef_ = coef / scale
        self.intercept_ = intercept - intercept.mean() - self.coef_ @ mean
        self.l2_ = penalty
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


def _start(coef: np.ndarray, intercept: np.ndarray, penalty: float):
    from sparsecbm.heads.multinomial import MultinomialResult

    return MultinomialResult(coef, intercept, 0.0, penalty, np.inf, np.inf, np.inf, np.inf, 0)


def _solve(problem: Problem, state: State, nonnegative: bool, penalty: float, tol: float) -> State:
    """Solve the chosen support to the asked gap."""
    lower = np.ones(int(state.mask.sum())) if nonnegative else None
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
        if _gap(problem, state, nonnegative, penalty)[0] <= tol * abs(fit.objective):
            break
    return state


def _gap(problem: Problem, state: State, nonnegative: bool, penalty: float) -> tuple[float, float]:
    """Duality gap and KKT violation of the ridge problem on a support."""
    support, p = state.support, state.fit.probabilities
    residual = problem.residual(p)
    slope = support.adjoint(residual)
    excess = np.maximum(-slope, 0.0) if nonnegative else slope
    total = slope + penalty * state.fit.w
    violation = np.where((state.fit.w == 0) & (total > 0), 0.0, np.abs(total)) if nonnegative else np.abs(total)
    entropy = np.where(p > 0, p * np.log(np.maximum(p, 1e-300)), 0.0).sum(0)
    dual = -float(problem.weights @ entropy) - float(excess @ excess) / (2 * penalty)
    kkt = max(float(violation.max(initial=0.0)), float(np.abs(residual.sum(1)).max()))
    return max(state.objective - dual, 0.0), kkt


def _certificate(
    problem: Problem, state: State, nonnegative: bool, penalty: float, counting: str
) -> dict[str, float | int]:
    gap, kkt = _gap(problem, state, nonnegative, penalty)
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
