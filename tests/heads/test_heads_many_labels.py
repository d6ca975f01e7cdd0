"""Classes that do not exclude each other: logistic regressions that share a budget."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sparsecbm._base.errors import InputError
from sparsecbm.heads import SparseHead

N, M, K = 300, 10, 4


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(N, M))
    W = rng.normal(size=(K, M)) * (rng.random((K, M)) < 0.4)
    return A, (A @ W.T + rng.normal(size=(N, K)) > 0.5).astype(int)


def test_without_a_budget_each_class_is_scikit_learns_logistic_regression() -> None:
    A, Y = problem()
    head = SparseHead(None, l2=0.02, scaling=None).fit(A, Y)
    for k in range(K):
        oracle = LogisticRegression(C=1 / (0.02 * N), tol=1e-10, max_iter=1000).fit(A, Y[:, k])
        np.testing.assert_allclose(head.coef_[k], oracle.coef_[0], atol=1e-5)
        np.testing.assert_allclose(head.intercept_[k], oracle.intercept_[0], atol=1e-5)
    np.testing.assert_allclose(head.predict_proba(A), 1 / (1 + np.exp(-head.decision_function(A))))
    np.testing.assert_array_equal(head.predict(A), head.predict_proba(A) > 0.5)


def test_the_budget_is_shared_kept_and_proved() -> None:
    A, Y = problem()
    head = SparseHead(2, l2=0.02).fit(A, Y)
    assert np.count_nonzero(head.coef_) == 2 * K
    assert head.certificate_["relative_gap"] <= 1e-6
    assert head.certificate_["add_gain"] <= head.certificate_["drop_price"]
    for k in range(K):  # on its support each class is solved to optimality; scaling is one number
        used = np.flatnonzero(head.coef_[k])
        if len(used):
            scale = np.sqrt(A.var(axis=0).mean())
            oracle = LogisticRegression(C=1 / (0.02 * N), tol=1e-10, max_iter=1000).fit(A[:, used] / scale, Y[:, k])
            np.testing.assert_allclose(head.coef_[k, used], oracle.coef_[0] / scale, atol=1e-4)
    assert SparseHead(2, l2=0.02, nonnegative=True).fit(A, Y).coef_.min() >= 0
    path = SparseHead(l2=0.02).path(A, Y, (1, 2))
    assert path.accuracy[1] >= path.accuracy[0] - 0.05


def test_whole_weights_are_repeated_rows() -> None:
    A, Y = problem()
    w = np.random.default_rng(1).integers(1, 4, N)
    once = SparseHead(2, l2=0.02).fit(A, Y, sample_weight=w.astype(float))
    often = SparseHead(2, l2=0.02).fit(np.repeat(A, w, 0), np.repeat(Y, w, 0))
    np.testing.assert_allclose(once.coef_, often.coef_, atol=1e-6)


def test_what_does_not_go_with_them_is_said() -> None:
    A, Y = problem()
    for given, said in (({"method": "path"}, "method='path' with an indicator"), ({"l2": "auto"}, "one number for l2")):
        with pytest.raises(InputError, match=said):
            SparseHead(**given).fit(A, Y)
    with pytest.raises(InputError, match="no row is of class 1"):
        SparseHead().fit(A, Y * [1, 0, 1, 1])
