"""What version 0.1.0 wrote is read, and gives what it gave; `tests/data/version_0_1` was made by that version."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import sparsecbm._base.formats as formats
from sparsecbm import ConceptMatrixSearch, ConceptSet, SparseCBMClassifier, embed_texts, load_encoder
from sparsecbm._base.errors import StoredFileError
from sparsecbm.config import load_config
from sparsecbm.estimators.inference import InferenceModel

OLD = Path(__file__).parent / "data" / "version_0_1"


def test_models_of_0_1_give_what_they_gave(tmp_path: Path) -> None:
    given = {name: np.array(value) for name, value in json.loads((OLD / "expected.json").read_text()).items()}
    X = given["X"].astype(np.float32)
    for model in (SparseCBMClassifier.load(OLD / "model"), InferenceModel.load(OLD / "model")):
        np.testing.assert_allclose(model.predict_proba(X), given["proba"], atol=1e-6)
        np.testing.assert_allclose(model.transform(X), given["activations"], atol=1e-6)
    again = SparseCBMClassifier.load(OLD / "model")
    again.save(tmp_path)
    np.testing.assert_array_equal(SparseCBMClassifier.load(tmp_path).transform(X), again.transform(X))
    assert list(ConceptMatrixSearch.load(OLD / "search").predict(X)) == ["robin", "wren", "robin", "wren", "robin"]


def test_configurations_and_concepts_of_0_1_are_read() -> None:
    config = load_config(OLD / "config.yaml")
    assert (config.name, config.model.loss, config.model.max_active_concepts) == ("birds_gumbel", "gumbel", 8)
    assert list(ConceptSet.from_file(OLD / "concepts.yaml").names) == [f"concept {j}" for j in range(4)]


def test_embeddings_that_0_1_stored_are_not_made_again(tmp_path: Path) -> None:
    shutil.copytree(OLD / "cache", tmp_path / "cache")
    (entry,) = (tmp_path / "cache" / "embeddings").iterdir()
    before = np.load(entry / "vectors.npy")
    found = embed_texts(load_encoder("bundled"), ["red crown", "blue wings"], cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(found.vectors, before)
    assert {held.name for held in (tmp_path / "cache" / "embeddings").iterdir() if held.is_dir()} == {entry.name}


def test_a_step_brings_an_old_model_up(tmp_path: Path) -> None:
    """The way a future format goes: one function more, and old files pass through it."""

    def step(described: dict) -> dict:
        return described | {"concept_names": [name.upper() for name in described["concept_names"]]}

    formats.MODEL_STEPS.append(step)
    try:
        model = SparseCBMClassifier.load(OLD / "model")
        assert model.concept_names_[0] == "CONCEPT 0"
        model.save(tmp_path)
        assert json.loads((tmp_path / "config.json").read_text())["format_version"] == 2
        assert SparseCBMClassifier.load(tmp_path).concept_names_ == model.concept_names_
    finally:
        formats.MODEL_STEPS.remove(step)
    with pytest.raises(StoredFileError, match="format version 2, this version of sparsecbm reads up to 1"):
        SparseCBMClassifier.load(tmp_path)
