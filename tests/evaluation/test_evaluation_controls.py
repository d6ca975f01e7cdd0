"""Controls on embeddings where it is known which of them must fail."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from sparsecbm._errors import InputError
from sparsecbm.evaluation import CONTROLS, ProbeInDisguiseWarning, disguise, random_words, run_controls
from sparsecbm.evaluation.controls import random_directions


class ScoreClassifier(ClassifierMixin, BaseEstimator):
    """Logistic regression on concept scores."""

    def __init__(self, concept_embeddings=None, random_state=None):
        self.concept_embeddings = concept_embeddings
        self.random_state = random_state

    def transform(self, X):
        return X @ np.asarray(self.concept_embeddings).T

    def fit(self, X, y):
        self.model_ = LogisticRegression(C=100, max_iter=500).fit(self.transform(X), y)
        self.classes_, self.coef_ = self.model_.classes_, self.model_.coef_
        return self

    def predict(self, X):
        return self.model_.predict(self.transform(X))


@pytest.fixture(scope="module")
def birds():
    """Five classes in a five-dimensional subspace that the concepts see and random directions hardly do."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(64, 64)))[0]
    y = np.arange(400) % 5
    spread = np.r_[np.full(5, 0.1), np.full(59, 0.3)]
    X = 0.6 * directions[y] + (spread * rng.normal(size=(400, 64))) @ directions
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    return X[:200], y[:200], X[200:], y[200:], directions[:5], directions


def test_table_holds_every_control_on_the_same_images(birds):
    X, y, X_test, y_test, concepts, directions = birds
    report = run_controls(
        ScoreClassifier(), X, y, X_test, y_test, concepts, random_word_embeddings=directions[20:], n_seeds=2
    )
    assert list(report.accuracy) == ["concepts", *CONTROLS]
    rows = {row["name"]: row for row in report.table()}
    assert rows["concepts"]["accuracy"] > 0.9
    assert rows["random_words"]["accuracy"] < 0.5
    assert rows["random_directions"]["accuracy"] < rows["concepts"]["accuracy"] - 0.2
    # The head relearns any order of the concepts, so names cannot be what the accuracy shows; alignment does.
    assert rows["shuffled_names"]["accuracy"] == pytest.approx(rows["concepts"]["accuracy"], abs=0.02)
    assert rows["concepts"]["name_alignment"] == pytest.approx(1.0)
    assert rows["shuffled_names"]["name_alignment"] < 0.7
    assert rows["linear_probe"]["n_concepts"] == 0
    assert rows["random_words"]["difference"] > 0.3
    assert rows["random_words"]["low"] > 0.2
    assert len(report.accuracy["concepts"]) == 2
    assert not report.warnings
    assert rows["linear_probe"]["accuracy"] > 0.8
    assert rows["nearest_mean"]["accuracy"] > 0.8


def test_same_seed_same_table_and_leaving_one_out_changes_no_other(birds):
    X, y, X_test, y_test, concepts, directions = birds
    whole = run_controls(ScoreClassifier(), X, y, X_test, y_test, concepts, random_word_embeddings=directions[20:])
    part = run_controls(
        lambda bank, seed: ScoreClassifier(bank, seed), X, y, X_test, y_test, concepts,
        random_word_embeddings=directions[20:], controls=("random_words",),
    )  # fmt: skip
    assert list(part.accuracy) == ["concepts", "random_words"]
    assert part.accuracy["random_words"] == whole.accuracy["random_words"]
    assert part.differences["random_words"] == whole.differences["random_words"]


def test_missing_words_are_reported_and_few_words_noted(birds):
    X, y, X_test, y_test, concepts, directions = birds
    report = run_controls(ScoreClassifier(), X, y, X_test, y_test, concepts)
    assert "random_words" not in report.accuracy
    assert "no text embeddings" in report.skipped["random_words"]
    few = run_controls(
        ScoreClassifier(), X, y, X_test, y_test, concepts, random_word_embeddings=directions[20:23],
        controls=("random_words",),
    )  # fmt: skip
    assert few.n_concepts["random_words"] == 3
    assert "only 3 random words" in few.warnings[0]


def test_dense_head_over_d_concepts_is_called_a_probe(birds):
    X, y, X_test, y_test, _, directions = birds
    with pytest.warns(ProbeInDisguiseWarning, match="linear probe in disguise"):
        report = run_controls(ScoreClassifier(), X, y, X_test, y_test, directions, controls=("random_directions",))
    assert len(report.warnings) == 1
    sparse = np.zeros((5, 64))
    sparse[:, :3] = 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_controls(ScoreClassifier(), X, y, X_test, y_test, directions, controls=(), head_weights=sparse)
    assert disguise(64, 64, np.ones((5, 64)))
    assert disguise(63, 64, np.ones((5, 63))) is None
    assert disguise(64, 64, np.ones((5, 64)), active_per_image=8.0) is None
    assert disguise(200, 64, np.repeat([[1.0, 0.0]], 100, 1).reshape(1, -1).repeat(5, 0)[:, :200])


def test_random_words_and_directions():
    rng = np.random.default_rng(0)
    assert sorted(random_words(3, rng, ["a", "b", "c", "c"])) == ["a", "b", "c"]
    assert random_words(20, np.random.default_rng(5)) == random_words(20, np.random.default_rng(5))
    assert all(word.isalpha() for word in random_words(20, rng))
    vectors = random_directions(4000, 8, rng)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(vectors.T @ vectors / 4000, np.eye(8) / 8, atol=0.01)


def test_bad_input_is_named(birds):
    X, y, X_test, y_test, concepts, _ = birds
    with pytest.raises(InputError, match="did you mean 'random_words'"):
        run_controls(ScoreClassifier(), X, y, X_test, y_test, concepts, controls=("random_word",))
    with pytest.raises(InputError, match="equal columns"):
        run_controls(ScoreClassifier(), X, y, X_test, y_test, concepts[:, :4])
    with pytest.raises(InputError, match="concept_embeddings"):
        run_controls(LogisticRegression(), X, y, X_test, y_test, concepts)
    with pytest.raises(InputError, match="2 different words"):
        random_words(3, np.random.default_rng(0), ["a", "b"])
