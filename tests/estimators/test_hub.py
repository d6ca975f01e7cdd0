"""Publishing: every estimator and concept set goes up with a card, names no place of this machine, and comes back."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from sparsecbm import (
    ConceptMatrixSearch,
    ConceptSet,
    DescriptionClassifier,
    LinearProbe,
    SparseCBMClassifier,
    SparseDecomposer,
    ZeroShotClassifier,
)
from sparsecbm._base.errors import InputError

K, M, D = 3, 6, 8
NAMES = ["ant", "bee `<b>`", "cat"]
CONCEPTS = [f"concept {j}" for j in range(M)]


@pytest.fixture(scope="module")
def problem() -> SimpleNamespace:
    rng = np.random.default_rng(0)
    y = np.arange(60) % K
    X = rng.normal(size=(60, D)) + 2 * np.eye(D)[y]
    return SimpleNamespace(X=X, y=np.array(NAMES)[y], C=rng.normal(size=(M, D)), T=np.eye(D)[:K])


def made(kind: type, problem: SimpleNamespace):
    if kind is SparseCBMClassifier:
        return kind(problem.C, CONCEPTS, max_active_concepts=2, max_iter=5, random_state=0).fit(problem.X, problem.y)
    if kind is LinearProbe:
        return kind().fit(problem.X, problem.y)
    if kind is ConceptMatrixSearch:
        return kind(problem.C, CONCEPTS).fit(problem.T, NAMES)
    if kind is DescriptionClassifier:
        return kind().fit({name: problem.T[k : k + 1] for k, name in enumerate(NAMES)})
    if kind is SparseDecomposer:
        return kind(problem.C, CONCEPTS, alpha=0.1).fit(problem.X)
    return kind().fit(problem.T, NAMES)


def no_place_in(folder: Path, *places: Path) -> None:
    for file in folder.rglob("*"):
        data = file.read_bytes() if file.is_file() else b""
        assert not [place for place in (*places, Path.home(), Path.cwd()) if str(place).encode() in data], file
        if file.suffix in (".json", ".md", ".yaml"):
            assert not re.search(r'["\s:](/|~/|[A-Z]:\\)\w+', data.decode().replace("https://", "")), file


KINDS = [SparseCBMClassifier, LinearProbe, ConceptMatrixSearch, ZeroShotClassifier, DescriptionClassifier]


@pytest.mark.parametrize("kind", KINDS)
def test_every_estimator_is_published_and_comes_back(kind, problem, tmp_path: Path, monkeypatch) -> None:
    import huggingface_hub

    model = made(kind, problem)
    noted = {
        "encoder": {"spec": f"open_clip:local-dir:{tmp_path}/clip", "fingerprint": "f" * 64},
        "images": {"spec": f"folder:{tmp_path}/photos"},
        "test": {
            "n_images": 30,
            "accuracy": 0.8,
            "controls": [{"name": "meaningless directions", "accuracy": 0.7, "sd": None}],
            "verdict": "Names are worth 10 points.",
        },
    }
    model.metadata_ = dict(noted)

    class Api:
        """The Hub, kept in a folder."""

        def __init__(self, token: object = None) -> None:
            pass

        def create_repo(self, repo_id: str, **options: object) -> SimpleNamespace:
            return SimpleNamespace(repo_id=repo_id)

        def upload_folder(self, *, repo_id: str, folder_path: str, **options: object) -> SimpleNamespace:
            shutil.copytree(folder_path, tmp_path / "hub" / repo_id)
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert model.push_to_hub("ann/insects", model_card_kwargs={"license": "mit"}) == "https://hub/ann/insects/commit/1"
    assert model.metadata_ == noted
    folder = tmp_path / "hub" / "ann" / "insects"
    assert {path.name for path in folder.iterdir()} == {"README.md", "config.json", "model.safetensors"}
    no_place_in(folder, tmp_path)
    card = (folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "sparsecbm"
    assert front["pipeline_tag"].endswith("image-classification")
    assert front["license"] == "mit"
    for words in ("`bee '<b>'`", "80.0%", "70.0%", "worth 10 points", "folder:(not published)", "## Limits"):
        assert words in card
    compile(card.split("```python\n")[1].split("```")[0], "card", "exec")
    back = kind.from_pretrained(folder)
    np.testing.assert_array_equal(back.predict(problem.X), model.predict(problem.X))
    with pytest.raises(InputError, match="bogus"):
        kind.from_pretrained(folder, bogus=1)


@pytest.mark.parametrize("kind", [*KINDS, SparseDecomposer])
def test_what_is_saved_names_no_place_of_this_machine(kind, problem, tmp_path: Path) -> None:
    model = made(kind, problem)
    spec = f"open_clip:local-dir:{tmp_path}/clip"
    model.metadata_ = {"encoder": {"spec": spec}, "embeddings": {"path": Path.cwd() / "x.npz", "classes": "~/y.npz"}}
    model.save(tmp_path / "m")
    no_place_in(tmp_path / "m", tmp_path)
    assert model.metadata_["encoder"]["spec"] == spec
    if kind is SparseCBMClassifier:
        with pytest.raises(InputError, match=r"does not say where it lies: give it \(encoder="):
            kind.load(tmp_path / "m").predict_images(np.zeros((8, 8, 3), dtype=np.uint8))


def test_concept_sets_are_published_and_come_back(tmp_path: Path) -> None:
    concepts = ConceptSet(CONCEPTS, provenance={"file": f"{tmp_path}/words.txt", "source": "the museum"})
    concepts.save_pretrained(tmp_path / "up", license="cc-by-4.0", name="ann/words")
    no_place_in(tmp_path / "up", tmp_path)
    card = (tmp_path / "up" / "README.md").read_text()
    assert 'ConceptSet.from_pretrained("ann/words")' in card
    assert "`concept 5`" in card
    back = ConceptSet.from_pretrained(tmp_path / "up")
    assert list(back.names) == CONCEPTS
    assert back.provenance == {"file": "(not published)", "source": "the museum"}
