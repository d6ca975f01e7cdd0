"""Concept Matrix Search: rules by their definitions, ledgers that add up, few shots, storage, published defects."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from sparsecbm._base.errors import DataWarning, InputError, StoredFileError
from sparsecbm._base.parts import SEARCH_RULES as RULES
from sparsecbm.estimators import ConceptMatrixSearch, DescriptionClassifier, ZeroShotClassifier
from sparsecbm.estimators.matrix_search.pursuit import Pursuit

K, M, D = 7, 60, 24


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def problem() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shared = rng.normal(size=D)
    concepts = unit(shared + rng.normal(size=(M, D)))
    classes = unit(shared + rng.normal(size=(K, D)))
    gap = rng.normal(size=D)  # images lie in a cone of their own; CLIP's gap favours no class
    gap -= np.linalg.pinv(classes) @ (classes @ gap)
    y = np.arange(140) % K
    nuisance = rng.normal(size=(140, 3)) @ rng.normal(size=(3, D))  # what varies most is not what tells classes apart
    X = unit(classes[y] + gap + 0.15 * rng.normal(size=(140, D)) + 0.3 * nuisance)
    return {"concepts": concepts, "classes": classes, "X": X, "y": y}


def search(problem: dict, similarity: str = "whitened", **options) -> ConceptMatrixSearch:
    return ConceptMatrixSearch(problem["concepts"], similarity=similarity, **options).fit(problem["classes"])


# -- rules -------------------------------------------------------------------------------------------------------------


def test_published_rules_by_their_definitions(problem: dict) -> None:
    V, T = problem["X"] @ problem["concepts"].T, problem["classes"] @ problem["concepts"].T
    columns = V / np.linalg.norm(V, axis=0), T / np.linalg.norm(T, axis=0)
    expected = {
        "cosine": unit(V) @ unit(T).T,
        "cubed": unit(V**3) @ unit(T**3).T,
        "max": np.array([[T[c, row.argmax()] for c in range(K)] for row in V]),
        "column_normalised": unit(columns[0]) @ unit(columns[1]).T,
    }
    for name, scores in expected.items():
        np.testing.assert_allclose(search(problem, name, logit_scale=1.0).logits(problem["X"]), scores, atol=1e-6)


def test_whitened_is_the_cosine_in_the_inverse_gram_metric(problem: dict) -> None:
    C, X, classes = problem["concepts"], problem["X"], problem["classes"]
    ridge = 0.05 * np.trace(C @ C.T) / D
    metric = np.linalg.inv(C @ C.T + ridge * np.eye(M))  # in concept space, M x M
    V, T = X @ C.T, classes @ C.T
    scores = V @ metric @ (T / np.sqrt(np.einsum("ki,ij,kj->k", T, metric, T))[:, None]).T
    expected = scores - scores.mean(axis=1, keepdims=True)
    made = search(problem, ridge=0.05, logit_scale=1.0).logits(X)
    np.testing.assert_allclose(made, expected, atol=1e-6)


def test_whitened_without_ridge_is_zero_shot(problem: dict) -> None:
    zero = ZeroShotClassifier().fit(problem["classes"])
    made = search(problem, ridge=1e-10)
    scores = zero.logits(problem["X"])
    np.testing.assert_allclose(made.logits(problem["X"]), scores - scores.mean(1, keepdims=True), atol=1e-4)


def test_only_the_transductive_rule_looks_at_the_batch(problem: dict) -> None:
    X = problem["X"]
    for name in RULES:
        model = search(problem, name, max_active_concepts=4)
        alone = np.concatenate([model.logits(X[i : i + 1]) for i in range(12)])
        same = np.allclose(alone, model.logits(X)[:12], atol=1e-9)
        assert same != model.transductive_, name
    assert [name for name, rule in RULES.items() if rule.transductive] == ["column_normalised"]


def test_scores_of_one_rule_do_not_overwrite_anothers(problem: dict) -> None:
    """The authors' script keeps one variable `sim` for all rules, so that later rules print earlier scores."""
    models = {name: search(problem, name) for name in RULES}
    before = {name: model.logits(problem["X"]) for name, model in models.items()}
    for name in reversed(list(RULES)):
        np.testing.assert_array_equal(models[name].logits(problem["X"]), before[name])
    for a, b in itertools.combinations(before, 2):
        assert not np.allclose(before[a], before[b]), (a, b)


def test_class_sizes_and_order_of_test_images_change_nothing(problem: dict) -> None:
    """Published code cuts the test set into equal runs of classes; accuracy must be per image, whatever the sizes."""
    X, y = problem["X"], problem["y"]
    keep = np.flatnonzero((y != 2) | (np.arange(len(y)) < 15))  # class 2 nearly absent
    order = np.random.default_rng(0).permutation(keep)
    model = search(problem)
    by_image = {i: model.predict(X[i : i + 1])[0] for i in order}
    np.testing.assert_array_equal(model.predict(X[order]), [by_image[i] for i in order])
    assert model.score(X[order], y[order]) == pytest.approx(np.mean([by_image[i] == y[i] for i in order]))


def test_class_rows_keep_their_names_in_any_order(problem: dict) -> None:
    names = [f"class {c}" for c in range(K)]
    forward = ConceptMatrixSearch(problem["concepts"]).fit(problem["classes"], names)
    backward = ConceptMatrixSearch(problem["concepts"]).fit(
        {name: problem["classes"][names.index(name)] for name in reversed(names)}
    )
    np.testing.assert_array_equal(forward.predict(problem["X"]), backward.predict(problem["X"]))


# -- sparse codes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nonnegative", [False, True])
def test_pursuit_is_orthogonal_least_squares(nonnegative: bool) -> None:
    rng = np.random.default_rng(5)
    atoms, target = rng.normal(size=(15, 8)), rng.normal(size=8)
    codes = Pursuit(atoms).codes(target[None], 3, nonnegative=nonnegative)
    chosen: list[int] = []
    for _ in range(3):  # the definition, one least-squares fit a candidate
        best, error = -1, np.inf
        fitted = atoms[chosen].T @ np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0] if chosen else 0 * target
        for j in set(range(15)) - set(chosen):
            if nonnegative and atoms[j] @ (target - fitted) <= 0:
                continue
            columns = atoms[[*chosen, j]].T
            left = np.linalg.norm(target - columns @ np.linalg.lstsq(columns, target, rcond=None)[0])
            if left < error:
                best, error = j, left
        chosen.append(best)
    values = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
    if nonnegative and values.min() < 0:
        chosen = [j for j, v in zip(chosen, values) if v > 0]
        values = np.linalg.lstsq(atoms[chosen].T, target, rcond=None)[0]
        assert values.min() > 0  # as the code under test assumes of these numbers
    expected = np.zeros(15)
    expected[chosen] = values
    np.testing.assert_allclose(codes.dense()[0], expected, atol=1e-5)


@pytest.mark.parametrize("similarity", ["sparse", "contrast"])
@pytest.mark.parametrize("k", [1, 5])
def test_nothing_but_k_concepts_decides(problem: dict, similarity: str, k: int) -> None:
    model = search(problem, similarity, max_active_concepts=k)
    activations = model.transform(problem["X"])
    assert (activations != 0).sum(axis=1).max() <= k
    assert activations.min() >= 0
    by_hand = activations @ model.class_concepts_.T + model.intercept_
    np.testing.assert_allclose(model.logits(problem["X"]), by_hand, atol=1e-9)
    signed = search(problem, similarity, max_active_concepts=k, nonnegative=False).transform(problem["X"])
    assert signed.min() < 0


def test_more_concepts_come_nearer_to_the_dense_rule(problem: dict) -> None:
    dense = search(problem).logits(problem["X"])
    errors = [
        np.abs(
            search(problem, "contrast", max_active_concepts=k, nonnegative=False).logits(problem["X"]) - dense
        ).mean()
        for k in (2, 6, D)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.01 * np.abs(dense).mean()


def test_equal_concepts_and_fewer_than_k_are_no_trouble(problem: dict) -> None:
    twice = np.concatenate([problem["concepts"][:3], problem["concepts"][:3]])
    model = ConceptMatrixSearch(twice, similarity="sparse").fit(problem["classes"])
    assert np.isfinite(model.logits(problem["X"])).all()
    assert (model.transform(problem["X"]) != 0).sum(axis=1).max() <= 3


def test_class_rows_of_few_concepts(problem: dict) -> None:
    model = search(problem, max_class_concepts=4)
    assert (model.class_codes_ != 0).sum(axis=1).max() <= 4
    assert search(problem).class_codes_ is None


# -- explanations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("similarity", sorted(RULES))
def test_ledgers_add_up_for_a_class_and_for_the_margin(problem: dict, similarity: str) -> None:
    model = search(problem, similarity, max_active_concepts=6, max_explained_concepts=5)
    X = problem["X"][:20]
    ledgers, scores = model.explain(X), model.logits(X)
    whole = search(problem, similarity, max_active_concepts=6, max_explained_concepts=6).explain(X)
    for i, row in enumerate(scores):
        runner_up, winner = np.argsort(row)[-2:]
        ledger, pair = ledgers[i], ledgers.ledger(i, int(winner), against=int(runner_up))
        assert ledger.target == str(model.predict(X[i : i + 1])[0] if not model.transductive_ else winner)
        assert ledger.score == pytest.approx(row[winner], abs=1e-5)
        assert pair.score == pytest.approx(row[winner] - row[runner_up], abs=1e-5)
        named = [entry for entry in ledger.entries if entry.concept != "everything else"]
        assert len(named) <= 5
        assert 0.0 <= ledger.share <= 1.0
        if RULES[similarity].sparse:
            assert whole[i].share == 1.0
            assert whole[i].everything_else == 0.0
        total = sum(entry.contribution for entry in named) + ledger.everything_else + ledger.bias
        assert total == pytest.approx(row[winner], abs=1e-5)
    assert ledgers.mean(0).score == pytest.approx(scores[:, 0].mean(), abs=1e-5)
    assert ledgers.select([3, 4])[0].score == pytest.approx(ledgers[3].score)
    assert "everything else" in ledgers[0].to_text(k=10) or RULES[similarity].sparse


def test_probabilities_of_ledgers_are_the_models(problem: dict) -> None:
    model = search(problem)
    best = model.predict_proba(problem["X"][:3]).max(axis=1)
    assert [ledger.probability for ledger in model.explain(problem["X"][:3])] == pytest.approx(best.tolist())


# -- texts, images, both -----------------------------------------------------------------------------------------------


def test_prompts_are_averaged_and_may_differ_in_number(problem: dict) -> None:
    rng = np.random.default_rng(0)
    prompts = [problem["classes"][c] + 0.1 * rng.normal(size=(n, D)) for c, n in zip(range(K), (1, 4, 2, 3, 1, 5, 2))]
    means = np.stack([unit(block).mean(axis=0) for block in prompts])
    a = ConceptMatrixSearch(problem["concepts"]).fit(prompts)
    b = ConceptMatrixSearch(problem["concepts"]).fit(means)
    np.testing.assert_allclose(a.logits(problem["X"]), b.logits(problem["X"]), atol=1e-9)
    cube = np.repeat(problem["classes"][:, None], 3, axis=1)  # (K, P, d)
    np.testing.assert_allclose(
        ConceptMatrixSearch(problem["concepts"]).fit(cube).logits(problem["X"]),
        search(problem, "sparse").logits(problem["X"]),
        atol=1e-9,
    )


def test_few_shots_with_and_without_texts(problem: dict) -> None:
    X, y = problem["X"], problem["y"]
    shots, test = slice(0, 4 * K), slice(4 * K, None)
    means = np.stack([X[shots][y[shots] == c].mean(axis=0) for c in range(K)])
    nearest = ZeroShotClassifier().fit(means).score(X[test], y[test])
    texts: list = [*problem["classes"]]
    partly = [row if c % 2 else None for c, row in enumerate(texts)]
    scores = {}
    for name, rows in {"images": None, "some": partly, "all": texts}.items():
        model = ConceptMatrixSearch(problem["concepts"]).fit(rows, shots=(X[shots], y[shots]))
        scores[name] = model.score(X[test], y[test])
        assert model.explain(X[test][:2])[1].score == pytest.approx(model.logits(X[test][:2])[1].max(), abs=1e-5)
    assert scores["images"] > nearest
    assert scores["all"] >= scores["images"]
    assert scores["some"] > nearest


def test_a_class_known_by_text_alone_among_classes_with_images(problem: dict) -> None:
    """The modality gap: without it, images would never, or always, be given to the one class without images."""
    X, y = problem["X"], problem["y"]
    inside = np.flatnonzero(y[: 8 * K] != 4)
    model = ConceptMatrixSearch(problem["concepts"], similarity="whitened").fit(
        problem["classes"], shots=(X[inside], y[inside])
    )
    predicted = model.predict(X[8 * K :])
    truth = y[8 * K :]
    assert (predicted[truth == 4] == 4).mean() > 0.5
    assert (predicted[truth != 4] == 4).mean() < 0.2


def test_one_image_a_class_and_names(problem: dict) -> None:
    names = [f"class {c}" for c in range(K)]
    labels = np.array(names)[problem["y"]]
    model = ConceptMatrixSearch(problem["concepts"]).fit(shots=(problem["X"][:K], labels[:K]))
    assert model.classes_.tolist() == names
    assert model.score(problem["X"][:K], labels[:K]) == 1.0


def test_reference_images_move_the_origin_of_codes_only(problem: dict) -> None:
    reference = problem["X"][:50]
    model = search(problem, reference_embeddings=reference)
    np.testing.assert_allclose(model.logits(problem["X"]), search(problem).logits(problem["X"]), atol=1e-9)
    rows = model.class_concepts_, search(problem).class_concepts_
    np.testing.assert_allclose(*rows)
    assert not np.allclose(model.transform(problem["X"]), search(problem).transform(problem["X"]))
    with pytest.raises(InputError, match=r"reference_embeddings have shape \(50,\)"):
        search(problem, reference_embeddings=reference[:, 0])


def test_scores_in_place_of_embeddings(problem: dict) -> None:
    V, T = problem["X"] @ problem["concepts"].T, problem["classes"] @ problem["concepts"].T
    given = ConceptMatrixSearch(similarity="cubed").fit(T)
    np.testing.assert_allclose(given.logits(V), search(problem, "cubed").logits(problem["X"]), atol=1e-4)


# -- conventions -------------------------------------------------------------------------------------------------------


def test_clone_parameters_and_feature_names(problem: dict) -> None:
    pandas = pytest.importorskip("pandas")
    model = ConceptMatrixSearch(problem["concepts"], similarity="sparse", max_active_concepts=3)
    copy = clone(model).set_params(max_active_concepts=4)
    assert (model.max_active_concepts, copy.max_active_concepts) == (3, 4)
    columns = [f"dim {j}" for j in range(D)]
    fitted = copy.fit(pandas.DataFrame(problem["classes"], columns=columns))
    with pytest.raises(ValueError, match="feature names should match"):
        fitted.predict(pandas.DataFrame(problem["X"], columns=columns[::-1]))
    with pytest.raises(ValueError, match="expecting 24 features"):
        fitted.predict(problem["X"][:, :5])


def test_two_classes_have_one_decision_column(problem: dict) -> None:
    model = ConceptMatrixSearch(problem["concepts"]).fit(problem["classes"][:2], ["a", "b"])
    decision = model.decision_function(problem["X"])
    assert decision.shape == (140,)
    np.testing.assert_array_equal(model.predict(problem["X"]), np.where(decision > 0, "b", "a"))


@pytest.mark.parametrize("similarity", ["whitened", "sparse", "cubed", "column_normalised"])
def test_saved_and_loaded_it_predicts_and_explains_alike(problem: dict, tmp_path: Path, similarity: str) -> None:
    names = [f"class {c}" for c in range(K)]
    model = ConceptMatrixSearch(problem["concepts"], similarity=similarity, max_active_concepts=5)
    model.fit(problem["classes"], names)
    model.metadata_ = {"encoder": "none"}
    model.save(tmp_path / "m")
    loaded = ConceptMatrixSearch.load(tmp_path / "m")
    np.testing.assert_array_equal(loaded.logits(problem["X"]), model.logits(problem["X"]))
    assert loaded.explain(problem["X"][:1])[0].entries == model.explain(problem["X"][:1])[0].entries
    assert loaded.get_params()["max_active_concepts"] == 5
    assert loaded.metadata_ == {"encoder": "none"}
    with pytest.raises(StoredFileError, match="holds a ConceptMatrixSearch"):
        DescriptionClassifier.load(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(StoredFileError, match="checksum"):
        ConceptMatrixSearch.load(tmp_path / "m")


def test_bad_input_is_named_in_one_line(problem: dict) -> None:
    C, T, X, y = (problem[key] for key in ("concepts", "classes", "X", "y"))
    make = ConceptMatrixSearch
    cases = [
        (lambda: make(C, similarity="whitend").fit(T), "did you mean 'whitened'"),
        (lambda: make(C, ridge=0.0).fit(T), "ridge=0.0: expected a finite number above 0"),
        (lambda: make(C, max_active_concepts=0).fit(T), "max_active_concepts=0"),
        (lambda: make(C, covariance_shrinkage=1.5).fit(T), r"expected a number in \(0, 1\]"),
        (lambda: make(C).fit(T, ["a"]), "1 names for 7 classes"),
        (lambda: make(C).fit(T, ["a"] * K), "'a' is there more than once"),
        (lambda: make(C).fit(T[:1]), "at least two"),
        (lambda: make(C).fit(T[:, :4]), "24 dimensions"),
        (lambda: make(C).fit(T * np.nan), "NaN or infinity"),
        (lambda: make(C).fit(T * 0), "zero vector"),
        (lambda: make(C).fit([None, *T[1:]]), "class 0 has no embedding"),
        (lambda: make(C).fit([T[0], T[1, :5]]), "5 and 24 dimensions"),
        (lambda: make(C).fit(), "there are no shots"),
        (lambda: make(C).fit({"a": T[0], "b": T[1]}, ["a", "c"]), "unknown class 'c'"),
        (lambda: make(C).fit({"a": T[0], "b": T[1], "d": T[2]}, ["a", "b"]), "'d'"),
        (lambda: make(C).fit(T, shots=(X, y + 1)), r"shots: 7 .* is not among the classes"),
        (lambda: make(C).fit(T, shots=X), "expected a tuple"),
        (lambda: make(C).fit(T, shots=(X[:, :3], y)), "shots have 3 dimensions"),
        (lambda: make(C).fit([None] * K, shots=(X[:1], y[:1])), "neither a text nor a labelled image"),
        (lambda: make(C).fit(T).predict(X * 0), "X: row 0 is a zero vector"),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


# -- real embeddings and painted birds ---------------------------------------------------------------------------------


def test_explanations_of_painted_birds_name_their_true_attributes() -> None:
    """Class rows are descriptions (the phrases of each species' attributes): the encoder never read a species' name."""
    from sparsecbm.data import load_images
    from sparsecbm.data.birds import ATTRIBUTE_NAMES, SPECIES, concept_phrases, species_attributes
    from sparsecbm.encoders import load_encoder

    encoder = load_encoder("bundled")
    birds = load_images("birds", split="test", max_images=100)
    X = encoder.encode_images([birds[i] for i in range(len(birds))])
    phrases, truth = encoder.encode_texts(concept_phrases()), species_attributes()
    model = ConceptMatrixSearch(phrases, ATTRIBUTE_NAMES).fit(
        {name: phrases[truth[i]] for i, name in enumerate(SPECIES)}
    )
    assert model.score(X, np.array(list(SPECIES))[birds.labels]) > 0.95
    right = 0
    for ledger, label in zip(model.explain(X), birds.labels):
        true = {name for name, has in zip(ATTRIBUTE_NAMES, truth[label]) if has}
        named = [e.concept for e in ledger.entries if e.contribution > 0 and e.concept in ATTRIBUTE_NAMES][:5]
        right += len(true & set(named))
    assert right / (5 * len(X)) >= 0.8  # a random attribute is true of 29%


def test_imagenet_rules_on_real_embeddings(data_dir: Path) -> None:
    folder = data_dir / "clip_vitb32"
    images, texts = np.load(folder / "imagenet.npz"), np.load(folder / "text_imagenet_classes.npz")
    objects = np.load(folder / "concepts_objects.npz")
    X, y = images["train4_images"].astype(np.float32), images["train4_labels"]

    def accuracy(similarity: str, rows: slice = slice(None), **options: int) -> float:
        model = ConceptMatrixSearch(objects["embeddings"], objects["names"], similarity=similarity, **options)
        return float((model.fit(texts["embeddings"]).predict(X[rows]) == y[rows]).mean())

    assert accuracy("cosine") == pytest.approx(0.243, abs=0.002)
    assert accuracy("cubed") == pytest.approx(0.299, abs=0.002)
    assert accuracy("whitened") >= 0.605
    assert accuracy("sparse", slice(0, None, 8), max_active_concepts=32) >= 0.45


def test_four_images_a_class_on_real_embeddings(data_dir: Path) -> None:
    folder = data_dir / "clip_vitb32"
    objects = np.load(folder / "concepts_objects.npz")
    gains = []
    for name in ("caltech101", "oxford_pets", "oxford_flowers"):
        store = np.load(folder / f"{name}.npz")
        X, y = store["train4_images"].astype(np.float32), store["train4_labels"]
        X_test, y_test = store["test_images"].astype(np.float32), store["test_labels"]
        means = np.stack([X[y == c].mean(axis=0) for c in range(len(store["class_names"]))])
        search = ConceptMatrixSearch(objects["embeddings"], objects["names"]).fit(shots=(X, y))
        gains.append(search.score(X_test, y_test) - ZeroShotClassifier().fit(means).score(X_test, y_test))
    assert np.mean(gains) >= 0.02
    assert min(gains) > 0


def test_a_large_vocabulary_is_searched_for_what_is_near_the_classes(tmp_path, monkeypatch) -> None:
    import sparsecbm.estimators.concept_matrix_search as module

    rng = np.random.default_rng(0)
    classes = rng.normal(size=(6, 32))
    near = np.repeat(classes, 20, axis=0) + 0.5 * rng.normal(size=(120, 32))
    phrases = np.concatenate([rng.normal(size=(4000, 32)), near]).astype(np.float16)
    order = rng.permutation(len(phrases))
    np.save(tmp_path / "phrases.npy", phrases[order])
    names = [f"near {j - 4000}" if j >= 4000 else f"far {j}" for j in order]
    monkeypatch.setattr(module, "LARGE", 1000)
    monkeypatch.setattr(module, "_BANK", 180)
    model = ConceptMatrixSearch(np.load(tmp_path / "phrases.npy", mmap_mode="r"), names)
    with pytest.warns(DataWarning, match=r"of 4,120 phrases, the \d+ nearest to the classes .* nothing certifies"):
        model.fit(classes)
    assert 100 < len(model.concept_names_) <= 180
    assert sum(name.startswith("near") for name in model.concept_names_) >= 115
    X = np.repeat(classes, 10, axis=0) + 0.5 * rng.normal(size=(60, 32))
    assert np.mean(model.predict(X) == np.repeat(np.arange(6), 10)) > 0.9
    model.save(tmp_path / "m")
    assert np.array_equal(ConceptMatrixSearch.load(tmp_path / "m").predict(X), model.predict(X))
