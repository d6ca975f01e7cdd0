"""A hundred malformed inputs of each kind: a hundred clear errors, and not a file touched."""

from __future__ import annotations

import hashlib
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import malformed
import numpy as np
import pytest

from sparsecbm._errors import InputError
from sparsecbm.cli import main
from sparsecbm.concepts import ConceptSet
from sparsecbm.config import load_config
from sparsecbm.data.decode import UndecodableError, decode_image
from sparsecbm.embeddings import load_embeddings


def contents(folder: Path) -> dict[str, str]:
    """Every file of a folder with its checksum."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def check(cases: list[malformed.Case], folder: Path, load: Callable[[Path], object]) -> None:
    """Write each input, load it, and look at what came out; all that went wrong is told together."""
    wrong = []
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, file, data in cases:
        path = folder / file
        kept = path.read_bytes() if path.exists() else None
        path.write_bytes(data)
        before = contents(folder)
        try:
            load(path)
            wrong.append(f"{name}: no error")
        except (InputError, UndecodableError) as error:
            text = str(error)
            if "\n" in text or not 8 <= len(text) <= 700:
                wrong.append(f"{name}: {text!r}")
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
        if contents(folder) != before:
            wrong.append(f"{name}: files changed")
        path.unlink() if kept is None else path.write_bytes(kept)
    assert not wrong, "\n".join(wrong)
    assert len(cases) == malformed.COUNT
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < 700  # MiB: no bomb went off


def test_configurations(tmp_path: Path) -> None:
    check(malformed.first(malformed.configs()), tmp_path, load_config)


def test_concept_files(tmp_path: Path) -> None:
    check(malformed.first(malformed.concepts()), tmp_path, ConceptSet.from_file)


def test_embeddings(tmp_path: Path) -> None:
    check(malformed.first(malformed.embeddings()), tmp_path, lambda path: load_embeddings(path, "train"))


def test_pictures(tmp_path: Path) -> None:
    check(malformed.first(malformed.pictures()), tmp_path, lambda path: decode_image(path.read_bytes()))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from sparsecbm.estimators import SparseCBMClassifier

    rng = np.random.default_rng(0)
    y = np.arange(60) % 3
    X = np.eye(3)[y] @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(60, 6))
    folder = tmp_path_factory.mktemp("model")
    SparseCBMClassifier(rng.normal(size=(5, 6)), max_iter=2, device="cpu", random_state=0).fit(X, y).save(folder)
    return folder


def test_models(model: Path) -> None:
    from sparsecbm.estimators import SparseCBMClassifier

    arrays = (model / "model.safetensors").read_bytes()
    cases = malformed.models((model / "config.json").read_bytes(), arrays)
    check(malformed.first(cases), model, lambda path: SparseCBMClassifier.load(path.parent))
    SparseCBMClassifier.load(model)  # the good one still is


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and what stood on stderr."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0), capsys.readouterr().err


def test_the_command_says_one_line_and_a_traceback_only_with_debug(tmp_path: Path, model: Path, capsys) -> None:
    commands = []
    for kind, command in (("configs", "embed"), ("concepts", "concepts check")):
        for name, file, data in malformed.first(getattr(malformed, kind)())[::9]:
            folder = tmp_path / kind / str(len(commands))
            folder.mkdir(parents=True)
            (folder / file).write_bytes(data)
            commands.append((name, folder, [*command.split(), str(folder / file)]))
    for name, file, data in malformed.first(malformed.pictures())[::25]:
        folder = tmp_path / "pictures" / str(len(commands))
        folder.mkdir(parents=True)
        (folder / f"{file}.png").write_bytes(data)
        commands.append((name, folder, ["predict", str(model), str(folder / f"{file}.png"), "--encoder", "bundled"]))
    for name, folder, words in commands:
        before = contents(folder)
        code, said = run(capsys, *words)
        assert (code, said.count("\n")) == (2, 1), (name, said)
        assert said.startswith("error: "), (name, said)
        assert contents(folder) == before
    with pytest.raises(InputError):  # the whole traceback, by the interpreter
        main([*commands[0][2], "--debug"])


# -- what lies around a file -------------------------------------------------------------------------------------------


def test_devices_and_pipes_are_no_files(tmp_path: Path) -> None:
    import os

    for suffix, load in (
        (".json", ConceptSet.from_file),
        (".yaml", load_config),
        (".npz", lambda path: load_embeddings(path, "train")),
        (".safetensors", lambda path: load_embeddings(path, "train")),
        (".parquet", lambda path: load_embeddings(path, "train")),
    ):
        pipe, device = tmp_path / f"pipe{suffix}", tmp_path / f"device{suffix}"
        os.mkfifo(pipe)
        device.symlink_to("/dev/zero")
        for path in (pipe, device):
            with pytest.raises(InputError):
                load(path)


def test_a_model_reads_nothing_outside_its_folder(model: Path, tmp_path: Path) -> None:
    import shutil

    from sparsecbm.estimators import SparseCBMClassifier

    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("config.json", "model.safetensors"):
        (linked / name).symlink_to(model / name)
    with pytest.raises(InputError, match="link out of its folder"):
        SparseCBMClassifier.load(linked)
    # The Hugging Face cache links from snapshots to blobs, within one repository.
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(model / name, blobs / name)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", name))
    SparseCBMClassifier.load(snapshot)


@pytest.mark.parametrize(
    "path", ["/etc/hostname", "../secret.png", "http://127.0.0.1:9/a.png", "zip://a.png::../a.zip"]
)
def test_a_table_of_pictures_names_no_file_outside_its_folder(path: str, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet
    from PIL import Image

    from sparsecbm.data import load_images

    folder = tmp_path / "data"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(folder / "own.png")
    own = [str(folder / "own.png"), "own.png", f"zip://in.png::{folder / 'a.zip'}", "zip://in.png::a.zip"]
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(folder / "own.png", "in.png")
    cells = [{"bytes": None, "path": name} for name in (path, *own)]
    pictures = pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    parquet.write_table(pa.table({"image": pictures, "label": [0, 1, 0, 1, 0]}), folder / "a.parquet")
    images = load_images(f"parquet:{folder}", "all")
    assert [images[row].getpixel((0, 0)) for row in range(1, 5)] == [(9, 9, 9)] * 4
    with pytest.raises(InputError, match=r"outside the data set's|is an address"):
        images[0]


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_an_encoder_larger_than_its_weights_gets_no_memory(kind: str, tmp_path: Path) -> None:
    import json

    from tiny_models import save_open_clip, save_transformers

    from sparsecbm.encoders import load_encoder

    if kind == "open_clip":
        folder, file = save_open_clip(tmp_path / "m"), "open_clip_config.json"
        spec, text = f"open_clip:local-dir:{folder}", ("model_cfg", "text_cfg")
    else:
        folder, file = save_transformers("clip", tmp_path / "m"), "config.json"
        spec, text = f"transformers:{folder}", ("text_config",)
    good = json.loads((folder / file).read_text())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for key, value, words in (("vocab_size", 10**9, "declares"), ("layers", 10**9, "layers")):
        tree = part = json.loads(json.dumps(good))
        for name in text:
            part = part[name]
        part["num_hidden_layers" if kind == "transformers" and key == "layers" else key] = value
        (folder / file).write_text(json.dumps(tree))
        with pytest.raises(InputError, match=words):
            load_encoder(spec, device="cpu")
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024 < 500


def test_a_vae_larger_than_its_weights_gets_no_memory(tmp_path: Path) -> None:
    import json

    from sparsecbm.vae.model import DiscreteVAE
    from sparsecbm.vae.storage import load_vae, save_vae

    save_vae(tmp_path, DiscreteVAE(16, groups=[4, 4], hidden=[5]))
    assert load_vae(tmp_path).n_pixels == 16
    described = json.loads((tmp_path / "model.json").read_text())
    for key, value in (("n_pixels", 10**9), ("hidden", [10**7, 10**7]), ("groups", [10**6, 10**6]), ("latents", "x")):
        changed = described | {"options": described["options"] | {key: value}}
        (tmp_path / "model.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="damaged or foreign"):
            load_vae(tmp_path)
