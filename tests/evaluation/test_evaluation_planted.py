"""Data of which it is known what the concepts are worth: the measures must say so."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin

from sparsecbm.estimators import SparseCBMClassifier
from sparsecbm.evaluation import (
    matched_directions,
    name_alignment,
    paired_bootstrap,
    paired_difference,
    plausibility,
    run_controls,
    survival,
    used_in_decision,
)

N_CLASSES, DIM = 16, 48


class OneConceptAClass(ClassifierMixin, BaseEstimator):
    """Each class by the one concept whose score sets it apart most: no training, so that many seeds can be tried."""

    def __init__(self, concept_embeddings=None, random_state=None):
        self.concept_embeddings = concept_embeddings
        self.random_state = random_state

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        scores = X @ np.asarray(self.concept_embeddings).T
        self.mean_, self.scale_ = scores.mean(0), scores.std(0)
        means = np.stack([self._standardised(X[y == c]).mean(0) for c in self.classes_])
        self.chosen_ = means.argmax(1)
        return self

    def _standardised(self, X):
        return (X @ np.asarray(self.concept_embeddings).T - self.mean_) / self.scale_

    def predict(self, X):
        return self.classes_[self._standardised(X)[:, self.chosen_].argmax(1)]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def made_of_concepts(seed, n=480, noise=0.4):
    """Pictures of classes that are three concepts each, and the concepts: one of those of each class first."""
    rng = np.random.default_rng(seed)
    concepts = unit(rng.normal(size=(160, DIM)))
    own = np.arange(3 * N_CLASSES).reshape(3, N_CLASSES).T
    y = np.arange(n) % N_CLASSES
    shown = rng.random((n, 3)) < 0.9
    X = (shown[:, :, None] * concepts[own[y]]).sum(1) + noise * rng.normal(size=(n, DIM)) / np.sqrt(DIM)
    return X[: n // 2], y[: n // 2], X[n // 2 :], y[n // 2 :], concepts


@pytest.fixture(scope="module")
def planted():
    return made_of_concepts(0, noise=1.5)


def fit(planted, **options):
    X, y, _, _, concepts = planted
    settings = {"max_active_concepts": 3, "concepts_per_class": 2, "loss": "none", "max_iter": 80, "random_state": 0}
    return SparseCBMClassifier(concepts, **settings | options).fit(X, y)


def test_classes_made_of_concepts_show_it(planted):
    X, y, X_test, y_test, concepts = planted
    model = fit(planted, tie="exact")
    report = run_controls(model, X, y, X_test, y_test, concepts, fitted=model, controls=("matched_directions",))
    assert report.accuracy["concepts"][0] > 0.9
    assert report.advantage["own_recipe"]["low"] > 0.1
    many = run_controls(OneConceptAClass(), X, y, X_test, y_test, concepts, controls=("matched_directions",), n_seeds=8)
    assert many.advantage["own_recipe"]["low"] > 0
    used = used_in_decision(model.transform(X_test), model.head_weights_, y_test)
    units, scores = model.units(X_test)[:, used.concepts], model.concept_scores(X_test)[:, used.concepts]
    assert survival(units, scores).mean > 0.95
    # A class's text is the sum of its concepts: those that speak for it are the ones it is made of.
    texts = np.stack([concepts[c : 3 * N_CLASSES : N_CLASSES].sum(0) for c in range(N_CLASSES)])
    predicted = np.searchsorted(model.classes_, model.predict(X_test))
    said = plausibility(model.transform(X_test), model.head_weights_, predicted, texts, concepts)
    strangers = plausibility(model.transform(X_test), model.head_weights_, predicted, texts[::-1], concepts)
    assert said > 0.9 > 0.7 > strangers


def test_a_leaking_layer_is_caught_by_survival():
    data = made_of_concepts(0, n=1200, noise=1.0)
    X_test, found = data[2], {}
    for cone in (0.999, 0.7):
        model = fit(data, tie="free", min_alignment=cone, learning_rate=0.05, max_iter=600)
        used = (model.head_weights_ != 0).any(axis=0)
        units, scores = model.units(X_test)[:, used], model.concept_scores(X_test)[:, used]
        found[cone] = survival(units, scores).mean, name_alignment(units, scores).mean
    assert found[0.999][0] > 0.9
    assert found[0.7][0] < 0.7
    assert found[0.7][1] > 0.7  # alignment alone sees a correlation that a reader would call close


def test_on_data_without_concepts_the_interval_holds_zero_in_19_of_20_seeds():
    held = held_over_pictures = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        means, concepts = rng.normal(size=(6, 32)), unit(rng.normal(size=(80, 32)) + 1)
        y = np.arange(500) % 6
        X = means[y] + 1.5 * rng.normal(size=(500, 32))
        report = run_controls(
            OneConceptAClass(), X[:200], y[:200], X[200:], y[200:], concepts, controls=("matched_directions",),
            n_seeds=4, random_state=1000 * seed,
        )  # fmt: skip
        found = report.advantage["own_recipe"]
        held += found["low"] <= 0 <= found["high"]
        once = report.differences["matched_directions"]
        assert once["low"] == found["low"]
        held_over_pictures += abs(once["difference"]) < 0.04
    assert held >= 38
    assert held_over_pictures < 38  # an interval over pictures alone, about 4 points, would promise too much


def test_more_draws_widen_the_interval_by_their_luck():
    rng = np.random.default_rng(0)
    first = rng.random(400) < 0.7
    draws = [rng.random(400) < p for p in (0.5, 0.6, 0.7)]
    one, several = paired_difference(first, draws[:1]), paired_difference(first, draws)
    assert one == paired_bootstrap(first, draws[0])
    assert several["high"] - several["low"] > 2 * (one["high"] - one["low"])
    assert several["difference"] == pytest.approx(np.mean(first) - np.mean(draws))
    assert paired_difference(first, [draws[0]] * 3)["low"] == pytest.approx(one["low"])
    # With the same share right in every draw nothing is added.


def test_matched_directions_have_the_concepts_mean_and_covariance():
    rng = np.random.default_rng(0)
    concepts = unit(rng.normal(size=(4000, 12)) * np.linspace(0.2, 1, 12) + np.eye(12)[0] * 2)
    drawn = matched_directions(3 * concepts, rng)  # length is not direction
    assert drawn.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(drawn, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(drawn.mean(0), concepts.mean(0), atol=0.02)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(concepts.T), atol=0.02)
    few = unit(rng.normal(size=(5, 64)))
    inside = matched_directions(few, rng)
    coefficients = np.linalg.lstsq(few.T, inside.T, rcond=None)[0]
    np.testing.assert_allclose(few.T @ coefficients, inside.T, atol=1e-5)
    assert matched_directions(few[:1], rng).shape == (1, 64)
    same = [matched_directions(few, np.random.default_rng(3)) for _ in range(2)]
    np.testing.assert_array_equal(*same)
