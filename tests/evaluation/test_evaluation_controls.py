"""Controls on embeddings where it is known which of them must fail."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression

from sparsecbm._base.errors import InputError
from sparsecbm.estimators import SparseCBMClassifier
from sparsecbm.evaluation import (
    ALL_CONTROLS,
    ControlReport,
    ProbeInDisguiseWarning,
    control_table,
    disguise,
    nec_grid,
    random_directions,
    random_words,
    run_controls,
)


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
        ScoreClassifier(), X, y, X_test, y_test, concepts, random_word_embeddings=directions[20:],
        controls=ALL_CONTROLS, n_seeds=2,
    )  # fmt: skip
    assert list(report.accuracy) == ["concepts", *(name for name in ALL_CONTROLS if name != "equal_freedom")]
    assert report.advantage["equal_freedom"] == report.advantage["own_recipe"]  # all are equally free
    rows = {row["name"]: row for row in report.table()}
    assert rows["concepts"]["accuracy"] > 0.9
    assert rows["random_words"]["accuracy"] < 0.5
    assert rows["random_directions"]["accuracy"] < rows["concepts"]["accuracy"] - 0.2
    # The classifier never reads a name, so accuracy cannot show that they were permuted; alignment does.
    assert rows["shuffled_names"]["accuracy"] == report.accuracy["concepts"][0]
    assert rows["shuffled_names"]["difference"] == 0
    assert rows["concepts"]["name_alignment"] == pytest.approx(1.0)
    assert rows["shuffled_names"]["name_alignment"] < 0.7
    # Five directions matched to five concepts span the subspace that the concepts span: a dense head sees the same.
    assert rows["matched_directions"]["accuracy"] > 0.8
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
        report = run_controls(ScoreClassifier(), X, y, X_test, y_test, directions, controls=("matched_directions",))
    assert len(report.warnings) == 1
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


class RelevantClassifier(ScoreClassifier):
    """Reads names, through the relevance that they have for each class: a class is its most relevant score."""

    def __init__(self, concept_embeddings=None, concept_relevance=None, random_state=None):
        super().__init__(concept_embeddings, random_state)
        self.concept_relevance = concept_relevance

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[(self.transform(X) @ np.asarray(self.concept_relevance).T).argmax(1)]


def test_where_names_take_part_shuffled_names_are_trained_and_cost_accuracy(birds):
    X, y, X_test, y_test, concepts, _ = birds
    model = RelevantClassifier(concept_relevance=np.eye(5))
    report = run_controls(model, X, y, X_test, y_test, concepts, controls=("shuffled_names",), n_seeds=3)
    assert report.accuracy["concepts"][0] > 0.9
    assert np.mean(report.accuracy["shuffled_names"]) < 0.6


def test_a_fitted_model_is_scored_as_it_is_and_retrained_only_on_request(birds):
    X, y, X_test, y_test, concepts, directions = birds
    fitted = ScoreClassifier(concepts, 0).fit(X[:60], y[:60])  # not what the recipe on all of X would give
    fit = ScoreClassifier.fit
    fits = []

    class Counting(ScoreClassifier):
        def fit(self, X, y):
            fits.append(len(X))
            return fit(self, X, y)

    once = run_controls(
        Counting(), X, y, X_test, y_test, concepts, fitted=fitted, random_word_embeddings=directions[20:]
    )
    assert once.accuracy["concepts"] == [fitted.score(X_test, y_test)]
    assert fits == [200, 200]  # random words and meaningless directions
    assert "retrained" not in once.accuracy
    again = run_controls(
        ScoreClassifier(), X, y, X_test, y_test, concepts, fitted=fitted, retrain=True, controls=(), n_seeds=2
    )
    expected = ScoreClassifier(concepts).fit(X, y).score(X_test, y_test)
    assert again.accuracy == {"concepts": [fitted.score(X_test, y_test)], "retrained": [expected] * 2}


def test_paths_are_those_of_the_head_on_the_activations(birds):
    from sparsecbm.heads import SparseHead

    X, y, X_test, y_test, concepts, directions = birds
    report = run_controls(
        ScoreClassifier(), X, y, X_test, y_test, concepts, random_word_embeddings=directions[20:], nec=(1, 2)
    )
    assert list(report.paths) == ["concepts", "matched_directions", "random_words"]
    found = SparseHead(random_state=0).path(X @ concepts.T, y, (1, 2), test=(X_test @ concepts.T, y_test))
    assert report.paths["concepts"] == found.table()
    assert report.paths["concepts"][0]["accuracy"] > report.paths["matched_directions"][0]["accuracy"]
    assert report.anec == {}
    assert nec_grid(1608) == (5, 10, 15, 20, 25, 30)
    rows = [{"nec": k, "accuracy": k / 100} for k in nec_grid(40)]
    assert ControlReport({}, {}, {}, paths={"concepts": rows}).anec == {"concepts": pytest.approx(0.175)}


def test_concept_auc_of_shuffled_names_is_chance(birds):
    X, y, X_test, y_test, concepts, _ = birds
    truth = ([0, 1, 3], y_test[:, None] == np.array([0, 1, 3]))
    report = run_controls(ScoreClassifier(), X, y, X_test, y_test, concepts, truth=truth, controls=("shuffled_names",))
    assert report.concept_auc["concepts"] > 0.95
    # A unit under a wrong name tells that the class is another one: below a half, never near the model's own.
    assert report.concept_auc["shuffled_names"] < 0.65


def test_verdict_and_advantage_follow_the_interval():
    rng = np.random.default_rng(0)
    means = rng.normal(size=(8, 24))
    y = np.arange(480) % 8
    X = means[y] + 1.0 * rng.normal(size=(480, 24))
    data = X[:240], y[:240], X[240:], y[240:]
    named = np.concatenate([means, rng.normal(size=(192, 24))])
    recipe = SparseCBMClassifier(
        named, max_active_concepts=2, concepts_per_class=2, tie="exact", loss="none", max_iter=60
    )
    found = run_controls(recipe, *data, named, controls=("matched_directions",))
    gap = found.advantage["own_recipe"]
    assert gap["low"] > 0.05
    assert gap["difference"] == pytest.approx(found.accuracy["concepts"][0] - gap["accuracy"])
    assert found.advantage["equal_freedom"] == gap
    assert f"is worth {100 * gap['difference']:.1f} points" in found.verdict()
    assert found.verdict().startswith(f"The same number of meaningless directions reaches {gap['accuracy']:.1%}")
    same = run_controls(recipe, *data, rng.normal(size=(200, 24)), controls=("matched_directions",))
    assert "does not show that what they mean matters" in same.verdict()
    assert run_controls(recipe, *data, named, controls=()).verdict() is None


def test_control_table_has_a_row_in_words_for_each(birds):
    X, y, X_test, y_test, concepts, _ = birds
    report = run_controls(ScoreClassifier(), X, y, X_test, y_test, concepts, n_seeds=2)
    rows = control_table(report)
    assert [row["name"] for row in rows] == [
        "The model", "Meaningless directions", "Shuffled names", "Linear probe", "Nearest class mean",
    ]  # fmt: skip
    assert all(set(row) == {"name", "accuracy", "sd", "note"} for row in rows)
    assert [row["accuracy"] for row in rows] == [np.mean(values) for values in report.accuracy.values()]
    assert rows[1]["sd"] == pytest.approx(np.std(report.accuracy["matched_directions"], ddof=1))
    assert rows[-1]["sd"] is None


def test_without_concept_embeddings_only_the_probes_run(birds):
    X, y, X_test, y_test, concepts, _ = birds
    scores, test = X @ concepts.T, X_test @ concepts.T
    fitted = LogisticRegression(C=100).fit(scores, y)
    report = run_controls(LogisticRegression(), scores, y, test, y_test, None, fitted=fitted)
    assert list(report.accuracy) == ["concepts", "linear_probe", "nearest_mean"]
    assert set(report.skipped) == {"matched_directions", "equal_freedom", "random_words", "shuffled_names"}


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


class Freed(ScoreClassifier):
    """A recipe that frees each concept as it likes."""

    def __init__(self, concept_embeddings=None, random_state=None, widths=None):
        super().__init__(concept_embeddings, random_state)
        self.widths = widths

    def fit(self, X, y):
        self.widths_ = np.arange(len(self.concept_embeddings)) if self.widths is None else self.widths
        return super().fit(X, y)

    def freedoms(self):
        return {"widths": self.widths_}


def test_equal_freedom_hands_the_concepts_freedoms_on(birds):
    X, y, X_test, y_test, concepts, _ = birds
    seen = []

    class Watched(Freed):
        def fit(self, X, y):
            seen.append(self.widths)
            return super().fit(X, y)

    report = run_controls(Watched(), X, y, X_test, y_test, concepts, controls=("matched_directions", "equal_freedom"))
    assert [None if given is None else given.tolist() for given in seen] == [None, None, [0, 1, 2, 3, 4]]
    assert set(report.advantage) == {"own_recipe", "equal_freedom"}


def test_a_control_is_trained_once_for_the_same_data_and_recipe(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X, y, concepts = rng.normal(size=(60, 8)), np.repeat(["a", "b", "c"], 20), rng.normal(size=(12, 8))
    fits = []
    fit = SparseCBMClassifier.fit

    def counting(self, *args, **options):
        fits.append(self.max_iter)
        return fit(self, *args, **options)

    monkeypatch.setattr(SparseCBMClassifier, "fit", counting)
    recipe = SparseCBMClassifier(concepts, max_active_concepts=2, max_iter=3)
    fitted = recipe.fit(X, y)

    def control(model, X):
        options = {"fitted": fitted, "controls": ("matched_directions",), "cache_dir": tmp_path}
        return run_controls(model, X, y, X, y, concepts, **options).accuracy["matched_directions"]

    first = control(recipe, X)
    assert control(recipe, X) == first
    assert fits == [3, 3]
    control(recipe, X[::-1])
    control(SparseCBMClassifier(concepts, max_active_concepts=2, max_iter=4), X)
    assert fits == [3, 3, 3, 4]
    for held in tmp_path.iterdir():
        (held / "model.safetensors").write_bytes(b"broken")
    assert control(recipe, X) == first
    assert fits == [3, 3, 3, 4, 3]
