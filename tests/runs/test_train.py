"""Whole runs on the embedded default and on stand-ins: what they write, resume, refuse and reproduce."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsecbm import runs
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.config.reading import build_config, builtin_configs, load_config
from sparsecbm.config.schema import RunConfig
from sparsecbm.inputs.models import load_model
from sparsecbm.runs.app_session import Session

SMALL = (
    "images.max_train=200",
    "images.max_validation=60",
    "images.max_test=120",
    "model.max_iter=60",
    "evaluation.examples=4",
    "evaluation.baseline=false",
    "evaluation.control=false",
)


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "out"


@pytest.fixture(scope="module")
def trained(output: Path, tmp_path_factory: pytest.TempPathFactory) -> runs.TrainResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSECBM_CACHE", str(tmp_path_factory.getbasetemp() / "sparsecbm-cache"))
        return runs.train_run(load_config("birds_gumbel", [*SMALL, f"output={output}"]))


@pytest.fixture
def birds(tmp_path: Path) -> list[Path]:
    from sparsecbm.data.birds import BirdImages

    source = BirdImages("test", n_images=6)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        source[i].save(folder / f"bird{i}.png")
    return sorted(folder.iterdir())


def test_train_writes_everything_and_no_more(trained: runs.TrainResult, output: Path) -> None:
    assert sorted(path.name for path in output.iterdir()) == ["config.yaml", "metrics.json", "model", "report.html"]
    assert sorted(path.name for path in (output / "model").iterdir()) == ["config.json", "model.safetensors"]
    metrics = json.loads((output / "metrics.json").read_text())
    assert metrics == trained.metrics
    test = metrics["test"]
    assert test["n_images"] == 120
    assert test["accuracy"] == pytest.approx(test["correct"] / 120)
    assert test["accuracy"] > 0.5
    assert test["active_concepts"]["max"] <= 8
    assert test["nec"] <= 9
    assert test["name_alignment"] > 0.8
    assert 0.5 < test["concept_auc"]["mean"] <= 1
    assert len(test["concept_auc"]["each"]) == 31
    assert load_config(output / "config.yaml").model.max_iter == 60
    page = (output / "report.html").read_text()
    assert page.count("<article") == 4
    assert f"{test['accuracy']:.1%}" in page


def test_example_is_a_right_prediction_that_adds_up(trained: runs.TrainResult) -> None:
    assert trained.example is not None
    assert trained.example.truth == trained.example.target
    total = trained.example.bias + sum(entry.contribution for entry in trained.example.entries)
    assert total == pytest.approx(trained.example.score, abs=1e-9)


def test_same_seed_same_model(trained: runs.TrainResult, output: Path, tmp_path: Path) -> None:
    again = runs.train_run(load_config(output / "config.yaml", [f"output={tmp_path / 'again'}"]))
    first, second = (path / "model" / "model.safetensors" for path in (output, again.output))
    assert first.read_bytes() == second.read_bytes()
    assert again.metrics["test"] == trained.metrics["test"]


def test_concept_labels_of_a_configuration_teach_and_are_judged(
    trained: runs.TrainResult, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path_factory.getbasetemp() / "sparsecbm-cache"))
    labels = ("images.concept_labels=attributes", "model.max_active_concepts=null", "model.concepts_per_class=null")
    taught = runs.train_run(load_config("birds_gumbel", [*SMALL, *labels, f"output={tmp_path / 'out'}"]))
    ours, texts = (made.metrics["test"]["concepts"] for made in (taught, trained))
    assert ours["ece"] < texts["ece"]
    assert len(ours["each"]) == 31
    assert sum(count for *_, count in ours["bins"]) == 31 * 120
    page = taught.report.read_text()
    assert "How far their probabilities can be trusted" in page
    assert "expected gain" in page
    made = runs.evaluate_run(taught.output, controls=False, output=tmp_path / "evaluation")
    assert made.metrics == taught.metrics["test"]
    assert made.files["reliability"].read_text().startswith("<svg")
    session = Session(load_model(taught.output, inference=True), None)  # type: ignore[arg-type]  # nothing is encoded
    row = np.full(31, 0.03)
    assert session.reach(row) == 1.0
    told = session.edited(row, {"red crown": 1.0})[0].lines(31)
    assert "red crown: 3% -> corrected to present" in [line.name for line in told.lines]


def test_evaluate_reproduces_the_metrics(trained: runs.TrainResult, output: Path) -> None:
    measured = runs.evaluate_run(output, controls=False).metrics
    assert measured == trained.metrics["test"]
    fewer = runs.evaluate_run(output / "model", split="validation", max_images=40, controls=False).metrics
    assert fewer["n_images"] == 40


def test_predict_needs_nothing_but_the_model_and_pictures(trained, output: Path, birds: list[Path]) -> None:
    result = runs.predict_run(output, birds, top=2)
    assert [made.source for made in result.predictions] == [str(path) for path in birds]
    stored = runs.load_model(output)
    vectors = runs.model_encoder(stored).encode_images([Image.open(path) for path in birds])
    probabilities = stored.classifier.predict_proba(vectors)
    for made, row in zip(result.predictions, probabilities):
        assert made.label == stored.class_names[row.argmax()]
        assert made.probability == pytest.approx(row.max(), abs=1e-6)
        assert len(made.classes) == 2
        assert made.n_active <= 8
    folder = runs.predict_run(output, [birds[0].parent], top=2)
    assert folder.predictions == result.predictions


@pytest.mark.parametrize("ending", [".csv", ".parquet"])
def test_predictions_are_one_table(trained, output: Path, birds: list[Path], tmp_path: Path, ending: str) -> None:
    import pandas as pd

    shown = runs.predict_run(output, birds, top=3).predictions
    bar = sorted(made.probability for made in shown)[2]
    (birds[0].parent / "torn.jpg").write_bytes(b"no picture")
    path = tmp_path / f"table{ending}"
    options = {"top": 3, "min_probability": bar, "on_error": "skip"}
    result = runs.predict_table(output, [birds[0].parent], path, **options)
    table = pd.read_csv(path) if ending == ".csv" else pd.read_parquet(path)
    assert list(table["picture"]) == [*map(str, birds), str(birds[0].parent / "torn.jpg")]
    for (_, row), made in zip(table.iterrows(), shown):
        withheld = made.probability < bar
        assert row["note"] == "uncertain" if withheld else pd.isna(row["note"]) or row["note"] == ""
        assert pd.isna(row["class"]) if withheld else row["class"] == made.label
        assert row["probability"] == pytest.approx(made.probability, abs=1e-6)
        assert row["active_concepts"] == made.n_active
        assert (row["class_2"], row["class_3"]) == (made.classes[1][0], made.classes[2][0])
    assert table["note"].iloc[-1].startswith("unreadable: ")
    assert (result.n_images, result.notes) == (7, {"uncertain": 2, "unreadable": 1})
    first = path.read_bytes()
    with pytest.raises(InputError, match="is there already"):
        runs.predict_table(output, birds, path)
    runs.predict_table(output, [birds[0].parent], path, **options, force=True)
    assert path.read_bytes() == first
    with pytest.raises(InputError, match=r"unknown ending of a table"):
        runs.predict_table(output, birds, tmp_path / "table.xlsx")


def test_no_active_concept_is_no_evidence(trained, output: Path, birds: list[Path], tmp_path: Path) -> None:
    """The bias alone would name a class for a picture in which nothing is seen."""
    from sparsecbm import SparseCBMClassifier

    model = SparseCBMClassifier.load(output / "model")
    model.bottleneck_.bias.fill_(-1e3)  # units that nothing can wake
    model.save(tmp_path / "blind")
    made = runs.predict_run(tmp_path / "blind", birds[:1])
    assert [(row["class"], row["note"]) for row in made.to_json()["predictions"]] == [(None, "no evidence")]


def test_new_pictures_are_compared_with_those_of_training(trained, output: Path, birds, tmp_path: Path) -> None:
    same = runs.compare_data_run(output, images=str(birds[0].parent))
    assert (same.n_before, same.n_now) == (120, 6)
    assert same.active_before <= 8
    (tmp_path / "fog").mkdir()
    rng = np.random.default_rng(0)
    for i in range(8):
        pixels = 120 + rng.integers(0, 40, size=(64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "fog" / f"{i}.png")
    fog = runs.compare_data_run(output, images=str(tmp_path / "fog"), plot=tmp_path / "drift.png")
    assert len(fog.drifted) > max(5, len(same.drifted))
    assert fog.concepts[0].size == max(row.size for row in fog.concepts)
    assert Image.open(tmp_path / "drift.png").size[0] > 600
    assert json.loads(json.dumps(fog.to_json()))["concepts"][0]["drifted"]
    with pytest.raises(InputError, match="either pictures"):
        runs.compare_data_run(output)
    old = runs.load_model(output).classifier
    del old.metadata_["usage"]
    old.save(tmp_path / "old")
    with pytest.raises(InputError, match="does not hold the statistics"):
        runs.compare_data_run(tmp_path / "old", images=str(birds[0]))


def test_explain_adds_up_to_the_scores(trained, output: Path, birds: list[Path], tmp_path: Path) -> None:
    result = runs.explain_run(output, birds)
    stored = runs.load_model(output)
    vectors = runs.model_encoder(stored).encode_images([Image.open(path) for path in birds])
    scores = stored.classifier.logits(vectors)
    for ledger, row in zip(result.shown, scores):
        assert ledger.score == pytest.approx(row.max(), abs=1e-6)
    names = stored.class_names
    pair = runs.explain_run(output, birds[:1], target=names[3], against=names[5]).shown[0]
    assert pair.score == pytest.approx(scores[0, 3] - scores[0, 5], abs=1e-6)
    drawn = runs.plot_ledgers(result, tmp_path / "drawn")
    assert [path.name for path in drawn] == [f"{i:03d}-bird{i}.png" for i in range(6)]
    assert all(Image.open(path).size[0] > 600 for path in drawn)
    with pytest.raises(InputError, match=r"unknown class 'Farrow joy'.*did you mean 'Farrow jay'"):
        runs.explain_run(output, birds[:1], target="Farrow joy")


def test_report_is_rewritten(trained, output: Path, tmp_path: Path) -> None:
    (tmp_path / ".page.html.a1b2c3d4.tmp").write_text("of a killed run")
    result = runs.report_run(output, output=tmp_path / "page.html", examples=2, max_images=40)
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert result.path.read_text().count("<article") == 2
    assert result.bytes == result.path.stat().st_size


def test_unreadable_pictures_are_named_or_skipped(trained, output: Path, birds: list[Path]) -> None:
    whole = birds[2].read_bytes()
    birds[2].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"bird2\.png"):
        runs.predict_run(output, birds)
    result = runs.predict_run(output, birds, on_error="skip")
    assert len(result.predictions) == 5
    assert [Path(name).name for name, _ in result.skipped] == ["bird2.png"]
    with pytest.raises(InputError, match=r"there is no picture .*nowhere\.png"):
        runs.predict_run(output, ["nowhere.png"])
    empty = birds[0].parent / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds no picture"):
        runs.predict_run(output, [empty])


def test_another_encoder_is_refused(trained, output: Path, birds: list[Path], tmp_path: Path) -> None:
    from sparsecbm.encoders import BUNDLED_FOLDER

    copy = tmp_path / "encoder"
    shutil.copytree(BUNDLED_FOLDER, copy)
    assert runs.predict_run(output, birds[:1], encoder=f"open_clip:local-dir:{copy}").predictions
    config = json.loads((copy / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (copy / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"is not the one that model .* was trained on: fingerprint"):
        runs.predict_run(output, birds[:1], encoder=f"open_clip:local-dir:{copy}")


def test_damaged_models_are_refused(trained, output: Path, birds: list[Path], tmp_path: Path) -> None:
    def copied(name: str) -> Path:
        shutil.copytree(output / "model", tmp_path / name)
        return tmp_path / name

    missing = copied("missing")
    (missing / "model.safetensors").unlink()
    tampered = copied("tampered")
    data = bytearray((tampered / "model.safetensors").read_bytes())
    data[-3] ^= 1
    (tampered / "model.safetensors").write_bytes(data)
    foreign = copied("foreign")
    (foreign / "config.json").write_text('{"model_type": "clip"}')
    (tmp_path / "empty").mkdir()
    for path, match in (
        (missing, "has no model.safetensors"),
        (tampered, "does not match the checksum"),
        (foreign, "does not describe a sparsecbm model"),
        (tmp_path / "empty", "holds no model"),
        (tmp_path / "none", "there is no model"),
        (birds[0], "is a file"),
    ):
        with pytest.raises(StoredFileError, match=match):
            runs.predict_run(path, birds[:1])


def test_an_output_that_cannot_be_written_is_said_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoredFileError, match="choose another with --output"):
        runs.train_run(load_config("birds_gumbel", [f"output={tmp_path / 'file' / 'out'}"]))


def test_files_that_no_run_wrote_are_never_overwritten(trained, output: Path, tmp_path: Path) -> None:
    mine = tmp_path / "project"
    (mine / "model").mkdir(parents=True)
    (mine / "model" / "thesis.txt").write_text("years of work")
    (mine / "config.yaml").write_text("seed: 1\n")
    with pytest.raises(StoredFileError, match=r"holds model, config\.yaml, which no earlier run wrote"):
        runs.train_run(load_config("birds_gumbel", [f"output={mine}"]))
    assert (mine / "model" / "thesis.txt").read_text() == "years of work"
    # Folders of earlier runs may be written again, and what lies in checkpoint/ beside the checkpoint stays.
    again = tmp_path / "again"
    shutil.copytree(output, again)
    (again / "checkpoint").mkdir()
    (again / "checkpoint" / "notes.txt").write_text("mine")
    runs.train_run(load_config(output / "config.yaml", [f"output={again}", "model.max_iter=20"]))
    assert [path.name for path in (again / "checkpoint").iterdir()] == ["notes.txt"]


def test_interrupted_training_resumes_to_the_same_model(
    trained: runs.TrainResult, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsecbm._base import checkpoint

    config = load_config(output / "config.yaml", [f"output={tmp_path / 'cut'}", "model.max_iter=240"])
    whole = runs.train_run(config.model_copy(update={"output": str(tmp_path / "whole")}))
    saved = []
    save = checkpoint.save_state

    def save_and_stop(*args, **kwargs):
        save(*args, **kwargs)
        saved.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save_state", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        runs.train_run(config)
    assert saved
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["checkpoint"]
    monkeypatch.setattr(checkpoint, "save_state", save)
    # What a kill in the middle of a write leaves goes too.
    for name in ("checkpoint/.training.safetensors.a1b2c3d4.tmp", ".metrics.json.a1b2c3d4.tmp"):
        (tmp_path / "cut" / name).write_text("half")
    (tmp_path / "cut" / ".model.a1b2c3d4.tmp" / "new").mkdir(parents=True)
    resumed = runs.train_run(config)
    names = sorted(path.name for path in (tmp_path / "cut").iterdir())
    assert names == ["config.yaml", "metrics.json", "model", "report.html"]
    assert (resumed.model / "model.safetensors").read_bytes() == (whole.model / "model.safetensors").read_bytes()


def test_a_failure_while_publishing_leaves_the_old_model_whole(
    trained, output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sparsecbm.estimators import SparseCBMClassifier

    target = tmp_path / "out"
    shutil.copytree(output, target)

    def full_disk(self, path):
        Path(path).mkdir()
        (Path(path) / "model.safetensors").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SparseCBMClassifier, "save", full_disk)
    with pytest.raises(StoredFileError, match="No space left on device"):
        runs.train_run(load_config(output / "config.yaml", [f"output={target}", "seed=1"]))
    monkeypatch.undo()
    assert runs.load_model(target).classifier.classes_.shape == (20,)
    assert not [path for path in target.iterdir() if path.name.startswith(".")]


# -- vectors made elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture
def vectors(tmp_path: Path, rng: np.random.Generator) -> dict[str, str]:
    centres = rng.normal(size=(4, 16))

    def unit(rows: np.ndarray) -> np.ndarray:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    arrays = {}
    for split, n in (("train", 80), ("test", 40)):
        labels = np.arange(n) % 4
        arrays[f"{split}_images"] = unit(centres[labels] + 0.3 * rng.normal(size=(n, 16)))
        arrays[f"{split}_labels"] = labels
    np.savez(tmp_path / "v.npz", **arrays, class_names=np.array(["ant", "bee", "cat", "dog"]))
    np.savez(
        tmp_path / "c.npz", embeddings=unit(rng.normal(size=(12, 16))), names=np.array([f"word {j}" for j in range(12)])
    )
    return {"path": str(tmp_path / "v.npz"), "concepts": str(tmp_path / "c.npz")}


def own(vectors: dict[str, str], tmp_path: Path, **changes) -> RunConfig:
    values = {
        "embeddings": {**vectors, **changes},
        "model": {"max_active_concepts": 6, "max_iter": 60},
        "output": str(tmp_path / "own"),
    }
    return build_config(values)


def test_own_embeddings(vectors, tmp_path: Path) -> None:
    result = runs.train_run(own(vectors, tmp_path))
    assert result.metrics["test"]["accuracy"] > 0.5
    assert result.metrics["test"]["linear_probe"] > 0.8
    assert "concept_auc" not in result.metrics["test"]
    assert (result.output / "report.html").read_text().count("<article") == 12
    again = runs.evaluate_run(result.output, embeddings=vectors["path"], controls=False).metrics
    assert again["accuracy"] == result.metrics["test"]["accuracy"]
    with pytest.raises(InputError, match="nothing to embed"):
        runs.embed_run(own(vectors, tmp_path))


def test_own_embeddings_refusals(vectors, tmp_path: Path, rng: np.random.Generator) -> None:
    def concepts(**arrays) -> str:
        path = tmp_path / f"bad{len(list(tmp_path.iterdir()))}.npz"
        np.savez(path, **arrays)
        return str(path)

    names = np.array(["a", "b"])
    for path, match in (
        (concepts(embeddings=np.eye(2, 8), names=names), "images have 16 dimensions and concepts 8"),
        (concepts(embeddings=np.zeros((2, 16)), names=names), r"embeddings: row 0 \('a'\) is a zero vector"),
        (concepts(embeddings=np.eye(3, 16), names=names), r"shape \(3, 16\) and there are 2 names"),
        (concepts(embedings=np.eye(2, 16), names=names), "did you mean 'embedings'"),
        (str(tmp_path / "v.npy"), "cannot read concept embeddings"),
    ):
        with pytest.raises(InputError, match=match):
            runs.train_run(own(vectors, tmp_path, concepts=path))
    with pytest.raises(InputError, match=r"unknown split 'tran'.*did you mean 'train'"):
        runs.train_run(own(vectors, tmp_path, train="tran"))


def test_other_classes_are_refused(vectors, tmp_path: Path) -> None:
    result = runs.train_run(own(vectors, tmp_path))
    with np.load(vectors["path"]) as stored:
        arrays = {key: stored[key] for key in stored.files}
    arrays["class_names"] = np.array(["ant", "cat", "bee", "dog"])
    np.savez(tmp_path / "other.npz", **arrays)
    with pytest.raises(InputError, match=r"class 1 is 'cat'.*'bee' in the model"):
        runs.evaluate_run(result.output, embeddings=tmp_path / "other.npz")


# -- stand-ins of the hub's layout -------------------------------------------------------------------------------------

HUB = [name for name, path in builtin_configs().items() if "spec: hub:" in path.read_text()]


@pytest.mark.parametrize("name", HUB)
def test_hub_configs_train_on_a_stand_in_of_the_same_layout(name: str, tmp_path: Path) -> None:
    """The same columns and official splits as on the hub, a few painted birds as pictures, the bundled encoder."""
    config = load_config(name)
    _write_stand_in(tmp_path / "data", config)
    overrides = [
        f"images.spec=hub:{tmp_path / 'data'}",
        "encoder.spec=bundled",
        "model.max_iter=20",
        "model.max_active_concepts=4",
        # The small encoder's texts lie closer together than a large one's; the thresholds are the large one's.
        "concepts.filters.max_mutual_similarity=null",
        "concepts.filters.max_class_similarity=null",
        "evaluation.examples=2",
        "evaluation.control=false",
        "evaluation.baseline=false",
        f"output={tmp_path / 'out'}",
    ]
    result = runs.train_run(load_config(name, overrides))
    assert result.metrics["classes"] == 3
    assert result.metrics["test"]["n_images"] >= 3
    splits = result.metrics["images"]
    assert sum(splits.values()) == (36 if name == "places365" else 48)


def _write_stand_in(folder: Path, config: RunConfig) -> None:
    from datasets import ClassLabel, Dataset, Features
    from datasets import Image as ImageFeature

    from sparsecbm.data.birds import BirdImages

    image, label = config.images.image_column or "image", config.images.label_column or "label"
    features = Features({image: ImageFeature(), label: ClassLabel(names=["ant", "bee", "cat"])})
    held_out = (config.images.splits or {}).get("test", "test")
    sizes = {"train": 36} if config.name == "places365" else {"train": 36, held_out: 12}
    birds = BirdImages("train", n_images=48)
    (folder / "data").mkdir(parents=True)
    start = 0
    for split, n in sizes.items():
        rows = {image: [birds[start + i] for i in range(n)], label: [i % 3 for i in range(n)]}
        table = Dataset.from_dict(rows, features=features)
        table.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))
        start += n


def test_embed_run_is_a_hit_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path / "cache"))
    config = load_config("birds_gumbel", SMALL)
    first = runs.embed_run(config)
    assert {name: row["images"] for name, row in first.splits.items()} == {"train": 200, "validation": 60, "test": 120}
    from sparsecbm.encoders.base import Encoder

    def encoded(*args, **kwargs):
        raise AssertionError("the encoder was called although everything is stored")

    monkeypatch.setattr(Encoder, "_forward", encoded)
    second = runs.embed_run(config)
    assert second.concepts == 31
    assert second.fingerprint == first.fingerprint


def test_info_names_what_can_be_chosen() -> None:
    info = runs.info_run().to_json()
    assert "birds_gumbel" in info["configs"]
    assert set(info["choices"]["losses"]) == {"gumbel", "contrastive", "l1", "similarity", "none"}
    json.dumps(info)
