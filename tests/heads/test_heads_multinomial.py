"""The elastic-net solver against scikit-learn's SAGA, its own certificate, and finite differences."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
from scipy.optimize import approx_fprime
from scipy.special import logsumexp
from sklearn.linear_model import LogisticRegression

from sparsecbm._base.errors import InputError
from sparsecbm.heads import l1_max, multinomial_logistic, multinomial_path
from sparsecbm.heads.solver.elastic_net import low_rank_factors, make_problem
from sparsecbm.heads.solver.elastic_net_large import approximate
from sparsecbm.heads.solver.newton import newton
from sparsecbm.heads.solver.softmax import Support


def draw(seed: int, classes: int | None = None):
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(40, 160)), int(rng.integers(4, 50))
    k = int(rng.integers(3, 7)) if classes is None else classes
    A = rng.normal(size=(n, 3)) @ rng.normal(size=(3, m)) + rng.normal(size=(n, m))
    A = (A - A.mean(0)) / A.std(0)
    y = np.concatenate([np.arange(k), (A @ rng.normal(size=(m, k)) + rng.gumbel(size=(n, k))).argmax(1)[k:]])
    return A, y


def objective(A, y, coef, intercept, l1, l2, weight=None):
    logits = A @ coef.T + intercept
    losses = logsumexp(logits, axis=1) - logits[np.arange(len(y)), y]
    return np.average(losses, weights=weight) + l1 * np.abs(coef).sum() + 0.5 * l2 * (coef**2).sum()


@pytest.mark.parametrize("seed", range(20))
def test_objective_equals_scikit_learns_saga(seed):
    A, y = draw(seed)
    ratio = (1.0, 0.9, 0.3)[seed % 3]
    l1 = l1_max(A, y) * (0.5, 0.2, 0.1, 0.05)[seed % 4]
    l2 = l1 * (1 - ratio) / ratio
    ours = multinomial_logistic(A, y, l1=l1, l2=l2, tol=1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        saga = LogisticRegression(
            solver="saga", l1_ratio=ratio, C=ratio / (len(y) * l1), tol=1e-5, max_iter=20_000, random_state=0
        ).fit(A, y)
    theirs = objective(A, y, saga.coef_, saga.intercept_, l1, l2)
    assert ours.objective == pytest.approx(objective(A, y, ours.coef, ours.intercept, l1, l2), rel=1e-10)
    assert ours.objective == pytest.approx(theirs, rel=1e-5)
    assert ours.objective <= theirs * (1 + 1e-6)
    assert ours.relative_gap <= 1e-6


def test_gap_bounds_the_distance_to_the_optimum():
    A, y = draw(3)
    l1 = 0.1 * l1_max(A, y)
    for l2 in (0.0, 0.01):
        best = multinomial_logistic(A, y, l1=l1, l2=l2, tol=1e-9, max_iter=2000)
        rough = multinomial_logistic(A, y, l1=l1, l2=l2, tol=0.05)
        assert 0 <= rough.objective - best.objective <= rough.gap + 1e-9
        # The certificate is for the point itself: a worse point must not carry a better one.
        assert best.gap <= 1e-8
        assert rough.gap >= rough.objective - best.objective - best.gap


def test_path_certificates_and_sparsity():
    A, y = draw(8)
    path = multinomial_path(A, y, n_points=15, smallest=0.01, tol=1e-5)
    assert len(path) == 15
    assert not path[0].coef.any()
    assert path[-1].coef.any()
    assert all(point.relative_gap <= 1e-4 for point in path)
    assert all(before.objective >= after.objective for before, after in pairwise(path))


def test_kkt_holds_entry_by_entry():
    A, y = draw(11)
    l1 = 0.2 * l1_max(A, y)
    point = multinomial_logistic(A, y, l1=l1, l2=0.01, tol=1e-9)
    proba = np.exp(A @ point.coef.T + point.intercept)
    proba /= proba.sum(1, keepdims=True)
    slope = (proba - np.eye(len(point.coef))[y]).T @ A / len(y) + 0.01 * point.coef
    used = point.coef != 0
    assert used.any()
    assert not used.all()
    np.testing.assert_allclose(slope[used], -l1 * np.sign(point.coef[used]), atol=1e-5)
    assert np.abs(slope[~used]).max() <= l1 * (1 + 1e-5)


def test_all_zero_exactly_from_l1_max_on():
    A, y = draw(5)
    top = l1_max(A, y)
    assert not multinomial_logistic(A, y, l1=top * 1.0001).coef.any()
    assert multinomial_logistic(A, y, l1=top * 0.99, tol=1e-8).coef.any()


def test_sample_weights_equal_repetition_and_soft_labels_equal_mixtures():
    A, y = draw(6)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 4, len(y))
    weighted = multinomial_logistic(A, y, l1=0.02, l2=0.01, sample_weight=counts, tol=1e-8)
    copies = make_problem(np.repeat(A, counts, 0), np.repeat(y, counts), n_classes=int(y.max()) + 1)
    repeated = multinomial_logistic(copies, l1=0.02, l2=0.01, tol=1e-8)
    assert weighted.objective == pytest.approx(repeated.objective, rel=1e-7)
    np.testing.assert_allclose(weighted.coef, repeated.coef, atol=1e-4)
    other = (y + 1) % (y.max() + 1)
    soft = 0.7 * np.eye(y.max() + 1)[y] + 0.3 * np.eye(y.max() + 1)[other]
    mixed = multinomial_logistic(A, soft, l1=0.01, l2=0.01, tol=1e-8)
    both = multinomial_logistic(
        np.vstack([A, A]), np.r_[y, other], l1=0.01, l2=0.01,
        sample_weight=np.r_[np.full(len(y), 0.7), np.full(len(y), 0.3)], tol=1e-8,
    )  # fmt: skip
    assert mixed.objective == pytest.approx(both.objective, rel=1e-7)
    assert mixed.relative_gap <= 1e-8


@pytest.mark.parametrize("per_class", [10**6, 20])
@pytest.mark.parametrize("ratio", [1.0, 0.9])
def test_large_problems_reach_the_same_optimum(per_class, ratio, monkeypatch):
    # Both ways of `approximate`: rounds over all samples, and steps on a part of them.
    rng = np.random.default_rng(4)
    A = rng.normal(size=(1200, 5)) @ rng.normal(size=(5, 60)) + rng.normal(size=(1200, 60))
    y = (A @ rng.normal(size=(60, 6)) * 0.5 + rng.gumbel(size=(1200, 6))).argmax(1)
    l1 = 0.05 * l1_max(A, y)
    l2 = l1 * (1 - ratio) / ratio
    exact = multinomial_logistic(A, y, l1=l1, l2=l2, tol=1e-9)
    monkeypatch.setattr("sparsecbm.heads.solver.softmax.PER_CLASS", per_class)
    problem = make_problem(A, y)
    assert (problem.single.fewer is None) == (per_class == 10**6)
    coef, intercept, _ = approximate(problem, np.zeros((6, 60)), problem.log_prior(), l1, l2, 1e-4)
    reached = objective(A, y, coef, intercept, l1, l2)
    assert exact.objective - exact.gap <= reached <= exact.objective * (1 + 1e-4)
    assert not coef.all()
    monkeypatch.setattr("sparsecbm.heads.solver.elastic_net.LARGE", 0)
    for tol in (1e-2, 1e-4, 1e-7):
        point = multinomial_logistic(make_problem(A, y), l1=l1, l2=l2, tol=tol)
        assert point.relative_gap <= tol
        assert point.gap >= point.objective - exact.objective - 1e-12
        assert point.objective == pytest.approx(objective(A, y, point.coef, point.intercept, l1, l2), rel=1e-12)


def test_soft_labels_and_weights_pass_the_large_solver(monkeypatch):
    A, y = draw(7)
    rng = np.random.default_rng(2)
    soft = rng.dirichlet(np.ones(int(y.max()) + 1), size=len(y))
    weight = rng.integers(0, 3, len(y))
    exact = multinomial_logistic(A, soft, l1=0.02, l2=0.001, sample_weight=weight, tol=1e-8)
    monkeypatch.setattr("sparsecbm.heads.solver.elastic_net.LARGE", 0)
    large = multinomial_logistic(A, soft, l1=0.02, l2=0.001, sample_weight=weight, tol=1e-8)
    assert large.objective == pytest.approx(exact.objective, rel=1e-7)
    assert large.relative_gap <= 1e-8


def test_low_rank_gradients_equal_dense_ones():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(3000, 40)) @ rng.normal(size=(40, 400)) + rng.normal(size=400)
    factors = low_rank_factors(np.ascontiguousarray(scores.T), n_classes=2000)
    assert factors is not None
    assert factors[0].shape[0] <= 41
    residual = rng.normal(size=(5, 3000))
    problem = make_problem(scores, rng.integers(5, size=3000), low_rank=False)
    fast = type(problem)(problem.columns, problem.targets, problem.weights, factors)
    np.testing.assert_allclose(fast.gradient(residual), problem.gradient(residual), rtol=1e-8, atol=1e-7)
    assert low_rank_factors(np.ascontiguousarray((scores + rng.normal(size=scores.shape)).T), 2000) is None


@pytest.mark.parametrize("bytes_", [0, 10**9])
def test_newton_reaches_a_stationary_point_in_both_layouts(bytes_, monkeypatch):
    monkeypatch.setattr("sparsecbm.heads.solver.softmax.GATHER_BYTES", bytes_)
    A, y = draw(2, classes=40)
    problem = make_problem(A, y)
    rng = np.random.default_rng(1)
    mask = rng.random((problem.n_classes, problem.n_concepts)) < 0.02
    support = Support(problem, mask)
    assert (support.gathered is None) == (bytes_ == 0)
    fit = newton(support, np.zeros(support.size), problem.log_prior(), l2=0.02, tol=1e-10)

    def value(flat):
        coef = np.zeros(mask.shape)
        coef[mask] = flat[: support.size]
        return objective(A, y, coef, flat[support.size :], 0.0, 0.02)

    flat = np.concatenate([fit.w, fit.b])
    assert fit.objective == pytest.approx(value(flat), rel=1e-12)
    assert np.abs(approx_fprime(flat, value, 1e-6)).max() < 1e-5
    assert fit.kkt <= 1e-10


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l1": -1.0}, "l1=-1.0"),
        ({"l1": 0.0, "l2": 0.0}, "positive penalty"),
        ({"A": [[1.0, np.nan], [0.0, 1.0]]}, r"A\[0, 1\] is nan"),
        ({"y": [0, 1, 2]}, "3 entries for 2 rows"),
        ({"y": [0.5, 1.0]}, "class numbers"),
        ({"y": [[0.5, 0.2], [0.5, 0.5]]}, "sum to 1"),
        ({"sample_weight": [1.0, -1.0]}, "non-negative"),
    ],
)
def test_bad_input_is_named(change, message):
    given = {"A": [[1.0, 0.0], [0.0, 1.0]], "y": [0, 1], "l1": 0.1, **change}
    with pytest.raises(InputError, match=message):
        multinomial_logistic(given.pop("A"), given.pop("y"), **given)


@pytest.mark.parametrize("seed", [1, 2])
def test_objective_equals_glm_sagas(seed):
    elasticnet = pytest.importorskip("glm_saga.elasticnet", reason="glm_saga is not installed: pip install glm_saga")
    import torch

    A, y = draw(seed)
    classes = int(y.max()) + 1
    lam, alpha = 0.2 * l1_max(A, y), 0.9
    l1, l2 = lam * alpha, lam * (1 - alpha)
    tensor, labels = torch.from_numpy(A).float(), torch.from_numpy(y)
    loader = torch.utils.data.DataLoader(
        elasticnet.IndexedTensorDataset(tensor, labels),
        batch_size=len(y),  # one batch: no noise to average out
    )
    linear = torch.nn.Linear(A.shape[1], classes)
    torch.nn.init.zeros_(linear.weight)
    torch.nn.init.zeros_(linear.bias)
    elasticnet.train_saga(
        linear, loader, 0.1, 1500, lam, alpha, group=False, tol=0.0, n_ex=len(y), n_classes=classes,
        logger=lambda message: None,
    )  # fmt: skip
    weight, bias = (part.detach().double().numpy() for part in (linear.weight, linear.bias))
    theirs = objective(A, y, weight, bias, l1, l2)
    ours = multinomial_logistic(A, y, l1=l1, l2=l2, tol=1e-7)
    assert ours.objective == pytest.approx(theirs, rel=1e-5)
    assert ours.objective <= theirs * (1 + 1e-7)
