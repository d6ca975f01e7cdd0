"""Zero-shot, descriptions and the linear probe: one interface with the search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsecbm._base.errors import InputError
from sparsecbm.estimators import ConceptMatrixSearch, DescriptionClassifier, LinearProbe, ZeroShotClassifier


@parametrize_with_checks([LinearProbe()])
def test_sklearn_conventions(estimator, check) -> None:
    check(estimator)


@pytest.fixture
def texts(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {name: rng.normal(size=(n, 16)) for name, n in (("finch", 3), ("jay", 1), ("lark", 5))}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_zero_shot_is_the_cosine_with_the_mean_prompt(texts: dict, rng: np.random.Generator) -> None:
    X = rng.normal(size=(10, 16))
    rows = unit(np.stack([unit(block).mean(axis=0) for block in texts.values()]))
    model = ZeroShotClassifier(logit_scale=50.0).fit(texts)
    np.testing.assert_allclose(model.logits(X), 50.0 * unit(X) @ rows.T)
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1.0)
    with pytest.raises(InputError, match="logit_scale=0"):
        ZeroShotClassifier(logit_scale=0).fit(texts)


def test_descriptions_are_a_mean_over_each_classs_own(texts: dict, rng: np.random.Generator) -> None:
    X = unit(rng.normal(size=(10, 16)))
    expected = 100.0 * np.stack([(X @ unit(block).T).mean(axis=1) for block in texts.values()], axis=1)
    model = DescriptionClassifier().fit(texts)
    np.testing.assert_allclose(model.logits(X), expected)
    for i, ledger in enumerate(model.explain(X)):
        assert ledger.score == pytest.approx(expected[i].max(), abs=1e-9)
        assert ledger.share == 1.0
        assert ledger.n_active == 9
    order = ["lark", "finch", "jay"]  # the same classes named in another order: 11% on Pets was such a mismatch
    other = DescriptionClassifier().fit(texts, order)
    np.testing.assert_array_equal(other.classes_, order)
    np.testing.assert_array_equal(other.predict(X), model.predict(X))
    with pytest.raises(InputError, match="2 texts for the 3 descriptions of 'finch'"):
        DescriptionClassifier().fit(texts, description_names={"finch": ["a", "b"]})
    with pytest.raises(InputError, match="'wren'"):
        DescriptionClassifier().fit(texts, ["finch", "jay", "lark", "wren"])


def test_probe_is_scikit_learns_logistic_regression(rng: np.random.Generator) -> None:
    y = np.arange(90) % 3
    X = 0.3 * rng.normal(size=(90, 8)) + 0.2 * np.eye(8)[y]
    Z = (X - X.mean(axis=0)) * np.sqrt(8)
    known = LogisticRegression(C=0.3, tol=1e-9, max_iter=5000).fit(Z, y)
    probe = LinearProbe(C=0.3, tol=1e-9).fit(X, y)
    np.testing.assert_allclose(probe.predict_proba(X), known.predict_proba(Z), atol=1e-4)
    with pytest.raises(InputError, match="C=0"):
        LinearProbe(C=0).fit(X, y)


def test_one_interface_for_one_table(texts: dict, rng: np.random.Generator, tmp_path: Path) -> None:
    X = rng.normal(size=(30, 16))
    y = ZeroShotClassifier().fit(texts).predict(X)
    models = [
        ZeroShotClassifier().fit(texts),
        DescriptionClassifier().fit(texts),
        ConceptMatrixSearch(rng.normal(size=(40, 16))).fit(texts),
        LinearProbe().fit(X, y),
    ]
    for model in models:
        name = type(model).__name__
        assert model.decision_function(X).shape == (30, 3), name
        assert 0.0 <= model.score(X, y) <= 1.0, name
        assert model.classes_[model.predict_proba(X).argmax(axis=1)].tolist() == model.predict(X).tolist(), name
        model.save(tmp_path / name)
        again = type(model).load(tmp_path / name)
        np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
        assert again.predict(X).tolist() == model.predict(X).tolist()
