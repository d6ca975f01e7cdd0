"""Concept labels: truer units, probabilities, corrections that count, and words where they cannot."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from sparsecbm._base.errors import InputError
from sparsecbm._base.logistic import logistic_columns
from sparsecbm._base.ranks import pair_aucs
from sparsecbm.bottleneck.labelled import learn_concepts, unlabelled_presence, worth
from sparsecbm.bottleneck.ties.base import unit_rows
from sparsecbm.estimators import SparseCBMClassifier
from sparsecbm.estimators.concept_labels import ConceptWarning
from sparsecbm.evaluation import expected_calibration_error

N, D, M, K = 1200, 32, 8, 4


def planted(seed: int = 0, noise: float = 1.0, wrong: float = 1.0) -> tuple[np.ndarray, ...]:
    """Embeddings that hold eight concepts, classes that follow from them, texts that point roughly there."""
    rng = np.random.default_rng(seed)
    concepts = (rng.random((N, M)) < 0.4).astype(float)
    rows = rng.normal(size=(M, D))
    X = (concepts - 0.4) @ rows + noise * rng.normal(size=(N, D))
    y = (concepts @ rng.normal(size=(M, K))).argmax(1)
    return X, y, concepts, rows + wrong * rng.normal(size=rows.shape)


def fit(X: np.ndarray, y: np.ndarray, texts: np.ndarray | None, labels: np.ndarray | None, **given: object):
    model = SparseCBMClassifier(texts, random_state=0, verbose=False, max_iter=100, **given)
    return model.fit(X[:800], y[:800], concept_labels=None if labels is None else labels[:800])


def mean_auc(truth: np.ndarray, proba: np.ndarray) -> float:
    return float(np.mean([roc_auc_score(t, p) for t, p in zip(truth.T, proba.T)]))


def test_columns_of_logistic_regression_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 5))
    y = rng.random((200, 5)) < 1 / (1 + np.exp(-2 * x + 1))
    weight = (rng.random((200, 5)) < 0.7).astype(float)
    slope, intercept = logistic_columns(np.where(weight > 0, x, np.nan), y, weight)
    for j in range(5):
        rows = weight[:, j] > 0
        oracle = LogisticRegression(tol=1e-10).fit(x[rows, j : j + 1], y[rows, j])
        np.testing.assert_allclose([slope[j], intercept[j]], [oracle.coef_[0, 0], oracle.intercept_[0]], atol=1e-5)


def test_a_strong_prior_keeps_slope_and_intercept() -> None:
    x, y = np.linspace(-1, 1, 10)[:, None], np.arange(10)[:, None] % 2
    slope, intercept = logistic_columns(x, y, None, 3.0, -2.0, (1e9, 1e9))
    np.testing.assert_allclose([slope[0], intercept[0]], [3.0, -2.0], atol=1e-6)


def test_auc_of_partly_labelled_columns_is_that_of_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    z, C = rng.normal(size=(100, 4)).round(1), (rng.random((100, 4)) < 0.3).astype(float)
    known = rng.random((100, 4)) < 0.5
    expected = [roc_auc_score(C[known[:, j], j], z[known[:, j], j]) for j in range(4)]
    np.testing.assert_allclose(pair_aucs(z, C >= 0.5, known), expected, rtol=1e-12)


def test_without_labels_concepts_are_their_texts() -> None:
    X, y, C, texts = planted()
    a = fit(X, y, texts, None, training="sequential")
    with pytest.warns(ConceptWarning, match="nothing but NaN"):
        b = fit(X, y, texts, np.full(C.shape, np.nan), training="sequential")
    assert (a.predict_concepts_proba(X) == b.predict_concepts_proba(X)).all()
    assert (a.logits(X) == b.logits(X)).all()
    assert b.concept_directions_ is None


@pytest.mark.parametrize("training", ["sequential", "independent", "joint"])
def test_labels_make_concepts_truer_and_probabilities_calibrated(training: str) -> None:
    X, y, C, texts = planted(wrong=2.0)
    bare, taught = fit(X, y, texts, None), fit(X, y, texts, C, training=training)
    held = slice(800, None)
    before, after = (mean_auc(C[held], m.predict_concepts_proba(X[held])) for m in (bare, taught))
    assert after > max(before + 0.03, 0.99)
    assert taught.label_share_.mean() > 0.5
    assert (taught.label_auc_ > 0.95).all()
    proba = taught.predict_concepts_proba(X[held])
    errors = [
        expected_calibration_error(t, np.column_stack([1 - p, p])) for t, p in zip(C[held].astype(int).T, proba.T)
    ]
    assert np.mean(errors) < 0.05


def test_more_labels_never_leave_concepts_worse() -> None:
    X, _, C, texts = planted(noise=2.0, wrong=2.0)
    scores, unit = [], texts / np.linalg.norm(texts, axis=1, keepdims=True)
    for count in (0, 10, 40, 200, 800):
        labels = np.where(np.arange(N)[:, None] < count, C, np.nan)
        found = learn_concepts(unit, X[:800], labels[:800], X[:800], 0)
        scores.append(mean_auc(C[800:], X[800:] @ found.directions.T))
    assert all(later >= earlier - 0.01 for earlier, later in itertools.pairwise(scores))
    assert scores[-1] > scores[0] + 0.03


@pytest.mark.parametrize(("training", "least"), [("sequential", 0.85), ("independent", 0.9)])
def test_corrections_count(training: str, least: float) -> None:
    X, y, C, texts = planted(noise=1.5)
    model, held = fit(X, y, texts, C, training=training), slice(800, None)
    ceiling = LogisticRegression(C=100).fit(C[:800], y[:800]).score(C[held], y[held])
    everything = (model.predict_from_concepts(C[held]) == y[held]).mean()
    assert everything >= max(least * ceiling, model.score(X[held], y[held]) + 0.05)
    proba = model.predict_concepts_proba(X[held])
    curve = []
    for k in range(M + 1):
        known = np.argsort(np.argsort(np.abs(proba - 0.5), axis=1), axis=1) < k
        curve.append((model.predict_from_concepts(C[held], known, X[held]) == y[held]).mean())
    assert curve[0] == pytest.approx(model.score(X[held], y[held]))
    assert curve[-1] == pytest.approx(everything)
    assert min(np.diff(curve)) > -0.03
    rows = model.predict_from_concepts(C[held], proba=True)
    np.testing.assert_allclose(rows.sum(axis=1), 1.0)


def test_labels_alone_make_concepts_of_features() -> None:
    X, y, C, _ = planted()
    names = [f"part {j}" for j in range(M)]
    model = SparseCBMClassifier(concept_names=names, random_state=0).fit(X[:800], y[:800], concept_labels=C[:800])
    assert model.concept_names_ == names
    assert mean_auc(C[800:], model.predict_concepts_proba(X[800:])) > 0.99
    assert model.concept_directions_.shape == (M, D)


def test_labels_of_other_pictures_teach_too() -> None:
    X, y, C, texts = planted(wrong=2.0)
    model = SparseCBMClassifier(texts, random_state=0)
    model.fit(X[:300], y[:300], concept_labels=C[300:800], concept_X=X[300:800])
    assert mean_auc(C[800:], model.predict_concepts_proba(X[800:])) > 0.99


def test_limits_hold_with_concept_labels() -> None:
    X, y, C, texts = planted()
    model = fit(X, y, texts, C, max_active_concepts=3, concepts_per_class=2)
    assert (np.count_nonzero(model.transform(X), axis=1) <= 3).all()
    assert np.count_nonzero(model.head_weights_) <= 2 * K


def test_a_taught_model_comes_back_from_its_folder(tmp_path: Path) -> None:
    X, y, C, texts = planted()
    for number, (texts_given, names) in enumerate([(texts, None), (None, [f"part {j}" for j in range(M)])]):
        model = SparseCBMClassifier(texts_given, names, random_state=0).fit(X, y, concept_labels=C)
        model.save(tmp_path / str(number))
        back = SparseCBMClassifier.load(tmp_path / str(number))
        for method in ("predict_concepts_proba", "concept_scores", "logits"):
            assert (getattr(back, method)(X) == getattr(model, method)(X)).all()
        assert (back.predict_from_concepts(C) == model.predict_from_concepts(C)).all()


@given(st.integers(0, 10_000), st.floats(0.0, 1.0))
@settings(max_examples=25, deadline=None)
def test_entries_without_a_label_say_nothing(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    A, C = rng.normal(size=(20, 3)), (rng.random((20, 3)) < 0.5).astype(float)
    gap = rng.random((20, 3)) < share
    made = worth(A, np.where(gap, np.nan, C))
    for j in range(3):
        for side in (0, 1):
            rows = ~gap[:, j] & (C[:, j] == side)
            expected = A[rows, j].mean() if rows.any() else A[:, j].mean()
            assert made[side, j] == pytest.approx(expected)


def test_two_humps_are_told_apart_without_labels() -> None:
    rng = np.random.default_rng(0)
    there = rng.random(4000) < 0.3
    z = (np.where(there, 2.0, -1.0) + 0.5 * rng.normal(size=4000))[:, None]
    slope, intercept = unlabelled_presence(z, 0)
    p = 1 / (1 + np.exp(-(z[:, 0] * slope + intercept)))
    assert ((p > 0.5) == there).mean() > 0.99


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros((799, M)), "expected one row for each of the 800 pictures of X"),
        (np.zeros(800), "concept_labels have shape"),
        (np.full((800, M), 2.0), "hold 2 for 'concept 0' in row 0: expected 0, 1, a probability, or NaN"),
        (np.full((800, M), "yes"), "hold what is no number"),
        (np.zeros((800, M + 1)), f"have {M + 1} columns: expected one for each of {M} concepts"),
    ],
)
def test_bad_labels_are_said_in_one_line(labels: np.ndarray, said: str) -> None:
    X, y, _, texts = planted()
    with pytest.raises(InputError, match=said) as caught:
        SparseCBMClassifier(texts).fit(X[:800], y[:800], concept_labels=labels)
    assert "\n" not in str(caught.value)


def test_concept_labels_make_activations_probabilities() -> None:
    X, y, C, texts = planted()
    model = fit(X, y, texts, C)
    np.testing.assert_allclose(model.transform(X), model.predict_concepts_proba(X), atol=1e-6)
    assert model.worth_.tolist() == [[0.0] * M, [1.0] * M]
    head = LogisticRegression(C=1e3, max_iter=1000).fit(C[:800], y[:800])
    assert (model.predict_from_concepts(C) == head.predict(C)).mean() > 0.95
    with pytest.raises(InputError, match="needs concept_labels of the pictures of X"):
        fit(X, y, texts, None, training="independent")
    with pytest.raises(InputError, match="gate='presence' needs concept_labels"):
        fit(X, y, texts, None, gate="presence")


def test_bad_corrections_are_said_in_one_line() -> None:
    X, y, C, texts = planted()
    model = fit(X, y, texts, C)
    for given_, said in (
        ({"C": C[:, :3]}, "expected a column for each of 8 concepts"),
        ({"C": C + 2}, "expected the presence of a concept, from 0 to 1"),
        ({"C": C[:5], "X": X[:4]}, "X has 4 rows for 5 rows of C"),
        ({"C": C[:5], "known": np.ones((5, 2), dtype=bool)}, "known has shape"),
    ):
        with pytest.raises(InputError, match=said):
            model.predict_from_concepts(**given_)


@pytest.mark.parametrize(("labelled", "how"), [(3, "joint"), (4, "independent")])
def test_labels_of_few_concepts_leave_the_classes_as_they_are(labelled: int, how: str) -> None:
    X, y, C, texts = planted()
    C[:, labelled:] = np.nan
    unsaid, said = (fit(X, y, texts, C, training=training) for training in (None, how))
    np.testing.assert_array_equal(unsaid.head_weights_, said.head_weights_)
    if how == "joint":
        bare = fit(X, y, texts, None)
        assert unsaid.score(X[800:], y[800:]) > bare.score(X[800:], y[800:]) - 0.02
        known, proba = C[800:, :labelled], [m.predict_concepts_proba(X[800:])[:, :labelled] for m in (unsaid, bare)]
        assert mean_auc(known, proba[0]) > 0.999 > mean_auc(known, proba[1])


def test_what_labels_cannot_teach_is_said() -> None:
    X, y, C, texts = planted()
    always = C.copy()
    always[:, 2] = 1.0
    with pytest.warns(ConceptWarning, match="'concept 2' is absent from 0 and present in 800"):
        fit(X, y, texts, always)
    with pytest.raises(InputError, match="without a text, a concept needs at least two of each"):
        SparseCBMClassifier(concept_names=[str(j) for j in range(M)]).fit(X, y, concept_labels=always)
    blind = C.copy()
    blind[:, 1] = np.random.default_rng(5).permutation(blind[:, 1])
    with pytest.warns(ConceptWarning, match="no better than by chance"):
        fit(X, y, texts, blind)


def test_a_model_that_decides_nothing_says_so() -> None:
    rng = np.random.default_rng(0)
    X = rng.random((400, 2)) - 0.5
    y = (X[:, 0] > 0) ^ (X[:, 1] > 0)
    with pytest.warns(ConceptWarning, match="the model decides nothing"):
        SparseCBMClassifier(loss_weight=10.0, random_state=0, max_iter=200).fit(X, y)


def test_all_of_few_concepts_stay_active_among_many_classes() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 6))
    y = np.arange(720) % 24
    X = rows[y] + 0.1 * rng.normal(size=(720, 6))
    model = SparseCBMClassifier(random_state=0, max_iter=200, verbose=False).fit(X[:480], y[:480])
    assert (model.transform(X[480:]) != 0).all()
    bare = model.score(X[480:], y[480:])
    assert bare > 0.8
    # Answers to six questions cannot tell so many classes apart; whoever gives them must not lose classes by it.
    labels = (X[:480] > 1).astype(float)
    with pytest.warns(ConceptWarning, match="training='joint' is taken"):
        model.fit(X[:480], y[:480], concept_labels=labels)
    assert model.score(X[480:], y[480:]) > bare - 0.05
    with pytest.warns(ConceptWarning, match="more concepts help"):
        model.set_params(training="independent").fit(X[:480], y[:480], concept_labels=labels)
    assert model.score(X[480:], y[480:]) < bare - 0.1


def test_of_equally_good_directions_the_nearest_to_the_text_is_taken() -> None:
    rng = np.random.default_rng(0)
    H, texts = rng.normal(size=(2000, 8)), np.eye(4, 8)
    texts[:, 7] = 0.05  # hardly wrong, but a part of the probe is a little better
    noise = rng.normal(size=(2000, 4))
    found = learn_concepts(unit_rows(texts), H, (H[:, :4] + noise > 1).astype(float), H, 0)
    np.testing.assert_array_equal(found.share, 0.0)
    elsewhere = learn_concepts(unit_rows(texts), H, (H[:, 3:7] + noise > 1).astype(float), H, 0)
    assert elsewhere.share[1:].min() > 0.5


def test_few_concepts_are_not_shut_by_the_price_on_each() -> None:
    rng = np.random.default_rng(0)
    C = rng.random((600, 3)) < 0.5
    y = C[:, 0].astype(int) + C[:, 1] + C[:, 2]
    X = C + 0.2 * rng.normal(size=C.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConceptWarning)
        model, free = (SparseCBMClassifier(loss=loss, random_state=0) for loss in ("gumbel", "none"))
        accuracy, bound = (m.fit(X[:400], y[:400]).score(X[400:], y[400:]) for m in (model, free))
    assert accuracy > bound - 0.04


def test_a_refitted_model_knows_what_its_own_activations_are_worth(tmp_path: Path) -> None:
    X, y, _, texts = planted()
    wide = fit(X, y, texts, None, max_active_concepts=6, concepts_per_class=3)
    narrow = wide.refit(X[:800], y[:800], max_active_concepts=1)
    np.testing.assert_array_equal(narrow.presence_, wide.presence_)
    proba, activations = narrow.predict_concepts_proba(X[:800]), narrow.transform(X[:800])
    np.testing.assert_allclose(narrow.worth_, worth(activations, proba), atol=1e-6)
    assert not np.allclose(narrow.worth_, wide.worth_)
    narrow.save(tmp_path / "narrow")
    np.testing.assert_array_equal(SparseCBMClassifier.load(tmp_path / "narrow").worth_, narrow.worth_)
