"""Heads on activations that stay sparse: the same objective, derivatives, budget and optimum as on dense ones."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix, random_array

from sparsecbm.heads import SparseHead, nec, stays_sparse
from sparsecbm.heads.selection.base import Budget, gains, refit, saliency
from sparsecbm.heads.solver import softmax_sparse as _sparse
from sparsecbm.heads.solver.elastic_net import make_problem
from sparsecbm.heads.solver.softmax_sparse import SparseFit, sparse_problem


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Sparse whatever the size, in blocks that do not divide the samples."""
    monkeypatch.setattr(_sparse, "DENSE_BYTES", 0)
    monkeypatch.setattr(_sparse, "ROWS", 170)


@pytest.fixture(scope="module")
def planted():
    """Eight classes, each known by two concepts of sixty; a sample shows about seven concepts."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(600, 60)) + 0.7 * rng.normal(size=(600, 6)) @ rng.normal(size=(6, 60))
    A = np.where(A > 1.4, A, 0.0)
    A[:5] = 0.0  # samples without any useful concept
    A[:, 57] = 0.0
    A[:, 58] = 2.5
    W = np.zeros((8, 60))
    for c in range(8):
        W[c, c], W[c, 8 + c // 2] = 3.0, 2.0
    y = (A @ W.T + rng.gumbel(size=(600, 8))).argmax(1)
    return A, y, rng.uniform(0.2, 2.0, size=600)


def states(A, y, weights, mask, l2=0.01, **options):
    """Dense and sparse fits on a support."""
    budget = Budget(2, nonnegative=options.pop("nonnegative", False))
    dense = make_problem(A, y, weights)
    sparse, _ = sparse_problem(csr_matrix(A), y, weights, int(y.max()) + 1, None)
    start = np.zeros(mask.shape)
    return [refit(p, mask, start, p.log_prior(), budget, l2, steps=40, tol=1e-12) for p in (dense, sparse)]


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.5])
def test_fit_on_a_support_is_that_of_the_dense_solver(density, nonnegative, planted):
    A, y, weights = planted
    mask = np.random.default_rng(1).random((8, 60)) < density
    mask[:, [57, 58]] = False
    dense, sparse = states(A, y, weights, mask, nonnegative=nonnegative)
    assert sparse.objective == pytest.approx(dense.objective, abs=1e-12)
    np.testing.assert_allclose(sparse.coef, dense.coef, atol=1e-6)
    centred = [state.intercept - state.intercept.mean() for state in (dense, sparse)]
    np.testing.assert_allclose(*centred, atol=1e-6)
    residual = make_problem(A, y, weights).residual(dense.fit.probabilities)
    np.testing.assert_allclose(sparse.support.gradient(sparse.fit), residual @ A, atol=1e-8)
    dense_parts, sparse_parts = (state.support.dual_parts(state.fit) for state in (dense, sparse))
    for expected, found in zip(dense_parts, sparse_parts):
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_derivatives_and_curvature_by_finite_differences(planted):
    A, y, weights = planted
    rng = np.random.default_rng(2)
    mask = rng.random((8, 60)) < 0.1
    problem, _ = sparse_problem(csr_matrix(A), y, weights, 8, None)
    support = problem.support(mask)
    w, b = rng.normal(size=support.size), rng.normal(size=8)
    u, v = rng.normal(size=support.size), rng.normal(size=8)

    def at(step):
        loss, blocks = support.evaluate(w + step * u, b + step * v)
        return loss, SparseFit(support, w + step * u, b + step * v, loss, np.inf, blocks)

    (up, fit_up), (down, fit_down), (_, fit) = at(1e-6), at(-1e-6), at(0.0)
    slope = support.slopes(fit)
    assert slope[0] @ u + slope[1] @ v == pytest.approx((up - down) / 2e-6, rel=1e-6)
    for found, high, low in zip(support.product(fit, u, v), support.slopes(fit_up), support.slopes(fit_down)):
        np.testing.assert_allclose(found, (high - low) / 2e-6, atol=1e-7)


def test_prices_are_exact_up_to_one_class_at_a_time(planted):
    A, y, weights = planted
    mask = np.random.default_rng(3).random((8, 60)) < 0.05
    mask[:, [57, 58]] = False
    dense, sparse = states(A, y, weights, mask)
    # Block Hessians from all samples, by dense products.
    p = dense.fit.probabilities
    shares = weights / weights.sum()
    design = np.column_stack([A, np.ones(len(A))])
    expected = np.zeros((8, 60))
    gradient = (p - np.eye(8)[y].T) * shares @ A
    for k in range(8):
        hessian = (design.T * (shares * p[k] * (1 - p[k]))) @ design + 0.01 * np.diag([1.0] * 60 + [0.0])
        own = np.append(np.flatnonzero(mask[k]), 60)
        inner = np.linalg.inv(hessian[np.ix_(own, own)])
        np.testing.assert_allclose(
            saliency(sparse, 0.01)[k, own[:-1]], sparse.coef[k, own[:-1]] ** 2 / (2 * np.diag(inner)[:-1]), rtol=1e-5
        )
        for j in np.flatnonzero(~mask[k]):
            schur = hessian[j, j] - hessian[j, own] @ inner @ hessian[own, j]
            expected[k, j] = gradient[k, j] ** 2 / (2 * schur)
    expected[:, [57, 58]] = 0.0
    np.testing.assert_allclose(gains(sparse, 0.01, Budget(2), candidates=60), expected, rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("counting", ["average", "strict"])
@pytest.mark.parametrize("options", [{}, {"nonnegative": True}, {"scaling": "column"}, {"method": "forward"}])
def test_head_is_that_of_the_dense_solver(counting, options, planted, monkeypatch):
    A, y, weights = planted
    # Selection of the dense head estimates curvature from a part of the samples: here from all, as the sparse one.
    monkeypatch.setattr("sparsecbm.heads.solver.softmax.ROWS", 10**6)
    make = {"concepts_per_class": 2, "counting": counting, "tol": 1e-13, **options}
    dense = SparseHead(**make).fit(A, y, weights)
    sparse = SparseHead(**make).fit(csr_matrix(A), y, weights)
    assert nec(sparse.coef_) == 2
    assert (sparse.coef_ != 0).sum(1).max() <= (2 if counting == "strict" else 16)
    np.testing.assert_array_equal(sparse.coef_ != 0, dense.coef_ != 0)
    np.testing.assert_allclose(sparse.coef_, dense.coef_, atol=1e-6)
    np.testing.assert_allclose(sparse.predict_proba(A), dense.predict_proba(A), atol=1e-6)
    np.testing.assert_array_equal(sparse.predict(csr_matrix(A)), dense.predict(A))
    assert sparse.certificate_["objective"] == pytest.approx(dense.certificate_["objective"], abs=1e-9)
    assert sparse.certificate_["relative_gap"] <= 1e-9


def test_path_penalty_choice_and_labels_of_any_kind(planted):
    A, y, _ = planted
    names = np.array([f"class {k}" for k in range(8)])[y]
    path = SparseHead().path(csr_matrix(A), names, nec=(1, 2, 4))
    assert [head.nec_["average"] for head in path.heads] == [1, 2, 4]
    objectives = [head.certificate_["objective"] for head in path.heads]
    assert objectives == sorted(objectives, reverse=True)
    assert path.accuracy[1] > path.accuracy[0]
    train, held = (A[:400], names[:400]), (A[400:], names[400:])
    grid = (1.0, 0.003)
    chosen = SparseHead(2, l2=grid).fit(csr_matrix(train[0]), train[1], validation=(csr_matrix(held[0]), held[1]))
    dense = SparseHead(2, l2=grid).fit(*train, validation=held)
    assert chosen.l2_ == dense.l2_ == 0.003


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(12, 400),
    m=st.integers(1, 12),
    k=st.integers(2, 5),
    size=st.integers(1, 6),
    counting=st.sampled_from(["average", "strict"]),
    nonnegative=st.booleans(),
    fill=st.floats(0.05, 1.0),
)
def test_budget_is_kept_exactly(seed, n, m, k, size, counting, nonnegative, fill):
    rng = np.random.default_rng(seed)
    A = csr_matrix(random_array((n, m), density=fill, random_state=rng, data_sampler=rng.normal))
    A.data *= rng.exponential(10.0)
    y = rng.permutation(np.arange(n) % k)
    head = SparseHead(size, counting=counting, nonnegative=nonnegative).fit(A, y)
    varying = int((np.ptp(A.toarray(), axis=0) > 0).sum())
    used = (head.coef_ != 0).sum(1)
    if nonnegative:
        assert (head.coef_ >= 0).all()
        assert used.sum() <= size * k
    else:
        assert used.sum() == k * min(size, varying)
    if counting == "strict":
        assert used.max() <= size
    assert head.certificate_["nonzeros"] == used.sum()
    assert head.certificate_["relative_gap"] <= 1e-5


def test_partition_sums_do_not_cancel():
    # Both classes of almost all samples are pairs whose weights push their probability far below the background.
    rng = np.random.default_rng(5)
    A = np.where(rng.random((300, 3)) < 0.8, rng.uniform(1, 2, (300, 3)), 0.0)
    y = rng.integers(3, size=300)
    problem, _ = sparse_problem(csr_matrix(A), y, None, 3, None)
    w = -np.array([[30.0, 0.0, 8.0], [22.0, 9.0, 0.0], [35.0, 0.0, 7.0]])
    support = problem.support(w != 0)
    b = np.array([2.0, -1.0, 0.5])
    loss, blocks = support.evaluate(w[w != 0], b)
    logits = A @ w.T + b
    exact = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    assert loss == pytest.approx((exact - logits[np.arange(300), y]).mean(), rel=1e-12)
    for pairs, at, start in zip(support.pairs, blocks, range(0, 300, 170)):
        dense = np.exp(logits - exact[:, None])[start : start + 170]
        found = pairs.matrix(at.p, 3).toarray()
        np.testing.assert_allclose(found[found > 0], dense[found > 0], rtol=1e-9)


def test_other_methods_and_small_inputs_are_made_dense(planted, monkeypatch):
    A, y, _ = planted
    lasso = SparseHead(2, method="path").fit(csr_matrix(A), y)
    np.testing.assert_array_equal(lasso.coef_, SparseHead(2, method="path").fit(A, y).coef_)
    monkeypatch.setattr(_sparse, "DENSE_BYTES", 10**9)
    assert not stays_sparse(A.shape)
    np.testing.assert_array_equal(SparseHead(2).fit(csr_matrix(A), y).coef_, SparseHead(2).fit(A, y).coef_)


def test_memory_is_that_of_the_nonzeros(monkeypatch):
    monkeypatch.setattr(_sparse, "ROWS", 2**12)
    rng = np.random.default_rng(0)
    n, m, k, active = 20_000, 1500, 30, 6
    y = rng.integers(k, size=n)
    columns = np.concatenate([y[:, None] * 3 + np.arange(2), rng.integers(100, m, size=(n, active - 2))], axis=1)
    A = csr_matrix((rng.uniform(0.5, 1.5, columns.size), columns.ravel(), np.arange(n + 1) * active), (n, m))
    A.sum_duplicates()
    tracemalloc.start()
    head = SparseHead(2).fit(A, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6, f"{peak / 1e6:.0f} MB"  # the dense matrix alone takes 240 MB
    assert head.nec_["average"] == 2
    assert head.score(A, y) > 0.99
