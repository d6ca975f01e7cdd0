"""`evaluate_run` on vectors made elsewhere: what it finds by itself, what it skips and says, what it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from sparsecbm import runs
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.config.reading import build_config


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four classes in 24 dimensions; the first 8 of 12 concepts look along the classes."""
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 24))
    arrays = {"class_names": np.array(["ant", "bee", "cat", "dog"])}
    for split, n in (("train16", 80), ("test", 60)):
        labels = np.arange(n) % 4
        arrays[f"{split}_images"] = unit(centres[labels] + 1.2 * rng.normal(size=(n, 24)))
        arrays[f"{split}_labels"] = labels
    np.savez(folder / "v.npz", **arrays)
    concepts = np.r_[np.repeat(centres, 2, 0) + 0.3 * rng.normal(size=(8, 24)), rng.normal(size=(4, 24))]
    np.savez(folder / "c.npz", embeddings=unit(concepts), names=np.array([f"sign {j}" for j in range(12)]))
    np.savez(folder / "w.npz", embeddings=unit(rng.normal(size=(9, 24))), names=np.array([f"w{j}" for j in range(9)]))
    return folder


@pytest.fixture(scope="module")
def trained(home: Path) -> runs.TrainResult:
    values = {
        "embeddings": {"path": str(home / "v.npz"), "train": "train16", "concepts": str(home / "c.npz")},
        "model": {"max_active_concepts": 4, "max_iter": 60},
        "output": str(home / "out"),
    }
    return runs.train_run(build_config(values))


def test_an_interrupted_evaluation_goes_on(trained, home: Path, tmp_path: Path, monkeypatch) -> None:
    from sparsecbm._base import checkpoint

    options = {"words": home / "w.npz", "nec": (1, 2)}
    whole = runs.evaluate_run(home / "out", output=tmp_path / "whole", **options)
    save, kept = checkpoint.save_state, []

    def save_and_stop(folder, state, name=checkpoint.FILE_NAME):
        save(folder, state, name)
        kept.append(name)
        if len(kept) == 4:  # the second point of the path on random words
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        runs.evaluate_run(home / "out", output=tmp_path / "cut", **options)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["checkpoint"]
    again = runs.evaluate_run(home / "out", output=tmp_path / "cut", **options)
    assert again.controls == whole.controls
    files = [{path.name for path in (tmp_path / name).iterdir()} for name in ("whole", "cut")]
    assert files[0] == files[1] == {"test.json", "test-confusion.csv", "test-nec.png"}
    assert (tmp_path / "whole" / "test-nec.png").read_bytes() == (tmp_path / "cut" / "test-nec.png").read_bytes()


def test_everything_is_found_from_the_model_alone(trained, home: Path, tmp_path: Path) -> None:
    result = runs.evaluate_run(home / "out", seeds=2, nec=(2, 3, 99), output=tmp_path / "e")
    stored = dict(trained.metrics["test"])
    probe, table, advantage = (stored.pop(key) for key in ("linear_probe", "controls", "advantage"))
    assert stored.pop("verdict").startswith("The same number of meaningless directions reaches")
    assert result.metrics == stored
    rows = {row["name"]: row for row in result.controls["table"]}
    assert list(rows) == [
        "concepts",
        "retrained",
        "matched_directions",
        "equal_freedom",
        "shuffled_names",
        "linear_probe",
        "nearest_mean",
    ]
    assert rows["concepts"]["accuracy"] == stored["accuracy"] == table[0]["accuracy"]
    assert rows["linear_probe"]["accuracy"] == probe == table[3]["accuracy"]
    assert rows["nearest_mean"]["accuracy"] == table[4]["accuracy"] > 0.5
    # Training drew the directions once, evaluation twice; the first draw is the same fit.
    assert advantage["own_recipe"]["accuracy"] == table[1]["accuracy"]
    assert result.controls["advantage"]["own_recipe"]["accuracy"] == rows["matched_directions"]["accuracy"]
    # The recipe with seed 0, as trained; the second seed is another model.
    assert rows["retrained"]["seeds"] == 2
    assert rows["retrained"]["accuracy"] == pytest.approx(stored["accuracy"], abs=0.1)
    assert rows["shuffled_names"]["accuracy"] == stored["accuracy"]
    assert rows["shuffled_names"]["name_alignment"] < rows["concepts"]["name_alignment"] - 0.3
    # No encoder is known, so words cannot be embedded: said, and not replaced in silence.
    assert "--encoder SPEC" in result.controls["skipped"]["random_words"]
    assert "meaningless directions" in result.controls["skipped"]["random_words"]
    assert [point["nec"] for point in result.controls["paths"]["concepts"]] == [2, 3]
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "test-confusion.csv", "test-nec.png", "test.json",
    ]  # fmt: skip
    assert json.loads((tmp_path / "e" / "test.json").read_text()) == result.to_json()
    # A quick look leaves the controls where they are; other numbers take the place of the old ones, plot and all.
    quick = runs.evaluate_run(home / "out", controls=False, output=tmp_path / "e")
    assert quick.files == result.files
    assert json.loads((tmp_path / "e" / "test.json").read_text()) == result.to_json()
    runs.evaluate_run(home / "out", max_images=20, controls=False, output=tmp_path / "e")
    assert json.loads((tmp_path / "e" / "test.json").read_text())["controls"] is None
    assert not (tmp_path / "e" / "test-nec.png").exists()


def test_confusions_are_those_of_the_predictions(trained, home: Path) -> None:
    result = runs.evaluate_run(home / "out", controls=False)
    classifier = runs.load_model(home / "out").classifier
    with np.load(home / "v.npz") as stored:
        matrix = confusion_matrix(stored["test_labels"], classifier.predict(stored["test_images"]))
    np.fill_diagonal(matrix, 0)
    names = ["ant", "bee", "cat", "dog"]
    first = result.confused[0]
    assert first["count"] == matrix.max() == matrix[names.index(first["class"]), names.index(first["predicted"])]
    assert sum(row["count"] for row in result.confused) <= matrix.sum()


def test_words_from_a_file(trained, home: Path, tmp_path: Path) -> None:
    result = runs.evaluate_run(home / "out", words=home / "w.npz", nec=())
    rows = {row["name"]: row for row in result.controls["table"]}
    assert rows["random_words"]["n_concepts"] == 9
    assert "only 9 given words for 12 concepts" in result.controls["warnings"]
    assert result.controls["labels"]["random_words"] == "Given words"  # nobody knows how random they are
    assert [row["name"] for row in result.controls["rows"]][3] == "Given words"
    assert "andom words" not in json.dumps(result.controls["verdict"])
    assert result.controls["paths"] == {}
    np.savez(tmp_path / "flat.npz", embeddings=np.eye(3, 5), names=np.array(list("abc")))
    with pytest.raises(InputError, match=r"flat.npz' holds 5-d embeddings; the model expects 24-d ones"):
        runs.evaluate_run(home / "out", words=tmp_path / "flat.npz")
    with pytest.raises(StoredFileError, match=r"there is no file of words .*none\.txt"):
        runs.evaluate_run(home / "out", words=tmp_path / "none.txt")


def test_training_data_that_is_gone_is_said_or_found_in_the_given_file(trained, home: Path, tmp_path: Path) -> None:
    from sparsecbm.estimators import SparseCBMClassifier

    shutil.copytree(home / "out", tmp_path / "out")
    shutil.copy(home / "v.npz", tmp_path / "moved.npz")
    model = SparseCBMClassifier.load(tmp_path / "out" / "model", class_names=False)
    assert Path(model.metadata_["embeddings"]["path"]).samefile(home / "v.npz")
    as_run = tmp_path / "out" / "config.yaml"
    as_run.write_text(as_run.read_text().replace(str(home / "v.npz"), str(tmp_path / "gone.npz")))
    with pytest.raises(InputError, match=r"does not say where .* lie now \('.*gone\.npz' is not there\)"):
        runs.evaluate_run(tmp_path / "out")
    found = runs.evaluate_run(tmp_path / "out", embeddings=tmp_path / "moved.npz", nec=())
    assert found.controls["table"][-1]["name"] == "nearest_mean"
    # A model of the Python API remembers nothing: measured all the same, with a word on what is missing.
    model.metadata_ = {}
    model.save(tmp_path / "bare")
    bare = runs.evaluate_run(tmp_path / "bare", embeddings=tmp_path / "moved.npz")
    assert bare.metrics["accuracy"] == found.metrics["accuracy"]
    assert bare.controls is None
    assert "--train-split NAME" in bare.notes[0]
    told = runs.evaluate_run(tmp_path / "bare", embeddings=tmp_path / "moved.npz", train_split="train16", nec=())
    assert [row["accuracy"] for row in told.controls["table"]] == [row["accuracy"] for row in found.controls["table"]]


def test_subsets_and_training_pictures_are_said(trained, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sparsecbm.runs import evaluate

    few = runs.evaluate_run(home / "out", split="train", max_images=20, controls=False)
    assert few.metrics["n_images"] == 20
    assert "the model was trained on" in few.notes[0]
    monkeypatch.setattr(evaluate, "MAX_CONTROL_TRAIN", 40)
    monkeypatch.setattr(evaluate, "MAX_PATH_WORK", (0, 0))
    part = runs.evaluate_run(home / "out")
    assert "40 of 80 images" in part.notes[0]
    assert "left out" in part.notes[1]
    assert part.controls["paths"] == {}
    assert "retrained" in [row["name"] for row in part.controls["table"]]


def test_refusals_come_before_the_work(home: Path, trained, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoredFileError, match="choose another with --output"):
        runs.evaluate_run(home / "out", output=tmp_path / "file" / "e")
    with pytest.raises(InputError, match="seeds=0"):
        runs.evaluate_run(home / "out", seeds=0)
    with pytest.raises(InputError, match="each at least 1"):
        runs.evaluate_run(home / "out", nec=(5, -1))
    with pytest.raises(InputError, match="holds no accuracy against NEC"):
        runs.nec_figure(runs.evaluate_run(home / "out", controls=False))


def test_where_files_go_by_default(tmp_path: Path) -> None:
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "bare").mkdir()
    assert runs.default_output(tmp_path / "out") == tmp_path / "out" / "evaluation"
    assert runs.default_output(tmp_path / "out" / "model") == tmp_path / "out" / "evaluation"
    assert runs.default_output(tmp_path / "bare") == tmp_path / "bare" / "evaluation"


def test_a_dense_model_over_many_concepts_is_called_a_probe(home: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    names = np.array([f"m{j}" for j in range(30)])
    np.savez(tmp_path / "many.npz", embeddings=unit(rng.normal(size=(30, 24))), names=names)
    values = {
        "embeddings": {"path": str(home / "v.npz"), "train": "train16", "concepts": str(tmp_path / "many.npz")},
        "model": {"loss": "none", "max_iter": 20},
        "output": str(tmp_path / "dense"),
    }
    metrics = runs.train_run(build_config(values)).metrics["test"]
    assert "linear probe in disguise" in metrics["warnings"][0]
    sparse = build_config({**values, "model": {"max_active_concepts": 4, "max_iter": 20}})
    assert runs.train_run(sparse).metrics["test"]["warnings"] == []
