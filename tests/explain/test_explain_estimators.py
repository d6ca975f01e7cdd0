"""Ledgers of every estimator add up to its decision function, over a thousand images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sparsecbm.estimators as room
from sparsecbm.explain.interventions import Interventions, counterfactual

D, M, K, N = 20, 30, 5, 1000
LOSSES = ("gumbel", "contrastive", "l1", "similarity", "none")
SIMILARITIES = (
    "whitened",
    "sparse",
    "contrast",
    "separating",
    "cosine",
    "cubed",
    "max",
    "column_normalised",
)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(K, D))
    y = np.arange(N) % K
    X = classes[y] + 0.8 * rng.normal(size=(N, D))
    concepts = rng.normal(size=(M, D))

    def unit(rows):
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    return unit(X), y, unit(concepts), unit(classes)


def fitted(kind: str, problem):
    """The estimator, its ledgers of all images, and its scores (one column a class)."""
    X, y, concepts, classes = problem
    name, _, option = kind.partition(":")
    if name == "SparseCBMClassifier":
        loss, _, variant = option.partition("/")
        model = room.SparseCBMClassifier(
            concepts,
            loss=loss,
            variant=variant or "default",
            max_active_concepts=None if variant else 6,
            concepts_per_class=8 if loss == "gumbel" and not variant else None,
            max_iter=25,
            random_state=0,
        ).fit(X[:200], y[:200])
        return model.explain(X), model.decision_function(X)
    if name == "ConceptMatrixSearch":
        model = room.ConceptMatrixSearch(concepts, similarity=option).fit(classes, list("abcde"))
        return model.explain(X), model.decision_function(X)
    if name == "DescriptionClassifier":
        rng = np.random.default_rng(1)
        texts = [row + 0.2 * rng.normal(size=(p, D)) for row, p in zip(classes, (1, 3, 2, 4, 1))]
        model = room.DescriptionClassifier().fit(texts, list("abcde"))
        return model.explain(X), model.decision_function(X)
    assert name == "SparseDecomposer"
    model = room.SparseDecomposer(concepts).fit(X)
    return model.explain(X, classes, list("abcde"), logit_scale=10.0), 10.0 * model.class_scores(X, classes)


KINDS = [
    *(f"SparseCBMClassifier:{loss}" for loss in LOSSES),
    "SparseCBMClassifier:gumbel/published",
    *(f"ConceptMatrixSearch:{similarity}" for similarity in SIMILARITIES),
    "DescriptionClassifier:",
    "SparseDecomposer:",
]


def test_no_estimator_is_left_out() -> None:
    with_ledgers = {name for name in room.__all__ if hasattr(getattr(room, name), "explain")}
    assert with_ledgers == {kind.partition(":")[0] for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
def test_ledgers_add_up_to_the_decision_function(kind, problem) -> None:
    ledgers, scores = fitted(kind, problem)
    assert len(ledgers) == N
    assert scores.shape == (N, K)
    for i, ledger in enumerate(ledgers):
        assert ledger.target == ledgers.classes[int(scores[i].argmax())]
        assert abs(ledger.score - scores[i].max()) <= 1e-6
        total = ledger.bias + sum(entry.contribution for entry in ledger.entries)
        assert abs(total - scores[i].max()) <= 1e-6
    rng = np.random.default_rng(0)
    for i, a, b in zip(rng.integers(N, size=50), rng.integers(K, size=50), rng.integers(K, size=50)):
        one, pair = ledgers.ledger(int(i), int(a)), ledgers.ledger(int(i), int(a), against=int(b))
        assert abs(one.score - scores[i, a]) <= 1e-6
        assert abs(pair.score - (scores[i, a] - scores[i, b])) <= 1e-6
    assert abs(ledgers.mean(2).score - scores[:, 2].mean()) <= 1e-6
    part = ledgers.select([3, 500, 3])
    assert [ledger.score for ledger in part] == [ledgers[3].score, ledgers[500].score, ledgers[3].score]
    assert len(ledgers.top(3)) <= 3
    # What is edited stays exact, too, whatever the ledgers leave unnamed.
    edits = Interventions(part)
    edits.zero(None, 0)
    difference = np.outer(part.activations[:, 0], ledgers.weights[:, 0])
    np.testing.assert_allclose(edits.scores, part.scores - difference, atol=1e-9)
    assert abs(edits.ledger(1).score - edits.scores[1].max()) <= 1e-6
    found = counterfactual(ledgers, 7)
    assert found is None or found.after.target != ledgers[7].target


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.floats(0.01, 100))
def test_ledgers_add_up_whatever_the_numbers(seed, k, scale) -> None:
    rng = np.random.default_rng(seed)
    y = np.arange(40) % 4
    X = rng.normal(size=(40, 6)) * scale + 3 * np.eye(6)[y] * scale
    model = room.SparseCBMClassifier(max_active_concepts=min(k, 6), max_iter=3, random_state=0).fit(X, y)
    scores = model.decision_function(X)
    for ledger, row in zip(model.explain(X), scores):
        assert abs(ledger.score - row.max()) <= 1e-6 * max(1.0, np.abs(row).max())
        assert ledger.n_active <= k


def test_ledgers_draw_several(problem) -> None:
    ledgers, _ = fitted("DescriptionClassifier:", problem)
    figure = ledgers.plot(k=3, max_images=3)
    assert len([ax for ax in figure.axes if ax.patches]) == 3
    size = np.abs(ledgers.activations * ledgers.weights[ledgers.targets]).mean(axis=0)
    assert [entry.concept for entry in ledgers.top(4)] == [ledgers.concepts[j] for j in np.argsort(-size)[:4]]
