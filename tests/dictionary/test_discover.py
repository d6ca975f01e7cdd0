"""Names and what they are worth; concept sets with vectors; `concepts discover`, and its file as anybody's concepts."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from sparsecbm import ConceptSet, embed_texts, load_encoder
from sparsecbm._base.errors import InputError
from sparsecbm._base.rows import unit_rows
from sparsecbm.dictionary.naming import name_units
from sparsecbm.dictionary.quality import duplicates, hierarchy, matched_atoms, name_quality, pair_aucs
from sparsecbm.estimators.sparse_autoencoder import left_over
from sparsecbm.runs import discover_concepts

M, D = 12, 40


def world() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pictures that are sums of few directions, codes, true words (those directions, in another cone), other words."""
    rng = np.random.default_rng(0)
    atoms = np.linalg.qr(rng.normal(size=(D, D)))[0][:M]
    codes = (rng.random((1500, M)) < 0.2) * rng.uniform(0.5, 1.5, (1500, M))
    X = codes @ atoms + 2.0 * np.eye(D)[0] + 0.1 * rng.normal(size=(1500, D))
    words = unit_rows(atoms + 0.1 * rng.normal(size=(M, D)) + 0.8 * np.eye(D)[1])
    others = unit_rows(unit_rows(rng.normal(size=(300, D))) + 0.8 * np.eye(D)[1])
    return X, codes, words, others


def test_names_are_found_where_they_are_and_missing_where_they_are_not() -> None:
    X, codes, words, others = world()
    atoms = unit_rows(np.linalg.lstsq(codes - codes.mean(0), X - X.mean(0), rcond=None)[0])
    names = [f"true {j}" for j in range(M)]
    noise = [f"other {j}" for j in range(300)]
    found = name_units(atoms, codes, X, names + noise, np.concatenate([words, others]))
    assert found.names == names
    assert found.confidence.min() > 0.99
    without = name_units(atoms, codes, X, noise, others)
    assert sum(name is None for name in without.names) >= 0.8 * M
    assert all(word.startswith("other") for word in without.words)
    centred = words - np.concatenate([words, others]).mean(0)
    of_names, of_chance = name_quality(centred, codes, X)
    assert of_names.min() > 0.95
    assert np.all(of_names > of_chance - 0.05)
    idle = name_units(atoms, np.where(np.arange(M) == 3, 0.0, codes), X, names, words)
    assert idle.names[3] is None
    with pytest.raises(InputError, match="the vocabulary is empty"):
        name_units(atoms, codes, X, [], words[:0])
    with pytest.raises(InputError, match=r"have 40 dimensions: embed the words"):
        name_units(atoms, codes, X, names, words[:, :39])


def test_measures_against_definitions(rng: np.random.Generator) -> None:
    from sklearn.metrics import roc_auc_score

    scores, truth = rng.integers(0, 5, (60, 4)), rng.random((60, 4)) < 0.3
    assert np.allclose(pair_aucs(scores, truth), [roc_auc_score(truth[:, j], scores[:, j]) for j in range(4)])
    atoms = unit_rows(rng.normal(size=(6, 9)))
    assert np.allclose(matched_atoms(atoms, atoms[rng.permutation(6)]), 1)
    assert duplicates(atoms[[0, 1, 2, 0]], [None, "a", "a", None]) == [(0, 3), (1, 2)]
    general = rng.random(200) < 0.5
    codes = np.stack([general, rng.random(200) < 0.5, general & (rng.random(200) < 0.5)], 1).astype(float)
    assert hierarchy(codes, [2, 3]) == [None, None, 0]


def test_what_given_words_leave_has_nothing_of_them_left(rng: np.random.Generator) -> None:
    X, _, words, _ = world()
    left = left_over(X, words, active=6)
    before = np.square(X - X.mean(0)).sum()
    assert np.square(left).sum() < 0.6 * before
    assert left_over(X, words[:1], active=1).shape == X.shape


def test_a_set_with_vectors_is_kept_whole(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.normal(size=(3, 5))
    concepts = ConceptSet(
        ["a", "b", "c"], vectors=vectors, groups=["x", None, "x"], provenance={"encoder": {"spec": "e"}}
    )
    assert np.allclose(concepts.vectors, unit_rows(vectors), atol=1e-6)
    concepts.save(tmp_path / "c.safetensors")
    assert ConceptSet.from_file(tmp_path / "c.safetensors") == concepts
    concepts.save_pretrained(tmp_path / "p")
    assert np.array_equal(ConceptSet.from_pretrained(tmp_path / "p").vectors, concepts.vectors)
    assert concepts.select([2]).vectors.tolist() == concepts.vectors[[2]].tolist()
    assert ConceptSet(None, vectors=vectors).names == ("unnamed 0", "unnamed 1", "unnamed 2")
    with pytest.raises(ValueError, match="read-only"):
        concepts.vectors[0] = 0
    for suffix in ("txt", "json", "yaml"):
        with pytest.raises(InputError, match=r"vectors.*save as \.safetensors"):
            concepts.save(tmp_path / f"c.{suffix}")
    with pytest.raises(InputError, match="2 vectors for 3 concept names"):
        ConceptSet(["a", "b", "c"], vectors=vectors[:2])
    with pytest.raises(InputError, match="row 1 holds NaN"):
        ConceptSet(None, vectors=np.where(np.arange(3)[:, None] == 1, np.nan, vectors))
    (tmp_path / "broken.safetensors").write_bytes((tmp_path / "c.safetensors").read_bytes()[:60])
    with pytest.raises(InputError, match="no safetensors file"):
        ConceptSet.from_file(tmp_path / "broken.safetensors")


def test_discover_and_use(tmp_path: Path) -> None:
    from sparsecbm.config import build_config
    from sparsecbm.config.schema import EmbeddingsConfig
    from sparsecbm.inputs.concepts import embed_concepts, read_concepts

    (tmp_path / "words.txt").write_text("a bird with a red crown\na bird in the snow\na large bird\nhope\nlogic\n")
    (tmp_path / "mine.txt").write_text("a bird by a lake\n")
    output = tmp_path / "found.safetensors"
    options = {"size": 8, "active": 3, "max_images": 120, "max_iter": 60}
    made = discover_concepts(
        "birds", "bundled", output, vocabulary=tmp_path / "words.txt", words=tmp_path / "mine.txt", **options
    )
    concepts = ConceptSet.from_file(output)
    assert concepts.names[0] == "a bird by a lake"
    assert len(concepts) == made.found + 1
    assert all(0 < one["share"] <= 1 and 0 <= one["confidence"] <= 1 for one in concepts.provenance["found"])
    page = output.with_suffix(".html").read_text()
    assert page.count("data:image") >= 8
    assert "meaningless" in page
    assert not list(tmp_path.glob(".found*"))
    config = build_config(
        {"concepts": {"file": str(output)}, "images": {"spec": "birds"}, "encoder": {"spec": "bundled"}}
    )
    bank = embed_concepts(config, load_encoder("bundled"), (), None)
    assert np.array_equal(bank.vectors, concepts.vectors)
    assert np.array_equal(read_concepts(EmbeddingsConfig(path="-", concepts=str(output))).vectors, concepts.vectors)
    with pytest.raises(InputError, match=r"exists|there already|--force"):
        discover_concepts("birds", "bundled", output, **options)
    config.concepts.file = str(tmp_path / "other.safetensors")
    for size, made_by, message in (
        (3, {"spec": "another"}, "3-d vectors of the encoder another, and"),
        (128, {"spec": "bundled", "fingerprint": "0" * 64}, "bundled, fingerprint 000000000000, and .* fingerprint "),
    ):
        ConceptSet(None, vectors=np.eye(size), provenance={"encoder": made_by}).save(config.concepts.file)
        with pytest.raises(InputError, match=message):
            embed_concepts(config, load_encoder("bundled"), (), None)
    np.savez(tmp_path / "foreign.npz", embeddings=np.eye(3), names=np.array(["a", "b", "c"]))
    with pytest.raises(InputError, match="has 3-d embeddings"):
        discover_concepts(
            "birds", "bundled", tmp_path / "x.safetensors", vocabulary=tmp_path / "foreign.npz", **options
        )
    words = ["a bird in the snow", "a large bird", "a bird with a red crown"]
    own = embed_texts(load_encoder("bundled"), words, cache="memory").vectors
    options = {"size": 4, "active": 2, "max_images": 60, "max_iter": 10}
    for vectors, heard in ((own, 0), (own[[1, 2, 0]], 1)):
        np.savez(tmp_path / "words.npz", embeddings=vectors, names=np.array(words))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            discover_concepts(
                "birds", "bundled", output, vocabulary=tmp_path / "words.npz", restarts=1 + heard, force=True, **options
            )
        assert sum("not those that bundled gives" in str(warning.message) for warning in caught) == heard
    assert ConceptSet.from_file(output).provenance["dictionary"]["restarts"] == 2
