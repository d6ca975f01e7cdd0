"""Published methods: each against an independent oracle, and with one property that its paper claims."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import Lasso, LogisticRegression
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import estimator_checks_generator, parametrize_with_checks

from sparsecbm import SparseCBMClassifier
from sparsecbm._base.errors import InputError
from sparsecbm._base.parts import METHODS
from sparsecbm.estimators.methods import (
    DNCBM,
    LM4CV,
    VLGCBM,
    ConceptDiscoveryModel,
    LabelFreeCBM,
    LaBo,
    PostHocCBM,
    PublishedSparseCBM,
    ResidualCBM,
    SpliceCBM,
)
from sparsecbm.estimators.methods.base import snap
from sparsecbm.estimators.methods.cdm import divergence
from sparsecbm.estimators.methods.label_free import cos_cubed
from sparsecbm.estimators.methods.post_hoc import fit_residual
from sparsecbm.estimators.sparse_autoencoder import SparseAutoencoder

K, M, D = 4, 30, 12
SHORT = {"steps": 60}
ALL = [
    LabelFreeCBM(),
    PostHocCBM(residual=True),
    LaBo(**SHORT),
    ConceptDiscoveryModel(**SHORT),
    VLGCBM(**SHORT),
    ResidualCBM(**SHORT),
    SpliceCBM(),
    DNCBM(**SHORT, active=3),
    LM4CV(**SHORT),
    PublishedSparseCBM(**SHORT),
]


OWN = {
    "check_fit_idempotent",
    "check_fit2d_1feature",
    "check_fit2d_1sample",
    "check_get_params_invariance",
    "check_no_attributes_set_in_init",
    "check_methods_sample_order_invariance",
}
"""Conventions that a method can break by itself; the others are of the base, which the first one stands for."""


@parametrize_with_checks(ALL[:1])
def test_scikit_learn_conventions(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("model", ALL[1:], ids=lambda model: type(model).__name__)
def test_scikit_learn_conventions_of_its_own(model) -> None:
    short = clone(model).set_params(**({"steps": 3} if "steps" in model.get_params() else {}))
    ran = set()
    for estimator, check in estimator_checks_generator(short):
        name = getattr(check, "func", check).__name__
        if name in OWN:
            check(estimator)
            ran.add(name)
    assert ran == OWN


@pytest.fixture(scope="module")
def data() -> dict:
    rng = np.random.default_rng(0)
    y = np.arange(160) % K
    C = rng.normal(size=(M, D))
    C /= np.linalg.norm(C, axis=1)[:, None]
    X = C[:K][y] + 0.25 * rng.normal(size=(160, D))  # class k shows concept k
    return {"X": X / np.linalg.norm(X, axis=1)[:, None], "y": np.array(list("abcd"))[y], "C": C, "labels": y}


@pytest.mark.parametrize("estimator", ALL, ids=lambda model: type(model).__name__)
def test_every_method_explains_stores_and_keeps_its_budget(estimator, data: dict, tmp_path: Path) -> None:
    X, y = data["X"], data["y"]
    options = {**estimator.get_params(deep=False), "concept_embeddings": data["C"], "concepts_per_class": 3}
    model = type(estimator)(**{**options, "random_state": 0}).fit(X, y)
    assert model.score(X, y) > 0.6
    assert np.count_nonzero(model.head_weights_) <= 3 * K
    assert len(model.concept_names_) == model.transform(X).shape[1] == len(model.concept_embeddings_)
    scores = model.logits(X)
    for i, ledger in enumerate(model.explain(X[:5])):
        assert ledger.score == pytest.approx(scores[i].max(), abs=1e-9)
        assert ledger.target == str(model.predict(X[i : i + 1])[0])
    model.save(tmp_path / "model")
    loaded = type(model).load(tmp_path / "model")
    np.testing.assert_array_equal(loaded.logits(X), scores)
    np.testing.assert_array_equal(loaded.transform(X), model.transform(X))
    assert loaded.get_params()["concepts_per_class"] == 3
    assert f"from sparsecbm.estimators.methods import {type(model).__name__}" in loaded.model_card()
    one, three = model.budgets(X, y, [1, 3])
    assert np.count_nonzero(one.head_weights_) <= K
    np.testing.assert_allclose(three.logits(X), scores, atol=1e-6)


def test_every_method_has_a_line_in_the_table_of_parts(data: dict) -> None:
    for name in METHODS:
        made = METHODS.find(name)(data["C"], concepts_per_class=2, random_state=0)
        assert {"concept_embeddings", "concepts_per_class"} <= made.get_params().keys()


# -- Label-free CBM ----------------------------------------------------------------------------------------------------


def test_label_free_head_is_scikit_learns_elastic_net_on_standardised_scores(data: dict) -> None:
    scores = data["X"] @ data["C"].T
    A = (scores - scores.mean(0)) / scores.std(0)
    model = LabelFreeCBM(data["C"], lam=0.02).fit(data["X"], data["y"])
    np.testing.assert_allclose(model.transform(data["X"]), A, atol=1e-5)
    known = LogisticRegression(solver="saga", l1_ratio=0.99, C=1 / (160 * 0.02), tol=1e-8, max_iter=20_000)
    np.testing.assert_allclose(model.predict_proba(data["X"]), known.fit(A, data["y"]).predict_proba(A), atol=2e-3)
    np.testing.assert_array_equal(model.head_weights_ != 0, np.abs(known.coef_) > 1e-6)


def test_label_free_projection_follows_another_models_scores_and_drops_what_it_cannot(data: dict) -> None:
    rng, X = np.random.default_rng(1), data["X"]
    P = np.maximum(X @ data["C"][:6].T, 0) ** 2  # not linear in X: least squares is not the best projection
    P[:, 5] = rng.normal(size=len(X))  # this one says nothing about the picture
    model = LabelFreeCBM(data["C"][:6], steps=300, learning_rate=1e-2, random_state=0)
    model.fit(X, data["y"], concept_scores=P)
    assert model.concept_names_ == [f"concept {j}" for j in range(5)]
    least = np.linalg.lstsq(np.column_stack([X, np.ones(len(X))]), P[:, :5], rcond=None)[0]
    units, target = torch.tensor(model.units(X)), torch.tensor(P[:, :5])
    linear = torch.tensor(np.column_stack([X, np.ones(len(X))]) @ least)
    assert cos_cubed(units, target).mean() > cos_cubed(linear, target).mean() + 0.01
    q, p = ((v - v.mean(0)) / v.std(0) for v in (model.units(X), P[:, :5]))
    by_hand = (q**3 * p**3).sum(0) / np.sqrt((q**6).sum(0) * (p**6).sum(0))
    np.testing.assert_allclose(cos_cubed(units, target).numpy(), by_hand, atol=1e-12)
    with pytest.raises(InputError, match="concept_scores have shape"):
        LabelFreeCBM(data["C"]).fit(X, data["y"], concept_scores=P)


# -- Post-hoc CBM ------------------------------------------------------------------------------------------------------


def test_post_hoc_vectors_are_normals_of_svms_and_the_residual_leaves_the_head(data: dict) -> None:
    X, y = data["X"], data["y"]
    labels = np.full((160, M), np.nan)
    labels[:, 0] = data["labels"] == 0
    model = PostHocCBM(data["C"], svm_c=1.0, concepts_per_class=2).fit(X, y, concept_labels=labels)
    svm = LinearSVC(loss="hinge", C=1.0, intercept_scaling=100.0, max_iter=200_000, tol=1e-6, random_state=0)
    margin = svm.fit(X, labels[:, 0]).decision_function(X)
    assert np.corrcoef(model.units(X)[:, 0], margin)[0, 1] > 0.999
    assert np.corrcoef(model.units(X)[:, 1], X @ data["C"][1])[0, 1] > 1 - 1e-9  # no labels: its text

    plain = PostHocCBM(data["C"], concepts_per_class=1).fit(X, y)
    more = PostHocCBM(data["C"], concepts_per_class=1, residual=True).fit(X, y)
    np.testing.assert_array_equal(more.head_weights_, plain.head_weights_)
    assert more.score(X, y) >= plain.score(X, y)
    np.testing.assert_allclose(more.logits(X) - plain.logits(X), more._leftover(X), atol=1e-12)
    ridge = LogisticRegression(C=1 / (160 * 0.1), tol=1e-10, max_iter=5000)
    scale = np.sqrt(((X - X.mean(0)) ** 2).sum(1).mean() / D)
    weights, intercept = fit_residual(X, data["labels"], np.zeros((160, K)), 0.1)
    known = ridge.fit((X - X.mean(0)) / scale, data["labels"]).predict_log_proba((X - X.mean(0)) / scale)
    found = X @ weights.T + intercept
    np.testing.assert_allclose(found - np.logaddexp.reduce(found, 1, keepdims=True), known, atol=1e-4)


# -- LaBo --------------------------------------------------------------------------------------------------------------


def test_labo_chooses_nearly_the_best_set_and_starts_from_whose_concept_it_is(data: dict) -> None:
    model = LaBo(data["C"], discriminability=0.3, coverage=1.0)
    rng = np.random.default_rng(2)
    pool, worth, texts = np.arange(9), rng.uniform(size=9), data["C"][:9]

    def value(chosen) -> float:
        cover = np.maximum(texts @ texts.T, 0)[list(chosen)].max(0).sum()
        return 0.3 * worth[list(chosen)].sum() + cover

    best = max(map(value, combinations(range(9), 3)))
    found = value(model._choose(pool, worth, texts, 3))
    assert best >= found >= (1 - 1 / np.e) * best  # Nemhauser et al. 1978
    relevance = np.zeros((K, M))
    relevance[np.arange(K), np.arange(K)] = 1
    made = LaBo(data["C"], steps=1, learning_rate=1e-9).fit(data["X"], data["y"], relevance=relevance)
    assert made.concept_names_ == [f"concept {j}" for j in range(K)]
    np.testing.assert_allclose(made.head_weights_, torch.eye(K).softmax(0).numpy(), atol=1e-6)
    assert made.score(data["X"], data["y"]) > 0.9  # its claim: the prior alone classifies, before any training
    with pytest.raises(InputError, match="a candidate for every class"):
        LaBo(data["C"]).fit(data["X"], data["y"], relevance=np.zeros((K, M)))


# -- CDM ---------------------------------------------------------------------------------------------------------------


def test_cdm_gates_are_hard_and_a_smaller_prior_opens_fewer(data: dict) -> None:
    logits = torch.linspace(-9, 9, 7, dtype=torch.float64)
    q, p = (torch.distributions.Bernoulli(logits=v) for v in (logits, torch.tensor(0.01, dtype=torch.float64).logit()))
    known = torch.distributions.kl_divergence(q, p)
    np.testing.assert_allclose(divergence(logits, 0.01).numpy(), known.numpy(), rtol=1e-9)
    opened = {}
    for prior in (0.3, 1e-4):
        model = ConceptDiscoveryModel(
            data["C"], active_prior=prior, kl_weight=0.02, random_state=0, steps=150, learning_rate=1e-2
        )
        model.fit(data["X"], data["y"])
        A = model.transform(data["X"])
        np.testing.assert_array_equal(A != 0, model.units(data["X"]) > 0)
        np.testing.assert_allclose(
            A[A != 0], (data["X"] @ data["C"].T)[A != 0] / model.score_scale_, rtol=1e-5, atol=1e-6
        )
        opened[prior] = (A != 0).mean()
        assert model.score(data["X"], data["y"]) > 0.9
    assert opened[1e-4] < 0.5 * opened[0.3]


# -- VLG-CBM -----------------------------------------------------------------------------------------------------------


def test_vlg_logits_are_logistic_regressions_on_detections(data: dict) -> None:
    X, y = data["X"], data["y"]
    scores = X @ data["C"].T
    seen = (scores - scores.mean(0)) / scores.std(0) > 1.0
    model = VLGCBM(data["C"], l2=0.01, steps=400, learning_rate=5e-2, batch_size=160, random_state=0).fit(X, y)
    Z = (X - X.mean(0)) / np.sqrt(X.var(0).mean())
    for j in (0, 7):
        known = LogisticRegression(C=1 / (160 * 0.01), tol=1e-9, max_iter=5000).fit(Z, seen[:, j]).decision_function(Z)
        assert np.corrcoef(model.units(X)[:, j], known)[0, 1] > 0.9999
    few, many = model.budgets(X, y, [1, 5])
    assert (few.head_weights_ != 0).sum() == K
    assert (many.head_weights_ != 0).sum() <= 5 * K
    nobody = VLGCBM(data["C"], threshold=99.0)
    with pytest.raises(InputError, match="threshold=99"):
        nobody.fit(X, y)


# -- what is learned and snapped ---------------------------------------------------------------------------------------


def test_snap_takes_the_nearest_pair_first_and_none_twice() -> None:
    rng = np.random.default_rng(3)
    vectors, bank = rng.normal(size=(4, 5)), rng.normal(size=(8, 5))
    cosine = {
        (i, j): vectors[i] @ bank[j] / np.linalg.norm(vectors[i]) / np.linalg.norm(bank[j])
        for i in range(4)
        for j in range(8)
        if j != 2
    }
    expected: dict[int, int] = {}
    for i, j in sorted(cosine, key=cosine.get, reverse=True):  # type: ignore[arg-type]
        if i not in expected and j not in expected.values():
            expected[i] = j
    assert snap(vectors, bank, taken=[2]) == [expected[i] for i in range(4)]


def test_lm4cv_finds_few_words_that_tell_more_than_as_many_random_ones(data: dict) -> None:
    X, y = data["X"], data["y"]
    model = LM4CV(data["C"], n_attributes=K, steps=150, random_state=0).fit(X, y)
    assert len(set(model.concept_names_)) == K
    rng = np.random.default_rng(0)
    others = [
        LabelFreeCBM(data["C"][rng.choice(M, K, replace=False)], lam=1e-4).fit(X, y).score(X, y) for _ in range(10)
    ]
    assert model.score(X, y) > np.mean(others) + 0.02


def test_res_cbm_discovers_the_concept_that_the_base_set_lacks() -> None:
    rng = np.random.default_rng(0)
    bank = np.eye(10)  # the classes differ along the axes 0 to 3, and by the sign of axis 4 within each pair
    y = np.arange(240) % 4
    X = np.zeros((240, 10))
    X[np.arange(240), y // 2] = 1.0
    X[:, 4] = np.where(y % 2, 0.6, -0.6)
    X += 0.05 * rng.normal(size=X.shape)
    options = {"n_residual": 1, "random_state": 0, "steps": 300, "base_per_class": 1}
    base = LabelFreeCBM(bank[:4], lam=1e-4).fit(X, y).score(X, y)
    model = ResidualCBM(np.delete(bank, [5], 0), **options).fit(X, y)
    assert base < 0.7
    assert model.score(X, y) > 0.95
    assert "concept 4" in model.concept_names_
    assert len(model.discovered_) == 1


def test_dn_cbm_reads_the_codes_of_its_autoencoder_and_names_units_last(data: dict) -> None:
    X, C = data["X"], data["C"]
    model = DNCBM(C, n_concepts=12, active=2, steps=200, random_state=0).fit(X, data["y"])
    sae = SparseAutoencoder(12, active=2, max_iter=200, random_state=model._seed, device="cpu", verbose=False).fit(X)
    codes, A = sae.transform(X), model.transform(X)
    np.testing.assert_allclose(A * (codes.max() / A.max()), codes, atol=1e-4)  # but for one factor
    assert (A != 0).sum(1).max() <= 2
    nearest = (sae.components_ @ C.T).argmax(1)
    assert [name.split(" (")[0] for name in model.concept_names_] == [f"concept {j}" for j in nearest]
    other = DNCBM(C[::-1], n_concepts=12, active=2, steps=200, random_state=0).fit(X, data["y"])
    np.testing.assert_array_equal(other.logits(X), model.logits(X))  # its claim: concepts before names


# -- SpLiCE, SparseCBM -------------------------------------------------------------------------------------------------


def test_splice_codes_are_scikit_learns_positive_lasso_and_need_no_labels(data: dict) -> None:
    X, C = data["X"], data["C"]
    model = SpliceCBM(C, alpha=0.2).fit(X, data["y"])
    centred, words = X - X.mean(0), C - C.mean(0)
    centred, words = (v / np.linalg.norm(v, axis=1)[:, None] for v in (centred, words))
    lasso = Lasso(alpha=0.2 / D, positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
    known = lasso.fit(words.T, centred[:10].T).coef_
    np.testing.assert_allclose(model.transform(X[:10]) * model.code_scale_, known, atol=1e-4)
    other = SpliceCBM(C, alpha=0.2).fit(X, data["y"][::-1])
    np.testing.assert_array_equal(other.transform(X), model.transform(X))


def test_published_losses_are_the_classifiers_own_units_and_head(data: dict) -> None:
    ours = PublishedSparseCBM(data["C"], loss="l1", steps=50, random_state=3).fit(data["X"], data["y"])
    seed = ours._seed
    theirs = SparseCBMClassifier(
        data["C"], variant="published", loss="l1", learning_rate=1e-3, max_iter=50, random_state=seed, device="cpu"
    ).fit(data["X"].astype(np.float32), data["y"])
    np.testing.assert_allclose(ours.logits(data["X"]), theirs.logits(data["X"]), rtol=1e-3, atol=1e-3)
    assert (ours.transform(data["X"]) != 0).all()  # as published: nothing is exactly zero
