"""Elastic-net multinomial logistic regression with a certificate at every point.

    minimise   sum_i s_i CE(y_i, W a_i + b)  +  l1 * Omega(W)  +  (l2 / 2) * ||W||^2

Omega is the sum of absolute weights.
The intercepts b are not penalised. glm_saga's (lam, alpha) is l1 = lam * alpha, l2 = lam * (1 - alpha).

The solver keeps a working set of weights, minimises over it by Newton steps inside the current orthant
(`sparsecbm.heads.solver.softmax`), and lets in the weights whose derivative exceeds l1 most. Large problems start in
float32 (`sparsecbm.heads.solver.elastic_net_large`), which is often enough. Convergence is judged by the duality gap of
the *whole* problem in float64, so that a returned point carries its own proof.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm.heads.solver.duality_gap import certify
from sparsecbm.heads.solver.elastic_net_large import LARGE, approximate, descend
from sparsecbm.heads.solver.newton import newton
from sparsecbm.heads.solver.softmax import Problem, Support, few_threads


@dataclass(frozen=True)
class MultinomialResult:
    """A point of the regularisation path.

    Attributes
    ----------
    coef : ndarray of shape (K, M), float64
        Weights, with exact zeros.
    intercept : ndarray of shape (K,)
        Intercepts; they sum to 0.
    l1, l2 : float
        Penalties.
    objective : float
        Value of the penalised objective.
    gap : float
        Duality gap: the objective is at most this much above the minimum.
    relative_gap : float
        `gap` / `objective`.
    kkt : float
        Largest violation of the optimality conditions (a derivative).
    iterations : int
        Rounds of the working set.
    """

    coef: np.ndarray
    intercept: np.ndarray
    l1: float
    l2: float
    objective: float
    gap: float
    relative_gap: float
    kkt: float
    iterations: int

    @property
    def certificate(self) -> dict[str, float]:
        """Numbers that prove how far the point is from optimal."""
        return {
            "objective": self.objective, "gap": self.gap, "relative_gap": self.relative_gap, "kkt": self.kkt,
        }  # fmt: skip


def make_problem(
    A: ArrayLike,
    y: ArrayLike | None,
    sample_weight: ArrayLike | None = None,
    *,
    n_classes: int | None = None,
    low_rank: bool = True,
) -> Problem:
    """Check data and lay it out for the solvers.

    Parameters
    ----------
    A : array-like of shape (n, M)
        Activations, finite.
    y : array-like of int, shape (n,), or of float, shape (n, K)
        Class numbers 0..K-1, or class probabilities (soft labels) whose rows sum to 1.
    sample_weight : array-like of shape (n,), optional
        Non-negative, not all zero.
    n_classes : int, optional
        K, when the last classes may be absent from `y`.
    low_rank : bool
        Look for a low-rank factorisation of A (concept scores have rank <= d) when it would pay.

    Raises
    ------
    InputError
        If shapes disagree, or values are not finite, not class numbers, or negative weights.
    """
    A = np.asarray(A)
    if A.ndim != 2 or 0 in A.shape:
        raise InputError(f"A has shape {A.shape}: expected (samples, concepts) with at least one of each")
    columns = np.array(A.T, dtype=np.float64, order="C")
    if not np.isfinite(A if A.dtype.kind == "f" else columns).all():
        column, row = np.argwhere(~np.isfinite(columns))[0]
        raise InputError(f"A[{row}, {column}] is {A[row, column]}: expected finite activations; remove or fill it")
    y = np.asarray(y)
    if y.shape[:1] != A.shape[:1]:
        raise InputError(
            f"y has {y.shape[0] if y.ndim else 0} entries for {len(A)} rows of A: expected one label a row"
        )
    if y.ndim == 2:
        targets = np.ascontiguousarray(y.T, dtype=np.float64)
        if not np.allclose(targets.sum(0), 1, atol=1e-6) or targets.min() < 0:
            raise InputError("y holds rows that are not probabilities: expected non-negative rows that sum to 1")
    else:
        if not np.issubdtype(y.dtype, np.integer) or y.min() < 0:
            raise InputError(f"y has dtype {y.dtype}, least value {y.min()}: expected class numbers 0..K-1")
        classes = int(y.max()) + 1 if n_classes is None else n_classes
        targets = np.zeros((max(classes, int(y.max()) + 1), len(y)))
        targets[y, np.arange(len(y))] = 1.0
    weights = np.ones(len(A)) if sample_weight is None else np.asarray(sample_weight, dtype=np.float64)
    if weights.shape != (len(A),) or not np.isfinite(weights).all() or weights.min() < 0 or weights.sum() == 0:
        raise InputError(
            f"sample_weight has shape {weights.shape}: expected ({len(A)},) finite non-negative numbers, not all zero"
        )
    factors = low_rank_factors(columns, targets.shape[0]) if low_rank else None
    problem = Problem(columns, targets, weights / weights.sum(), factors)
    if y.ndim == 1:
        problem.__dict__["labels"] = y.astype(np.int64)  # known, so not to be read off the targets
    return problem


def low_rank_factors(
    columns: np.ndarray, n_classes: int, tolerance: float = 1e-9
) -> tuple[np.ndarray, np.ndarray] | None:
    """Factors (r, M) and (r, n) of A^T = basis^T @ coordinates where products through rank r are much cheaper.

    The row space is read off a subset of the samples and accepted only if it reproduces every sample.
    """
    concepts, samples = columns.shape
    if concepts < 256 or samples < concepts or n_classes * samples * concepts < 2e9:
        return None
    probe = columns[:, np.linspace(0, samples - 1, min(samples, concepts // 2)).astype(int)]
    # Scores of unit vectors minus a mean have rank d + 1 at most; a probe of full rank means there is nothing to gain.
    basis, triangle = np.linalg.qr(probe - probe.mean(1, keepdims=True))
    left, singular, _ = np.linalg.svd(triangle)
    rank = int((singular > 1e-10 * max(singular[0], 1e-300)).sum())
    if rank >= probe.shape[1] - 1:
        return None
    mean = probe.mean(1)
    basis = np.linalg.qr(np.column_stack([basis @ left[:, :rank], mean]))[0].T
    coordinates = basis @ columns
    error = np.abs(basis.T @ coordinates[:, :: max(1, samples // 512)] - columns[:, :: max(1, samples // 512)]).max()
    if error > tolerance * np.abs(columns).max():
        return None
    return np.ascontiguousarray(basis), coordinates


def l1_max(A: ArrayLike | Problem, y: ArrayLike | None = None) -> float:
    """Smallest l1 at which all weights are zero.

    Parameters
    ----------
    A, y
        Data as in `multinomial_logistic`, or a `Problem` alone.
    """
    problem = A if isinstance(A, Problem) else make_problem(A, y, low_rank=False)
    prior = problem.targets @ problem.weights
    gradient = problem.gradient((prior[:, None] - problem.targets) * problem.weights)
    return float(np.abs(gradient).max())


def multinomial_logistic(
    A: ArrayLike | Problem,
    y: ArrayLike | None = None,
    *,
    l1: float,
    l2: float = 0.0,
    sample_weight: ArrayLike | None = None,
    start: MultinomialResult | None = None,
    tol: float = 1e-5,
    max_iter: int = 500,
) -> MultinomialResult:
    """Minimise the elastic-net multinomial objective.

    Parameters
    ----------
    A : array-like of shape (n, M), or Problem
        Activations; their scale matters, so standardise them first. A `Problem` carries `y` and weights with it.
    y : array-like of int, shape (n,), or of float, shape (n, K)
        Class numbers, or class probabilities.
    l1, l2 : float
        Penalties >= 0. With ``l1=0``, `l2` must be positive.
    sample_weight : array-like of shape (n,), optional
        Non-negative weights.
    start : MultinomialResult, optional
        Warm start.
    tol : float
        Relative duality gap to reach.
    max_iter : int
        Limit on rounds; the certificate says what was reached.

    Raises
    ------
    InputError
        On invalid data or penalties.

    Notes
    -----
    With theta_i = s_i (p_i - y_i) the dual value is -sum_i s_i H(theta_i / s_i + y_i) - Omega*(-A^T theta), H(u) =
    sum_k u_k ln u_k; theta is scaled towards 0 where that is better (for l2 = 0, where it is needed to be feasible).
    """
    for name, value in (("l1", l1), ("l2", l2)):
        if not np.isfinite(value) or value < 0:
            raise InputError(f"{name}={value!r}: expected a finite number >= 0")
    if l1 == 0 and l2 == 0:
        raise InputError("l1=0 and l2=0: the optimum may not exist for separable classes; give a positive penalty")
    problem = A if isinstance(A, Problem) else make_problem(A, y, sample_weight)
    if start is None:
        coef, intercept = np.zeros((problem.n_classes, problem.n_concepts)), problem.log_prior()
    else:
        coef, intercept = start.coef, start.intercept
        if coef.shape != (problem.n_classes, problem.n_concepts):
            raise InputError(
                f"start.coef has shape {coef.shape}: expected {(problem.n_classes, problem.n_concepts)} as in the data"
            )
    with few_threads(problem.product):
        if l1 == 0:
            return _ridge(problem, coef, intercept, l2, tol)
        return _lasso(problem, coef, intercept, l1, l2, tol, max_iter)


def multinomial_path(
    A: ArrayLike | Problem,
    y: ArrayLike | None = None,
    *,
    n_points: int = 30,
    smallest: float = 1e-3,
    l2: float = 0.0,
    max_nec: float | None = None,
    tol: float = 1e-5,
) -> list[MultinomialResult]:
    """Warm-started path from the largest penalty to the smallest.

    Parameters
    ----------
    A, y, l2, tol
        As in `multinomial_logistic`.
    n_points, smallest : int, float
        So many penalties, geometric from `l1_max` to `smallest` * `l1_max`.
    max_nec : float, optional
        Stop after the first point with at least this many non-zero weights per class.
    """
    problem = A if isinstance(A, Problem) else make_problem(A, y)
    top = max(l1_max(problem), 1e-12)
    path: list[MultinomialResult] = []
    for l1 in np.geomspace(top, top * smallest, n_points).tolist():
        start = path[-1] if path else None
        path.append(multinomial_logistic(problem, l1=l1, l2=l2, start=start, tol=tol))
        if max_nec is not None and np.count_nonzero(path[-1].coef) >= max_nec * problem.n_classes:
            break
    return path


def _result(
    problem: Problem, coef: np.ndarray, intercept: np.ndarray, l1: float, l2: float, iterations: int
) -> MultinomialResult:
    # The dual point must be orthogonal to the intercepts: minimise over them to machine precision first.
    offset = problem.logits(coef)
    intercept, loss, probabilities = _intercepts(problem, offset, intercept)
    gradient = problem.gradient(problem.residual(probabilities))
    objective, gap, kkt = certify(problem, coef, probabilities, gradient, loss, l1, l2)
    relative = gap / max(abs(objective), 1e-12)
    return MultinomialResult(coef, intercept, l1, l2, objective, gap, relative, kkt, iterations)


def _intercepts(
    problem: Problem, offset: np.ndarray, intercept: np.ndarray, steps: int = 30
) -> tuple[np.ndarray, float, np.ndarray]:
    """Best intercepts for fixed logits without them, centred, with loss and probabilities; Newton in K dimensions."""
    intercept = intercept - intercept.mean()
    loss, probabilities = problem.loss(offset + intercept[:, None])
    classes = len(intercept)
    for _ in range(steps):
        slope = problem.residual(probabilities).sum(1)
        if np.abs(slope).max() <= 1e-15:
            break
        weighted = probabilities * problem.weights
        hessian = np.diag(weighted.sum(1)) - weighted @ probabilities.T
        # The common shift has no curvature; fixing it at zero makes the system regular.
        hessian += 1.0 / classes + 1e-14 * np.eye(classes)
        step = np.linalg.solve(hessian, slope)
        step -= step.mean()
        length = 1.0
        while length > 1e-4:
            candidate = intercept - length * step
            new_loss, new_probabilities = problem.loss(offset + candidate[:, None])
            if new_loss <= loss + 1e-16:
                break
            length *= 0.5
        else:
            break
        intercept, probabilities, moved = candidate, new_probabilities, loss - new_loss
        loss = new_loss
        if abs(moved) <= 1e-16 and length == 1.0 and np.abs(slope).max() <= 1e-12:
            break
    return intercept, loss, probabilities


def _ridge(problem: Problem, coef: np.ndarray, intercept: np.ndarray, l2: float, tol: float) -> MultinomialResult:
    """Dense ridge solution; by the representer theorem its weights lie in the row space of the activations."""
    from scipy.optimize import minimize

    # In principal axes the curvature is nearly diagonal, so that scaling the axes makes L-BFGS converge in a few dozen
    # steps; axes without variance need no weight.
    if problem.n_concepts > problem.n_samples:
        moment, left = np.linalg.eigh(problem.columns.T @ problem.columns)
        kept = moment > 1e-13 * max(float(moment[-1]), 1e-300)
        basis = (problem.columns @ left[:, kept]) / np.sqrt(moment[kept])
    else:
        moment, basis = np.linalg.eigh(problem.columns @ problem.columns.T)
        kept = moment > 1e-13 * max(float(moment[-1]), 1e-300)
        basis = basis[:, kept]
    columns = basis.T @ problem.columns
    coef = coef @ basis
    shape = coef.shape
    scale = 1.0 / np.sqrt((columns * columns) @ problem.weights / shape[0] + l2)

    def value(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = flat[: -shape[0]].reshape(shape) * scale
        loss, probabilities = problem.loss(w @ columns + flat[-shape[0] :, None])
        residual = problem.residual(probabilities)
        gradient = ((residual @ columns.T) + l2 * w) * scale
        return loss + 0.5 * l2 * float((w * w).sum()), np.concatenate([gradient.ravel(), residual.sum(1)])

    point = np.concatenate([(coef / scale).ravel(), intercept])
    iterations = 0
    for precision in (1e-5, 1e-7, 1e-9):
        found = minimize(
            value, point, jac=True, method="L-BFGS-B",
            options={"maxiter": 3000, "maxfun": 6000, "gtol": precision, "ftol": 1e-15, "maxcor": 20},
        )  # fmt: skip
        point, iterations = found.x, iterations + found.nit
        w = point[: -shape[0]].reshape(shape) * scale
        result = _result(
            problem, w @ basis.T, point[-shape[0] :], 0.0, l2, iterations
        )  # fmt: skip
        if result.relative_gap <= tol:
            break
    return result


def _lasso(
    problem: Problem, coef: np.ndarray, intercept: np.ndarray, l1: float, l2: float, tol: float, max_iter: int
) -> MultinomialResult:
    result: MultinomialResult | None
    if problem.product >= LARGE:
        coef, intercept, rounds = approximate(problem, coef, intercept, l1, l2, 0.7 * tol)
        result = _result(problem, coef, intercept, l1, l2, rounds)
        if result.relative_gap <= tol:
            return result
    coef, intercept = coef.copy(), intercept.copy()
    precision = 1e-3
    stuck = 0
    result = None
    for iteration in range(max_iter):
        logits = problem.logits(coef)
        if iteration == 0:
            intercept, loss, probabilities = _intercepts(problem, logits, intercept)
        else:
            loss, probabilities = problem.loss(logits + intercept[:, None])
        residual = problem.residual(probabilities)
        gradient = problem.gradient(residual)
        objective, gap, _ = certify(problem, coef, probabilities, gradient, loss, l1, l2)
        if gap <= tol * abs(objective):
            result = _result(problem, coef, intercept, l1, l2, iteration)
            if result.relative_gap <= tol:
                return result
        support = coef != 0
        excess = np.where(support, 0.0, np.abs(gradient) - l1)
        # A few newcomers a class, the worst violators: most others are correlated with them and explained away.
        room = np.maximum(3, support.sum(1) // 2)
        order = np.argsort(-excess, axis=1, kind="stable")[:, : int(room.max())]
        newcomers = np.zeros(coef.shape, bool)
        np.put_along_axis(newcomers, order, np.arange(order.shape[1]) < room[:, None], axis=1)
        newcomers &= excess > 0
        working = Support(problem, support | newcomers)
        w = coef[working.rows, working.cols]
        signs = np.sign(np.where(w != 0, w, -gradient[working.rows, working.cols]))
        relative = gap / max(abs(objective), 1e-12)
        precision = min(precision, max(0.1 * relative, 1e-9))
        fit = newton(
            working, w, intercept, l2=max(l2, 1e-10), tilt=l1 * signs, lower=signs,
            tol=max(precision * l1, 0.02 * float(excess.max(initial=0.0))), max_steps=4 if relative > 1e-2 else 10,
        )  # fmt: skip
        coef, intercept = working.dense(fit.w), fit.b
        if objective - fit.objective < 0.05 * gap:
            # Newton steps stall where concepts are exactly collinear or an orthant's corner blocks the way; proximal
            # descent does not.
            stuck += 1
            coef, intercept = descend(problem, coef, intercept, l1, l2, rounds=5 * 2 ** min(stuck, 7), least=1e-3)
    return _result(problem, coef, intercept, l1, l2, max_iter) if result is None else result
