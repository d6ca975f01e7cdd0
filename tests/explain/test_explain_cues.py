"""Spurious cues, confusions and wrong reasons: what is planted is found, and nothing where nothing is planted."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm import SparseCBMClassifier, embed_images, embed_texts, load_encoder, load_images
from sparsecbm._base.errors import InputError
from sparsecbm.data import birds
from sparsecbm.explain import explain
from sparsecbm.explain.cues import correlation_ratio, find_cues
from sparsecbm.explain.interventions import ConceptTruth, ModelEdits, concept_uncertainty, intervention_curve
from sparsecbm.explain.mistakes import confusions, right_for_absent

HABITATS = set(birds.ATTRIBUTES["habitat"])


@pytest.fixture(scope="module")
def bank():
    encoder = load_encoder("bundled")
    vectors = embed_texts(encoder, birds.concept_phrases(), ("{}",), cache="memory").vectors

    def embed(spec: str, split: str, n: int):
        images = load_images(spec, split, max_images=n)
        return images, embed_images(encoder, images, cache="memory").vectors

    return vectors, embed


@pytest.fixture(scope="module")
def tied(bank):
    """A model that must lean on four concepts, trained where every species keeps to its habitat."""
    vectors, embed = bank
    columns = [
        j
        for j, name in enumerate(birds.ATTRIBUTE_NAMES)
        if any(name in birds.ATTRIBUTES[group] for group in ("crown", "breast", "wings", "habitat"))
    ]
    names = [birds.ATTRIBUTE_NAMES[j] for j in columns]
    images, X = embed("birds:tied", "train", 200)
    options = {"max_active_concepts": 4, "concepts_per_class": 3, "max_iter": 150, "min_alignment": 0.97}
    model = SparseCBMClassifier(vectors[columns], names, random_state=0, **options).fit(X, images.labels)
    return model, X, images.labels


def test_planted_cue_is_found_and_suppressing_it_restores_the_accuracy(bank, tied) -> None:
    _, embed = bank
    model, X, y = tied
    looked, X_looked = embed("birds:untied", "validation", 200)
    judged, X_judged = embed("birds:untied", "test", 300)
    report = find_cues(model.explain(X_looked), looked.labels, model.explain(X), y)
    assert set(report.found) == HABITATS
    assert report.accuracy == pytest.approx(model.score(X_looked, looked.labels))
    assert all(cue.tie_train > 0.9 and cue.tie_test < 0.3 for cue in report.cues if cue.found)
    edits = ModelEdits(model)
    edits.suppress(report.found)
    assert report.accuracy_without == pytest.approx(model.score(X_looked, looked.labels))
    found = edits.measure(X_judged, judged.labels)  # other pictures than those it was found on
    assert found["after"] - found["before"] >= 0.10
    assert not set(find_cues(model.explain(X_looked), looked.labels, model.explain(X), y).found)
    edits.undo()


def test_pictures_that_keep_the_tie_show_no_cue(bank, tied) -> None:
    _, embed = bank
    model, X, y = tied
    same, X_same = embed("birds:tied", "test", 200)
    report = find_cues(model.explain(X_same), same.labels, model.explain(X), y)
    assert report.found == []
    assert report.accuracy_without == report.accuracy
    alone = find_cues(model.explain(X_same), same.labels)
    assert not alone.compared
    assert alone.found == []


def test_true_values_lift_a_weakened_model(bank) -> None:
    """The most uncertain concepts first: up at every step within noise, and at or above random order."""
    vectors, embed = bank
    rng = np.random.default_rng(0)

    def blurred(X):  # the weakening: an encoder that sees through noise
        X = X + 0.2 * rng.normal(size=X.shape).astype(np.float32)
        return X / np.linalg.norm(X, axis=1, keepdims=True)

    (train, X), (test, X_test) = embed("birds", "train", 300), embed("birds", "test", 300)
    X, X_test = blurred(X), blurred(X_test)
    model = SparseCBMClassifier(
        vectors, list(birds.ATTRIBUTE_NAMES), max_active_concepts=8, max_iter=100, random_state=0
    ).fit(X, train.labels)
    ledgers = model.explain(X_test)
    values = ConceptTruth.fit(model.transform(X), train.attributes).values(test.attributes)
    unsure = concept_uncertainty(model.units(X_test), model.units(X), train.attributes)
    curves = {
        order: intervention_curve(ledgers, test.labels, values, order=order, uncertainty=unsure, steps=16)
        for order in ("uncertainty", "random", "greedy")
    }
    first, anyhow, best = (curves[order].accuracy for order in ("uncertainty", "random", "greedy"))
    assert first[0] == pytest.approx(model.score(X_test, test.labels))
    assert first[0] < 0.9  # weakened it is
    assert first[16] > first[0] + 0.08
    noise = 2 * np.sqrt(0.02 / len(X_test))  # at most 2% of the pictures change sides against the trend by chance
    assert np.diff(first).min() >= -noise
    assert (first >= anyhow - noise).all()
    assert curves["uncertainty"].area > curves["random"].area
    assert (best[1:] >= first[1:] - noise).all()


# -- on numbers made by hand -------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    # Two concepts carry the classes; the third says "jay" in every picture it is active in, and should not.
    activations = np.array([[2, 0, 0], [2, 0, 3], [0, 2, 0], [0, 2, 3], [2, 0, 3], [2, 0, 0.0]])
    weights = np.array([[1, 0, 0], [0, 1, 1.0]])
    labels = np.array([0, 0, 1, 1, 0, 0])
    return explain(activations, weights, [0, 0], ["red", "blue", "lake"], ["finch", "jay"]), labels


def test_confusions_name_their_causes(small) -> None:
    ledgers, labels = small
    (found,) = confusions(ledgers, labels)
    assert (found.truth, found.predicted, found.rows.tolist(), found.share) == ("finch", "jay", [1, 4], 0.5)
    assert found.causes() == [("lake", 3.0)]
    assert found.ledger.score == pytest.approx(1.0)
    assert confusions(ledgers, ledgers.targets) == []
    with pytest.raises(InputError, match="labels: expected 6 class indices"):
        confusions(ledgers, labels[:3])


def test_right_for_absent_concepts(small) -> None:
    ledgers, labels = small
    truth = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 0, 0], [1, 0, 0], [0, 0, 0]], bool)
    found = right_for_absent(ledgers, labels, truth)
    # Image 3 is right for "blue" and "lake", neither of which is there; image 5 for "red", which is not there.
    assert [one.row for one in found] == [3, 5]
    assert found[0].absent == [("lake", 3.0), ("blue", 2.0)]
    assert found[0].share == 1.0
    assert found[0].decisive  # at a tie the first class wins
    assert not found[1].decisive
    only = right_for_absent(ledgers, labels, truth[:, [2]], known=[2])
    assert [(one.row, one.absent, one.decisive) for one in only] == [(3, [("lake", 3.0)], False)]
    assert only[0].share == pytest.approx(3 / 5)
    with pytest.raises(InputError, match="truth has shape"):
        right_for_absent(ledgers, labels, truth[:, :2])


def test_leaving_out_is_counted_exactly(rng) -> None:
    activations = np.maximum(rng.normal(size=(80, 6)), 0)
    ledgers = explain(activations, rng.normal(size=(4, 6)), rng.normal(size=4), list("abcdef"), list("wxyz"))
    labels = rng.integers(4, size=80)
    right = ledgers.targets == labels
    for cue in find_cues(ledgers, labels).cues:
        weights = ledgers.weights.copy()
        weights[:, ledgers.concepts.index(cue.concept)] = 0
        now = (activations @ weights.T + ledgers.bias).argmax(1) == labels
        assert (cue.fixed, cue.broken) == ((now & ~right).sum(), (~now & right).sum())


def test_correlation_ratio_of_known_cases(rng) -> None:
    y = np.repeat([0, 1], 50)
    columns = np.column_stack([y, np.ones(100), rng.normal(size=100), y + rng.normal(size=100)])
    made = correlation_ratio(columns, y)
    assert made[0] == pytest.approx(1.0)
    assert made[1] == 0.0
    assert made[2] < 0.1
    assert made[3] == pytest.approx(np.corrcoef(columns[:, 3], y)[0, 1] ** 2)
