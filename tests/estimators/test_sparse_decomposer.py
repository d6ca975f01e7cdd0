"""Sparse decomposition: exact against scikit-learn and enumeration, certified, centred, suppressible, explained."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.linear_model import Lasso

from sparsecbm import SparseDecomposer
from sparsecbm._base.errors import InputError
from sparsecbm.estimators import nonnegative_lasso
from sparsecbm.estimators.nonnegative_lasso import NonnegativeLasso


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def objective(X: np.ndarray, C: np.ndarray, W: np.ndarray, alpha) -> np.ndarray:
    return 0.5 * ((X - W @ C) ** 2).sum(axis=1) + alpha * W.sum(axis=1)


def by_enumeration(x: np.ndarray, C: np.ndarray, alpha: float) -> float:
    """Least objective over all supports: the minimiser on the right one is the solution."""
    best = 0.5 * float(x @ x)
    for size in range(1, len(C) + 1):
        for support in map(list, combinations(range(len(C)), size)):
            gram = C[support] @ C[support].T
            w = np.linalg.lstsq(gram, C[support] @ x - alpha, rcond=None)[0]
            if (w >= 0).all():
                best = min(best, float(0.5 * ((x - w @ C[support]) ** 2).sum() + alpha * w.sum()))
    return best


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), m=st.integers(1, 6), d=st.integers(2, 5), alpha=st.floats(0.01, 0.9))
def test_equals_the_best_of_all_supports(seed: int, m: int, d: int, alpha: float) -> None:
    rng = np.random.default_rng(seed)
    C, X = unit(rng.normal(size=(m, d))), unit(rng.normal(size=(3, d)))
    codes = NonnegativeLasso(C).solve(X, alpha)
    W = codes.dense()
    assert (W >= 0).all()
    values = objective(X, C, W, alpha)
    best = np.array([by_enumeration(x, C, alpha) for x in X])
    np.testing.assert_allclose(values, best, atol=1e-9)
    np.testing.assert_allclose(codes.objective, values, atol=1e-9)
    assert (codes.gap >= values - best - 1e-12).all()  # the certificate never promises too much


@pytest.mark.parametrize(("m", "d", "alpha"), [(200, 24, 0.05), (200, 24, 0.3), (20, 60, 0.01), (300, 40, 0.002)])
def test_objective_of_scikit_learn(m: int, d: int, alpha: float) -> None:
    rng = np.random.default_rng(m + d)
    C = unit(rng.normal(size=(m, d)) + 0.5)  # correlated, as texts are
    X = unit(rng.normal(size=(12, d)) + 0.3)
    codes = NonnegativeLasso(C).solve(X, alpha)
    lasso = Lasso(alpha=alpha / d, positive=True, fit_intercept=False, tol=1e-10, max_iter=100_000)
    theirs = np.stack([lasso.fit(C.T, x).coef_.copy() for x in X])
    difference = objective(X, C, codes.dense(), alpha) - objective(X, C, theirs, alpha)
    assert difference.max() < 1e-9
    assert codes.gap.max() < 1e-9


def test_repeated_and_dependent_concepts_do_no_harm() -> None:
    rng = np.random.default_rng(3)
    base = unit(rng.normal(size=(10, 6)))
    C = np.concatenate([base, base, unit(base[:5] + base[5:]), base[:3]])
    X = unit(rng.normal(size=(20, 6)))
    codes = NonnegativeLasso(C).solve(X, 0.02)
    plain = NonnegativeLasso(np.concatenate([base, unit(base[:5] + base[5:])])).solve(X, 0.02)
    np.testing.assert_allclose(codes.objective, plain.objective, atol=1e-9)
    assert codes.gap.max() < 1e-9


def test_codes_depend_neither_on_the_batch_nor_on_the_gram_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    C, X = unit(rng.normal(size=(120, 16))), unit(rng.normal(size=(40, 16)))
    solver = NonnegativeLasso(C)
    whole = solver.solve(X, 0.1).dense()
    np.testing.assert_allclose(solver.solve(X[7:9], 0.1).dense(), whole[7:9], atol=1e-10)
    monkeypatch.setattr(nonnegative_lasso, "_ROWS", 7)
    monkeypatch.setattr(nonnegative_lasso, "MAX_SHARED_GRAM", 10)
    other = NonnegativeLasso(C).solve(X, 0.1)
    np.testing.assert_allclose(other.dense(), whole, atol=1e-10)
    assert NonnegativeLasso(C).solve(X[:0], 0.1).dense().shape == (0, 120)


def test_no_more_concepts_than_allowed_and_each_code_is_exact_for_its_penalty() -> None:
    rng = np.random.default_rng(5)
    C, X = unit(rng.normal(size=(150, 20))), unit(rng.normal(size=(30, 20)))
    solver = NonnegativeLasso(C)
    for k in (1, 4, 10):
        codes = solver.at_most(X, k)
        assert codes.counts.max() <= k
        assert np.median(codes.counts) == k
        again = solver.solve(X, codes.alpha)
        np.testing.assert_allclose(codes.dense(), again.dense(), atol=1e-8)


@pytest.fixture(scope="module")
def toy():
    rng = np.random.default_rng(6)
    concepts = unit(rng.normal(size=(40, 16)) + 1.0)  # a common direction: the cone of the texts
    centred = unit(concepts - concepts.mean(axis=0))
    truth = np.zeros((60, 40))
    for row in truth:
        row[rng.choice(40, 2, replace=False)] = rng.uniform(0.5, 1.0, 2)
    gap = unit(rng.normal(size=(1, 16)))[0]  # images lie in a cone of their own
    X = unit(unit(truth @ centred) + 2.0 * gap)
    return concepts, [f"word {j}" for j in range(40)], X, truth


def test_centring_finds_what_the_modality_gap_hides(toy) -> None:
    concepts, names, X, truth = toy
    model = SparseDecomposer(concepts, names, alpha=0.1).fit(X)
    codes = model.transform(X)
    assert codes.shape == truth.shape
    hits = np.mean([set(np.argsort(-c)[:2]) == set(np.flatnonzero(t)) for c, t in zip(codes, truth)])
    plain = SparseDecomposer(concepts, names, alpha=0.1, center=False).fit(X).transform(X)
    misses = np.mean([set(np.argsort(-c)[:2]) == set(np.flatnonzero(t)) for c, t in zip(plain, truth)])
    assert hits > 0.6
    assert hits > misses + 0.3
    found = model.decompose(X)
    again = (X * model.reconstruct(found.codes)).sum(axis=1) / np.linalg.norm(X, axis=1)
    np.testing.assert_allclose(found.cosine, again, atol=1e-6)
    assert found.cosine.min() > 0.85


def test_suppressed_concepts_are_never_used(toy) -> None:
    concepts, names, X, _ = toy
    free = SparseDecomposer(concepts, names, alpha=0.1).fit(X)
    most = names[int(np.argmax((free.transform(X) > 0).sum(axis=0)))]
    held = SparseDecomposer(concepts, names, alpha=0.1, suppress=[most]).fit(X)
    assert (held.transform(X)[:, names.index(most)] == 0).all()
    np.testing.assert_array_equal(held.dictionary_, free.dictionary_)  # the others stay where they were
    assert (held.decompose(X).objective >= free.decompose(X).objective - 1e-12).all()


def test_ledgers_add_up_to_reconstruction_and_class_scores(toy) -> None:
    concepts, names, X, _ = toy
    model = SparseDecomposer(concepts, names, max_concepts=3).fit(X)
    for ledger, cosine in zip(model.explain(X[:5]), model.decompose(X[:5]).cosine):
        assert ledger.score == pytest.approx(cosine, abs=1e-9)
        assert sum(name in names for name, *_ in ledger.entries) <= 3
    classes = unit(np.random.default_rng(0).normal(size=(4, 16)))
    ledgers = model.explain(X[:5], classes, list("abcd"), logit_scale=10.0, sources=list("vwxyz"))
    np.testing.assert_allclose(ledgers.scores, 10.0 * model.class_scores(X[:5], classes), atol=1e-9)
    assert ledgers[0].source == "v"
    assert ledgers[0].score == pytest.approx(ledgers.scores[0].max(), abs=1e-9)


def test_conventions_and_bad_input(toy) -> None:
    concepts, names, X, _ = toy
    model = SparseDecomposer(concepts, names, alpha=0.2, image_mean=X.mean(axis=0))
    codes = clone(model).fit(X[:1]).transform(X)
    np.testing.assert_allclose(codes, SparseDecomposer(concepts, names, alpha=0.2).fit(X).transform(X), atol=1e-6)

    def fails(match: str, **options) -> None:
        with pytest.raises(InputError, match=match) as caught:
            SparseDecomposer(**({"concept_embeddings": concepts, "concept_names": names} | options)).fit(X)
        assert "\n" not in str(caught.value)

    fails("concept_embeddings=None", concept_embeddings=None)
    fails("alpha=0: expected a number between 0 and 1", alpha=0)
    fails("max_concepts=0", max_concepts=0)
    fails("tolerance=0", tolerance=0)
    fails("image_mean has shape .*expected 16 finite numbers", image_mean=[1.0])
    fails(r"unknown concept to suppress 'wrd 3'.*did you mean 'word \d+'", suppress=["wrd 3"])
    fails("suppress names all 40 concepts", suppress=names)
    with pytest.raises(InputError, match="class_embeddings have 3 dimensions"):
        SparseDecomposer(concepts).fit(X).class_scores(X, np.eye(3))
    with pytest.raises(InputError, match=r"codes have shape \(2, 3\)"):
        SparseDecomposer(concepts).fit(X).reconstruct(np.zeros((2, 3)))


def test_real_embeddings_within_the_objective_of_scikit_learn(data_dir: Path) -> None:
    folder = data_dir / "clip_vitb32"
    with np.load(folder / "concepts_objects.npz") as stored:
        concepts, names = stored["embeddings"].astype(np.float32), [str(name) for name in stored["names"]]
    with np.load(folder / "imagenet.npz") as stored:
        X = stored["train1_images"].astype(np.float32)
    model = SparseDecomposer(concepts, names).fit(X)
    found = model.decompose(X)
    assert found.gap.max() < 1e-8
    rows = unit(unit(X[:3].astype(np.float64)) - model.image_mean_)
    for i, x in enumerate(rows):
        lasso = Lasso(alpha=0.125 / 512, positive=True, fit_intercept=False, tol=1e-8, max_iter=10_000)
        theirs = lasso.fit(model.dictionary_.T, x).coef_
        ours = objective(x[None], model.dictionary_, found.codes[i].toarray(), 0.125)
        assert ours[0] <= objective(x[None], model.dictionary_, theirs[None], 0.125)[0] + 1e-9


@pytest.mark.parametrize("m", [1, 2, 3])
def test_few_equal_and_opposite_concepts(m: int) -> None:
    rng = np.random.default_rng(m)
    for C in (np.ones((m, 2)), np.sign(rng.normal(size=(m, 2)))):
        for X in (np.ones((3, 2)), -np.ones((3, 2)), np.sign(rng.normal(size=(3, 2)))):
            for options in ({"center": False}, {"center": True}, {"max_concepts": 1}, {"max_concepts": 9}):
                found = SparseDecomposer(C, verbose=False, **options).fit(X).decompose(X)
                assert np.isfinite(found.cosine).all()
                assert found.gap.max() < 1e-6


def test_more_equal_concepts_than_may_be_named() -> None:
    concepts = np.repeat([[0.0, -1.0]], 4, axis=0)
    codes = SparseDecomposer(concepts, max_concepts=1, center=False, verbose=False).fit_transform(
        [[0.0, -1.0], [1.0, 1.0], [-1.0, 0.0]]
    )
    assert ((codes != 0).sum(axis=1) <= 1).all()
    assert not codes[1:].any()


# -- vocabularies that stay on disk ------------------------------------------------------------------------------------


def test_a_vocabulary_on_disk_has_the_solution_of_the_full_lasso(tmp_path: Path, monkeypatch) -> None:
    """20,000 phrases in float16, read in blocks, against the solver that looks at all of them at every turn."""
    import sparsecbm.estimators.large_lasso as large

    rng = np.random.default_rng(0)
    spread = np.diag(np.linspace(2.0, 0.1, 48))
    phrases = (rng.normal(size=(20_000, 48)) @ spread + 1.0).astype(np.float16)
    np.save(tmp_path / "phrases.npy", phrases)
    pictures = rng.normal(size=(40, 48)) @ spread - 1.0
    for options in ({"alpha": 0.2}, {"max_concepts": 5}, {"alpha": 0.2, "suppress": ["concept 7"]}):
        whole = SparseDecomposer(phrases, verbose=False, **options).fit(pictures).decompose(pictures)
        with monkeypatch.context() as patched:
            patched.setattr(large, "LARGE", 1000)
            patched.setattr(large, "_KEPT", 10)
            patched.setattr(large, "_LISTED", 100)
            mapped = np.load(tmp_path / "phrases.npy", mmap_mode="r")
            model = SparseDecomposer(mapped, verbose=False, **options).fit(pictures)
            found = model.decompose(pictures)
            assert model.dictionary_ is None
            assert model._solver.passes > 1
            reached = model.reconstruct(found.codes)
            why = model.explain(pictures[:2])[0]
        assert found.gap.max() < 1e-9
        if "max_concepts" in options:  # its penalties are those of a search, on the candidates
            assert found.counts.max() <= 5
            exact = large.NonnegativeLasso(model._vocabulary.take(slice(None))).solve(_centred(pictures), found.alpha)
            assert np.allclose(exact.objective, found.objective, atol=1e-9)
        else:
            assert np.allclose(found.objective, whole.objective, atol=1e-6)
            assert np.abs(found.codes - whole.codes).max() < 1e-4
        assert np.allclose(found.cosine, (reached * pictures / np.linalg.norm(pictures, axis=1)[:, None]).sum(1))
        assert abs(why.score - found.cosine[0]) < 1e-9


def _centred(pictures: np.ndarray) -> np.ndarray:
    rows = pictures / np.linalg.norm(pictures, axis=1, keepdims=True)
    rows = rows - rows.mean(axis=0)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
