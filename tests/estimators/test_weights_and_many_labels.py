"""Weights of pictures and classes, and classes that do not exclude each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from sparsecbm import SparseCBMClassifier
from sparsecbm._base.errors import InputError
from sparsecbm.evaluation import multilabel_metrics

N, D, M, K = 500, 16, 8, 4


@pytest.fixture(scope="module")
def data() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    C = (rng.random((N, M)) < 0.4).astype(float)
    rows = rng.normal(size=(M, D))
    X = (C - 0.4) @ rows + 0.7 * rng.normal(size=(N, D))
    return X, rows, C, (C @ rng.normal(size=(M, K)) > 0.2).astype(int)


def model(rows: np.ndarray, **given: object) -> SparseCBMClassifier:
    return SparseCBMClassifier(rows, random_state=0, max_iter=60, verbose=False, **given)


@pytest.mark.parametrize("given", [{"training": "sequential"}, {"concepts_per_class": 2, "max_active_concepts": 4}])
def test_a_picture_of_weight_zero_is_not_there(data, given) -> None:
    X, rows, C, _ = data
    y, weight = C[:, :3].argmax(1), np.arange(N) % 3.0
    whole = model(rows, **given).fit(X, y, sample_weight=weight)
    some = model(rows, **given).fit(X[weight > 0], y[weight > 0], sample_weight=weight[weight > 0])
    np.testing.assert_array_equal(whole.logits(X), some.logits(X))


def test_weights_move_the_head_as_they_should(data) -> None:
    X, rows, C, _ = data
    y = C[:, :2].argmax(1)
    plain = model(rows, training="sequential").fit(X, y)
    heavy = model(rows, training="sequential").fit(X, y, sample_weight=np.where(y == 1, 3.0, 1.0))
    by_class = model(rows, training="sequential", class_weight={1: 3.0}).fit(X, y)
    np.testing.assert_allclose(heavy.logits(X), by_class.logits(X), atol=1e-6)
    # scikit-learn on the same activations is the oracle.
    oracle = LogisticRegression(C=1e3, class_weight={1: 3.0}, max_iter=1000).fit(plain.transform(X), y)
    ours = (heavy.predict(X) == 1).mean()
    assert ours == pytest.approx((oracle.predict(plain.transform(X)) == 1).mean(), abs=0.03)
    assert heavy.predict_proba(X)[:, 1].mean() > plain.predict_proba(X)[:, 1].mean() + 0.02
    joint, even = (model(rows, class_weight=w).fit(X, y) for w in (None, "balanced"))
    assert even.predict_proba(X)[:, 1].mean() > joint.predict_proba(X)[:, 1].mean()
    for wrong in ({"class_weight": {7: 1.0}}, {"class_weight": "even"}):
        with pytest.raises(InputError, match="class_weight"):
            model(rows, **wrong).fit(X, y)


@pytest.mark.parametrize("training", ["joint", "sequential", "independent"])
def test_classes_that_do_not_exclude_each_other(data, training: str, tmp_path: Path) -> None:
    X, rows, C, Y = data
    labels = {} if training != "independent" else {"concept_labels": C[:400]}
    made = model(rows, training=training, concepts_per_class=3, loss="none").fit(X[:400], Y[:400], **labels)
    assert np.count_nonzero(made.head_weights_) <= 3 * K
    proba, said = made.predict_proba(X), made.predict(X)
    np.testing.assert_allclose(proba, 1 / (1 + np.exp(-made.logits(X))))
    np.testing.assert_array_equal(said, proba > 0.5)
    found = multilabel_metrics(Y[400:], proba[400:])
    base = np.column_stack([np.full(100, share) for share in Y[:400].mean(axis=0)])
    assert found["map"] > multilabel_metrics(Y[400:], base)["map"] + 0.15
    assert found["exact"] == pytest.approx(made.score(X[400:], Y[400:]))
    ledgers = made.explain(X[:3])
    np.testing.assert_allclose(ledgers.probabilities, proba[:3], atol=1e-6)
    np.testing.assert_allclose([ledgers.ledger(1, k).score for k in range(K)], made.logits(X)[1], atol=1e-5)
    made.save(tmp_path / "m")
    np.testing.assert_array_equal(SparseCBMClassifier.load(tmp_path / "m").predict(X), said)
    if training == "independent":
        assert (made.predict_from_concepts(C[400:]) == Y[400:]).mean() > (said[400:] == Y[400:]).mean()


def test_what_needs_one_class_a_picture_says_so(data) -> None:
    X, rows, _, Y = data
    for given, said in (
        ({"loss": "contrastive"}, "needs one class a picture"),
        ({"class_weight": "balanced"}, "needs one class a picture"),
        ({"variant": "published"}, "the published models have one class"),
    ):
        with pytest.raises(InputError, match=said):
            model(rows, **given).fit(X, Y)
