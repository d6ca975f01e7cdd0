"""`SparseHead`: the budget is kept to the last weight, and the selection is worth having."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsecbm._base.errors import InputError
from sparsecbm.heads import SELECTIONS, SparseHead, counting_rules, nec
from sparsecbm.heads.nec import largest
from sparsecbm.heads.selection.base import Budget, empty, gains, refit, saliency
from sparsecbm.heads.solver.elastic_net import make_problem


@parametrize_with_checks([SparseHead()])
def test_is_a_scikit_learn_estimator(estimator, check):
    check(estimator)


@settings(max_examples=200)
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(12, 60),
    m=st.integers(1, 12),
    k=st.integers(2, 5),
    size=st.integers(1, 6),
    counting=st.sampled_from(["average", "strict"]),
    nonnegative=st.booleans(),
)
def test_budget_is_kept_exactly(seed, n, m, k, size, counting, nonnegative):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(n, m)) * rng.exponential(size=m)
    y = rng.permutation(np.arange(n) % k)
    head = SparseHead(size, counting=counting, nonnegative=nonnegative).fit(A, y)
    used = (head.coef_ != 0).sum(1)
    assert head.coef_.shape == (k, m)
    if nonnegative:
        assert (head.coef_ >= 0).all()
        assert used.sum() <= size * k
    else:
        assert used.sum() == k * min(size, m)
    if counting == "strict":
        assert used.max() <= size
    assert head.certificate_["nonzeros"] == used.sum()
    assert head.certificate_["relative_gap"] <= 1e-4


@pytest.fixture(scope="module")
def planted():
    """Eight classes, each known by two concepts of sixty, one of which it shares; concepts are correlated."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(480, 60)) + 0.7 * rng.normal(size=(480, 6)) @ rng.normal(size=(6, 60))
    W = np.zeros((8, 60))
    for c in range(8):
        W[c, c], W[c, 8 + c // 2] = 3.0, 2.0
    y = (A @ W.T + rng.gumbel(size=(480, 8))).argmax(1)
    return A, y, W


@pytest.mark.parametrize("method", [name for name in SELECTIONS if name != "path_cut"])
@pytest.mark.parametrize("counting", ["average", "strict"])
def test_every_method_finds_planted_concepts(method, counting, planted):
    A, y, W = planted
    head = SparseHead(2, method=method, counting=counting).fit(A, y)
    found = ((head.coef_ != 0) & (W != 0)).sum() / (W != 0).sum()
    assert found >= (0.5 if method == "path" else 0.7)  # the lasso path shares its shrinkage among correlated concepts
    assert nec(head.coef_) == 2
    assert head.certificate_["relative_gap"] <= 1e-6


def test_default_beats_the_usual_cut_and_its_refit(planted):
    A, y, _ = planted
    values = {name: SparseHead(2, method=name).fit(A, y).certificate_["objective"] for name in SELECTIONS}
    assert values["splice"] <= min(values["path"], values["forward"]) + 1e-9
    assert values["path"] < values["path_cut"]


def test_default_is_near_the_best_subset_by_enumeration():
    rng = np.random.default_rng(3)
    for _ in range(3):
        A = rng.normal(size=(60, 4)) + rng.normal(size=(60, 1))
        y = np.r_[0, 1, 2, (A @ rng.normal(size=(4, 3)) + rng.gumbel(size=(60, 3))).argmax(1)[3:]]
        problem = make_problem((A - A.mean(0)) / A.std(0).mean(), y)
        best = np.inf
        budget = Budget(1, "average")
        for entries in combinations(range(12), 3):
            mask = np.zeros((3, 4), bool)
            mask.flat[list(entries)] = True
            state = refit(problem, mask, np.zeros((3, 4)), problem.log_prior(), budget, 0.02, steps=6)
            best = min(best, state.objective)
        found = SELECTIONS["splice"](problem, budget, 0.02).objective
        assert found <= best * 1.02


def test_second_order_prices_match_exact_refits(planted):
    A, y, _ = planted
    problem = make_problem(A, y)
    budget, l2 = Budget(2), 0.05
    state = empty(problem, budget, l2)
    expected = gains(state, l2, budget, candidates=60)
    rows, cols = np.unravel_index(np.argsort(-expected, axis=None)[[0, 20, 60, 150]], expected.shape)
    exact = []
    for r, c in zip(rows, cols):
        mask = state.mask.copy()
        mask[r, c] = True
        grown = refit(problem, mask, state.coef, state.intercept, budget, l2, steps=20)
        exact.append(state.objective - grown.objective)
    # One class at a time, so an estimate; the order and the size must be right.
    assert (np.diff(exact) < 0).all()
    np.testing.assert_allclose(expected[rows, cols], exact, rtol=0.35)
    full = refit(problem, expected > np.quantile(expected, 0.9), state.coef, state.intercept, budget, l2, steps=20)
    prices = saliency(full, l2)
    r, c = np.unravel_index(np.where(prices > 0, prices, np.inf).argmin(), prices.shape)
    mask = full.mask.copy()
    mask[r, c] = False
    cost = refit(problem, mask, full.coef, full.intercept, budget, l2, steps=20).objective - full.objective
    assert cost == pytest.approx(prices[r, c], rel=0.2)


def test_sparse_activations_with_dead_columns(planted):
    from scipy.sparse import csr_matrix

    A, y, _ = planted
    sparse = np.where(A > 1.0, A, 0.0)
    sparse[:, 20:50] = 0.0
    sparse[:, 59] = 3.25
    dense = SparseHead(3).fit(sparse, y)
    assert nec(dense.coef_) == 3
    assert not dense.coef_[:, 20:50].any()
    assert not dense.coef_[:, 59].any()
    stored = SparseHead(3).fit(csr_matrix(sparse), y)
    np.testing.assert_array_equal(stored.coef_, dense.coef_)
    nothing = SparseHead(3).fit(np.zeros((len(y), 4)), y)
    assert not nothing.coef_.any()
    np.testing.assert_allclose(nothing.predict_proba(np.zeros((1, 4)))[0], np.bincount(y) / len(y), atol=1e-6)


def test_dense_head_is_ridge_regression(planted):
    A, y, _ = planted
    head = SparseHead(None, l2=0.02, scaling=None, tol=1e-9).fit(A, y)
    ridge = LogisticRegression(C=1 / (0.02 * len(y)), tol=1e-10, max_iter=5000).fit(A, y)
    np.testing.assert_allclose(head.predict_proba(A), ridge.predict_proba(A), atol=1e-4)
    assert head.certificate_["relative_gap"] <= 1e-9


def test_scaling_of_activations_is_immaterial(planted):
    A, y, _ = planted
    base = SparseHead(2).fit(A, y)
    moved = SparseHead(2).fit(1000 * A + 7, y)
    np.testing.assert_array_equal(base.coef_ != 0, moved.coef_ != 0)
    np.testing.assert_allclose(moved.coef_ * 1000, base.coef_, rtol=1e-4)
    np.testing.assert_allclose(moved.predict_proba(1000 * A + 7), base.predict_proba(A), atol=1e-6)
    stretched = SparseHead(2, scaling="column").fit(A * np.geomspace(1e-3, 1e3, 60), y)
    np.testing.assert_array_equal(stretched.predict(A * np.geomspace(1e-3, 1e3, 60)), SparseHead(
        2, scaling="column").fit(A, y).predict(A))  # fmt: skip


def test_two_classes_keep_two_rows(planted):
    A, y, _ = planted
    head = SparseHead(2).fit(A, np.where(y < 4, "left", "right"))
    assert head.coef_.shape == (2, 60)
    assert head.decision_function(A).shape == (len(A),)
    np.testing.assert_array_equal(head.predict(A) == "right", head.decision_function(A) > 0)


def test_path_grows_and_reports_all_counts(planted):
    A, y, _ = planted
    path = SparseHead(counting="average").path(A[::2], y[::2], nec=(4, 1, 2), test=(A[1::2], y[1::2]))
    assert path.nec == (1, 2, 4)
    assert path.scored_on == "test"
    assert [row["average"] for row in path.table()] == [1, 2, 4]
    assert path.anec == pytest.approx(np.mean(path.accuracy))
    assert path.accuracy[1] > path.accuracy[0]
    objectives = [head.certificate_["objective"] for head in path.heads]
    assert objectives == sorted(objectives, reverse=True)
    np.testing.assert_allclose(path.accuracy[2], path.heads[2].score(A[1::2], y[1::2]))
    again = SparseHead().path(A[::2], y[::2], nec=(1, 2, 4), test=(A[1::2], y[1::2]))
    np.testing.assert_array_equal(again.heads[2].coef_, path.heads[2].coef_)


@pytest.mark.parametrize("nonnegative", [False, True])
def test_an_interrupted_path_goes_on_to_the_same_bits(planted, nonnegative, tmp_path, monkeypatch):
    A, y, _ = planted
    options = {"nonnegative": nonnegative, "l2": (0.02, 0.005), "random_state": 0}
    whole = SparseHead(**options).path(A, y, nec=(1, 2, 4))
    stop_at, real, calls = 4, SparseHead._select, []

    def select(self, *args):
        calls.append(self.concepts_per_class)
        if len(calls) == stop_at:
            raise KeyboardInterrupt
        return real(self, *args)

    monkeypatch.setattr(SparseHead, "_select", select)
    # Two penalties are judged and the first head is fitted; the second head is lost, in every other run again.
    with pytest.raises(KeyboardInterrupt):
        SparseHead(**options).path(A, y, nec=(1, 2, 4), checkpoint_dir=tmp_path)
    resumed = SparseHead(**options).path(A, y, nec=(1, 2, 4), checkpoint_dir=tmp_path)
    assert calls == [1, 1, 1, 2, 2, 4]
    longer = SparseHead(**options).path(A, y, nec=(1, 2, 4, 5), checkpoint_dir=tmp_path)
    assert calls[6:] == [5]
    for one, other, third in zip(whole.heads, resumed.heads, longer.heads):
        assert one.coef_.tobytes() == other.coef_.tobytes() == third.coef_.tobytes()
        assert one.intercept_.tobytes() == other.intercept_.tobytes()
        assert one.certificate_ == other.certificate_
        assert (one.l2_, one.nec_) == (other.l2_, other.nec_)


def test_kept_heads_are_of_the_same_data_and_options_only(planted, tmp_path):
    A, y, _ = planted
    for data, options in (
        ((A, y), {}),
        ((A + 1e-9, y), {}),
        ((A, np.roll(y, 1)), {}),
        ((A, y, np.linspace(1, 2, len(y))), {}),
        ((A, y), {"l2": 0.01}),
        ((A, y), {"nonnegative": True}),
        ((A, y), {"counting": "strict"}),
        ((A, y), {"concepts_per_class": 3}),
        ((A, y), {"method": "forward"}),
    ):
        kept, fresh = (
            SparseHead(**{"concepts_per_class": 2, **options}).fit(*data, checkpoint_dir=folder)
            for folder in (tmp_path, None)
        )
        assert kept.coef_.tobytes() == fresh.coef_.tobytes()
        assert kept.certificate_ == fresh.certificate_


def test_selection_on_a_part_of_the_samples_is_as_good(planted, monkeypatch):
    A, y, _ = planted
    full = SparseHead(2).fit(A, y)
    monkeypatch.setattr("sparsecbm.heads.solver.softmax.PER_CLASS", 20)
    assert make_problem(A, y).single.fewer.n_samples == len(y) // 3
    part = SparseHead(2).fit(A, y)
    assert nec(part.coef_) == 2
    assert part.certificate_["relative_gap"] <= 1e-6
    assert part.certificate_["objective"] <= full.certificate_["objective"] * 1.05
    path = SparseHead().path(A, y, nec=(1, 2, 3))
    assert [head.nec_["average"] for head in path.heads] == [1, 2, 3]


def test_validation_chooses_the_penalty_and_test_data_cannot(planted):
    A, y, _ = planted
    train, held = (A[:240], y[:240]), (A[240:], y[240:])
    grid = (3.0, 0.3, 0.01)
    scores = {value: -log_loss(held[1], SparseHead(2, l2=value).fit(*train).predict_proba(held[0])) for value in grid}
    chosen = SparseHead(2, l2=grid).fit(*train, validation=held)
    assert scores[chosen.l2_] == max(scores.values())
    np.testing.assert_array_equal(chosen.coef_, SparseHead(2, l2=chosen.l2_).fit(*train).coef_)
    first, second = (SparseHead(2, l2="auto", random_state=4).fit(*train) for _ in range(2))
    assert first.l2_ == second.l2_
    np.testing.assert_array_equal(first.coef_, second.coef_)


def test_counting_rules_and_what_they_keep():
    coef = np.array([[3.0, -2.0, 1.0, 0.0], [0.5, 0.0, 0.0, 0.0]])
    assert counting_rules(coef) == {"average": 2.0, "strict": 3.0, "distinct": 1.5}
    np.testing.assert_array_equal(np.argwhere(largest(np.abs(coef), 1)), [[0, 0], [0, 1]])
    np.testing.assert_array_equal(np.argwhere(largest(np.abs(coef), 1, "strict")), [[0, 0], [1, 0]])
    with pytest.raises(InputError, match="counting='mean'"):
        largest(np.abs(coef), 1, "mean")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concepts_per_class": 0}, "concepts_per_class=0"),
        ({"concepts_per_class": 2.5}, "concepts_per_class=2.5"),
        ({"counting": "strikt"}, "did you mean 'strict'"),
        ({"method": "splise"}, "did you mean 'splice'"),
        ({"scaling": "rows"}, "scaling='rows': expected 'global' or"),
        ({"l2": 0.0}, "l2=0.0"),
        ({"l2": "best"}, "l2='best'"),
        ({"concepts_per_class": None, "nonnegative": True}, "nonnegative=True needs"),
    ],
)
def test_bad_parameters_are_named(options, message, planted):
    A, y, _ = planted
    with pytest.raises(InputError, match=message):
        SparseHead(**options).fit(A, y)


def test_bad_labels_are_named(planted):
    A, y, _ = planted
    with pytest.raises(InputError, match="one class"):
        SparseHead().fit(A, np.zeros(len(A), int))
    with pytest.raises(InputError, match="one sample"):
        SparseHead(l2="auto").fit(A[:4], [0, 0, 0, 1])
    with pytest.raises(InputError, match=r"validation: 99 .* is not among the classes"):
        SparseHead(l2="auto").fit(A, y, validation=(A[:2], [0, 99]))
    with pytest.raises(InputError, match="nec="):
        SparseHead().path(A, y, nec=())
