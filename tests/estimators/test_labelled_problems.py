"""Random small problems with concept labels, most of them NaN, in every way to train: every promise, in each."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from sparsecbm import SparseCBMClassifier
from sparsecbm._base.errors import InputError

PROBLEMS = 6


def check(seed: int, folder: Path) -> bool:
    """One problem; whether it could be fitted at all."""
    rng = np.random.default_rng(seed)
    n, d, m, k = int(rng.integers(12, 60)), int(rng.integers(2, 9)), int(rng.integers(1, 7)), int(rng.integers(2, 5))
    X, texts = rng.normal(size=(n, d)), rng.normal(size=(m, d))
    truth = (X @ texts.T + 0.5 * rng.normal(size=(n, m)) > 0).astype(float)
    if rng.random() < 0.3:
        truth = np.where(truth == 1, 0.9, 0.1)
    C = np.where(rng.random((n, m)) < rng.random(), truth, np.nan)
    silent = rng.random(m) < 0.3
    C[:, silent] = np.nan
    many = rng.random() < 0.3
    y = (rng.random((n, k)) < 0.5).astype(int) if many else np.arange(n) % k
    training = rng.choice(["joint", "sequential", "independent"])
    limit, budget = (None if rng.random() < 0.5 else int(rng.integers(1, 4)) for _ in range(2))
    model = SparseCBMClassifier(
        texts, training=str(training), max_active_concepts=limit, concepts_per_class=budget, max_iter=4,
        early_stopping=bool(rng.random() < 0.2), class_weight="balanced" if not many and rng.random() < 0.3 else None,
        random_state=0, verbose=False,
    )  # fmt: skip
    weight = None if rng.random() < 0.5 else rng.integers(0, 3, size=n).astype(float)
    try:
        model.fit(X, y, concept_labels=C, sample_weight=weight)
    except InputError:
        return False
    A, logits, proba = model.transform(X), model.logits(X), model.predict_proba(X)
    assert limit is None or (np.count_nonzero(A, axis=1) <= limit).all()
    assert budget is None or np.count_nonzero(model.head_weights_) <= budget * k
    assert np.isfinite(proba).all()
    assert ((proba >= 0) & (proba <= 1)).all()
    if not many:
        np.testing.assert_allclose(proba.sum(axis=1), 1.0)
    ledgers = model.explain(X)
    for i in range(0, n, 7):
        target = int(ledgers.targets[i])
        np.testing.assert_allclose(ledgers[i].score, logits[i, target], atol=1e-5)
    presence = model.predict_concepts_proba(X)
    assert ((presence >= 0) & (presence <= 1)).all()
    # What nobody labelled stays its text, and is said of nobody's picture.
    if model.concept_directions_ is not None:
        unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
        np.testing.assert_allclose(model.concept_directions_[silent], unit[silent], atol=1e-5)
    if model.label_counts_ is not None:
        assert not model.label_counts_[:, silent].any()
        assert ledgers.presence is not None
        assert np.isnan(ledgers.presence[:, silent]).all()
    # What is not known counts as nothing, whatever stands there.
    known = rng.random((n, m)) < 0.5
    told = np.where(known, np.nan_to_num(truth, nan=0.0), 7.0)
    want = model.predict_from_concepts(np.where(known, told, np.nan), X=X)
    np.testing.assert_array_equal(model.predict_from_concepts(told, known, X), want)
    np.testing.assert_array_equal(model.predict_from_concepts(np.full((n, m), np.nan), X=X), model.predict(X))
    model.save(folder / str(seed))
    back = SparseCBMClassifier.load(folder / str(seed))
    np.testing.assert_array_equal(back.logits(X), logits)
    np.testing.assert_array_equal(back.predict(X), model.predict(X))
    np.testing.assert_array_equal(back.predict_concepts_proba(X), presence)
    return True


def test_every_promise_with_labels(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = sum(check(seed, tmp_path) for seed in range(PROBLEMS))
    assert fitted > 0.7 * PROBLEMS
