"""Python as one expects: pictures of any kind in, class names out, a run's folder loads, columns name concepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparsecbm import (
    ConceptMatrixSearch,
    SparseCBMClassifier,
    SparseDecomposer,
    embed_images,
    embed_texts,
    load_encoder,
    load_images,
    runs,
)
from sparsecbm._base.errors import DomainWarning, InputError
from sparsecbm.config.reading import load_config

NAMES = ["red crown", "black crown", "yellow breast", "white breast", "long tail", "hooked bill", "crest", "snow"]


@pytest.fixture(scope="module")
def fitted():
    encoder, birds = load_encoder("bundled"), load_images("birds", "train", max_images=160)
    vectors = embed_images(encoder, birds, cache="memory")
    texts = embed_texts(encoder, NAMES, cache="memory")
    model = SparseCBMClassifier(texts, NAMES, max_iter=30, max_active_concepts=4, random_state=0)
    return encoder, birds, vectors, model.fit(vectors, np.array(vectors.class_names)[vectors.labels])


def test_pictures_come_as_one_as_a_path_as_an_array_or_many(fitted, tmp_path: Path) -> None:
    encoder, birds, vectors, model = fitted
    birds[3].save(tmp_path / "bird.png")
    pixels = np.asarray(birds[3])
    expected = vectors.vectors[3:4]
    for given in (birds[3], tmp_path / "bird.png", str(tmp_path / "bird.png"), pixels, pixels[None], [pixels]):
        assert np.allclose(encoder.encode_images(given), expected, atol=1e-5)
        assert np.allclose(embed_images(encoder, given, cache="memory").vectors, expected, atol=1e-5)
    assert encoder.encode_images([birds[0], tmp_path / "bird.png", pixels]).shape == (3, 128)
    assert model.predict_images(tmp_path / "bird.png").tolist() == model.predict(expected).tolist()
    ledgers = model.explain_images([tmp_path / "bird.png"])
    assert ledgers[0].source == str(tmp_path / "bird.png")
    for bad, words in (
        (tmp_path / "no.png", "no.png"),
        (pixels.astype(float), "expected uint8"),
        ([3], "a picture, a path or an array"),
    ):
        with pytest.raises(InputError, match=words):
            encoder.encode_images(bad)


def test_the_encoder_is_remembered_and_checked(fitted, tmp_path: Path) -> None:
    _, birds, vectors, model = fitted
    model.save(tmp_path / "m")
    loaded = SparseCBMClassifier.load(tmp_path / "m")
    assert loaded.predict_images(birds[0])[0] == model.predict(vectors.vectors[:1])[0]
    assert loaded._encoder(None) is loaded._encoder(None)  # loaded once
    foreign = SparseCBMClassifier(model.concept_embeddings_, NAMES, max_iter=5, random_state=0)
    foreign.fit(vectors.vectors, vectors.labels)
    with pytest.raises(InputError, match=r"encoder=\.\.\."):
        foreign.predict_images(birds[0])
    assert len(foreign.predict_images(birds[0], encoder="bundled")) == 1


def test_a_run_loads_by_its_folder_and_predicts_names(tmp_path: Path) -> None:
    quick = ["images.max_train=100", "images.max_validation=40", "images.max_test=40", "model.max_iter=20"]
    quick += ["evaluation.control=false", "evaluation.baseline=false", "evaluation.examples=2"]
    runs.train_run(load_config("birds_gumbel", [*quick, f"output={tmp_path / 'm1'}"]))
    model = SparseCBMClassifier.load(tmp_path / "m1")
    birds = load_images("birds", "test", max_images=20)
    assert set(model.predict_images(birds)) <= set(birds.class_names)
    numbers = SparseCBMClassifier.load(tmp_path / "m1" / "model", class_names=False)
    assert numbers.classes_.dtype.kind == "i"
    names = np.array(birds.class_names)[numbers.predict_images(birds)]
    assert names.tolist() == model.predict_images(birds).tolist()
    model.save(tmp_path / "m1" / "model")  # named by now: the commands still read it
    report = runs.evaluate_run(tmp_path / "m1", max_images=40, controls=False)
    assert report.metrics["n_images"] == 40


def test_columns_of_a_frame_name_the_concepts(rng) -> None:
    frame = pd.DataFrame(rng.normal(size=(60, 4)), columns=["red", "round", "small", "shiny"])
    y = (frame["red"] > 0).to_numpy()
    model = SparseCBMClassifier(max_iter=20, random_state=0).fit(frame, y)
    assert model.concept_names_ == list(frame.columns)
    rows = ConceptMatrixSearch().fit(frame.iloc[:3], ["a", "b", "c"])
    assert rows.concept_names_ == list(frame.columns)


def test_concepts_go_without_training_pictures(fitted) -> None:
    _, _, vectors, model = fitted
    smaller = model.without(["crest", "snow"])
    kept = [j for j, name in enumerate(NAMES) if name not in ("crest", "snow")]
    assert smaller.concept_names_ == [NAMES[j] for j in kept]
    assert np.array_equal(smaller.units(vectors), model.units(vectors)[:, kept])
    before, after = model.transform(vectors), smaller.transform(vectors)
    free = (before[:, [6, 7]] == 0).all(axis=1)
    assert free.any()
    assert np.array_equal(after[free], before[free][:, kept])
    assert len(model.concept_names_) == 8
    with pytest.raises(InputError, match="unknown concept 'crets'"):
        model.without("crets")
    with pytest.raises(InputError, match="leave at least one"):
        model.without(NAMES)


def test_a_decomposer_is_stored_as_the_others_are(rng, tmp_path: Path) -> None:
    model = SparseDecomposer(rng.normal(size=(20, 12)), max_concepts=3, suppress=["concept 1"])
    X = rng.normal(size=(30, 12))
    codes = model.fit(X).transform(X)
    model.save(tmp_path / "d")
    assert np.array_equal(SparseDecomposer.load(tmp_path / "d").transform(X), codes)
    model.save_pretrained(tmp_path / "published")
    assert np.array_equal(SparseDecomposer.from_pretrained(tmp_path / "published").transform(X), codes)


def test_ledgers_are_shap_explanations(fitted) -> None:
    pytest.importorskip("shap", reason="shap is not installed")
    _, _, vectors, model = fitted
    ledgers = model.explain(vectors.vectors[:5])
    made = ledgers.to_shap()
    assert made.values.shape == (5, 8)
    assert np.allclose(made.base_values + made.values.sum(axis=1), [ledger.score for ledger in ledgers])
    one = ledgers[0].to_shap()
    assert list(one.feature_names) == NAMES
    assert np.allclose(one.data, made.data[0])


def test_python_warns_of_what_an_encoder_does_not_know(tmp_path: Path) -> None:
    encoder = load_encoder("bundled")
    with pytest.warns(DomainWarning, match="never read 2 of the 3 concepts"):
        embed_texts(encoder, ["long tail", "a wheel", "headlights"], cache="memory")
    home = tmp_path / "photos" / "a"
    home.mkdir(parents=True)
    load_images("birds", "test", max_images=20)[0].save(home / "x.png")
    with pytest.warns(DomainWarning, match="painted birds and nothing else"):
        embed_images(encoder, load_images(f"folder:{tmp_path / 'photos'}", "all"), cache="memory")
