"""The one way in: what a configuration names comes back embedded, wherever it was embedded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.config import SearchConfig, build_config
from sparsecbm.inputs.data import prepare, prepare_search


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("vectors")
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.normal(size=(8, 8)))[0].astype(np.float32)
    arrays: dict[str, np.ndarray] = {"class_names": np.array(["jay", "finch"])}
    for split, n in (("train", 6), ("test", 4)):
        arrays[f"{split}_labels"] = np.arange(n) % 2
        arrays[f"{split}_images"] = centres[np.arange(n) % 2]
    np.savez(folder / "images.npz", **arrays)
    np.savez(folder / "concepts.npz", embeddings=centres[:3], names=np.array(["crest", "bill", "tail"]))
    np.savez(folder / "narrow.npz", embeddings=centres[:3, :5], names=np.array(["crest", "bill", "tail"]))
    return {"path": str(folder / "images.npz"), "concepts": str(folder / "concepts.npz")}


def test_vectors_made_elsewhere(vectors: dict[str, str]) -> None:
    made = prepare(build_config({"embeddings": vectors | {"encoder": "bundled"}}))
    assert {name: len(split) for name, split in made.splits.items()} == {"train": 6, "test": 4}
    assert made.splits["test"].ids[:2] == ("test/0", "test/1")
    assert made.splits["test"].images is None
    assert made.class_names == ("jay", "finch")
    assert made.bank.names == ("crest", "bill", "tail")
    assert made.encoder == {"spec": "bundled", "fingerprint": None}


def test_pictures_stay_with_their_vectors() -> None:
    images = {"spec": "birds", "max_train": 6, "max_validation": 4, "max_test": 4}
    values = {"images": images, "encoder": {"cache": "memory"}, "concepts": {"names": ["red crown", "long tail"]}}
    made = prepare(build_config(values))
    train = made.splits["train"]
    assert train.images is not None
    assert (len(train), len(train.images)) == (6, 6)
    assert list(train.ids) == list(train.images.ids)
    assert set(made.opened) == {"train", "validation", "test"}
    assert made.class_texts is not None
    assert made.class_texts.shape == (len(made.class_names), train.dim)


def test_search_is_about_its_split_and_refers_to_train(vectors: dict[str, str]) -> None:
    held = {"embeddings": vectors | {"train": "train"}, "baselines": []}
    test = prepare_search(build_config(held, kind=SearchConfig))
    assert len(test.pictures) == 4
    assert test.reference is not None
    assert len(test.reference) == 6
    train = prepare_search(build_config(held | {"split": "train"}, kind=SearchConfig))
    assert len(train.pictures) == 6
    assert train.reference is None


def test_concepts_of_another_space_are_refused(vectors: dict[str, str]) -> None:
    narrow = vectors | {"concepts": str(Path(vectors["concepts"]).with_name("narrow.npz"))}
    with pytest.raises(InputError, match="images have 8 dimensions and concepts 5"):
        prepare(build_config({"embeddings": narrow}))
