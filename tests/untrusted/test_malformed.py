"""A hundred malformed inputs of each kind: a hundred clear errors, and not a file touched."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path

import malformed
import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.cli import main
from sparsecbm.concepts import ConceptSet
from sparsecbm.config.reading import load_config
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


def publish(folder: Path, cache: Path, repo: str) -> Path:
    """Put a folder into a Hugging Face cache as a download would, with links to blobs; returns the blobs' folder."""
    import shutil

    base = cache / f"models--{repo.replace('/', '--')}"
    blobs, snapshot = base / "blobs", base / "snapshots" / ("0" * 40)
    for made in (blobs, snapshot, base / "refs"):
        made.mkdir(parents=True)
    (base / "refs" / "main").write_text("0" * 40)
    for file in folder.iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", file.name))
    return blobs


@pytest.mark.parametrize("kind", ["open_clip", "transformers"])
def test_an_encoder_of_the_hub_larger_than_its_weights_gets_no_memory(kind, tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants
    from tiny_models import save_open_clip, save_transformers

    from sparsecbm.encoders import load_encoder

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if kind == "open_clip":
        folder = save_open_clip(tmp_path / "m", own_tokenizer=False)
        file, part, spec = "open_clip_config.json", ("model_cfg", "text_cfg"), "open_clip:hf-hub:org/tiny"
    else:
        folder, file, part = save_transformers("clip", tmp_path / "m"), "config.json", ("text_config",)
        spec = "transformers:org/tiny"
    blobs = publish(folder, tmp_path / "cache", "org/tiny")
    assert load_encoder(spec, device="cpu").embed_dim > 0
    tree = section = json.loads((blobs / file).read_text())
    for name in part:
        section = section[name]
    section["vocab_size"] = 10**9
    (blobs / file).write_text(json.dumps(tree))
    with pytest.raises(InputError, match=r"declares .* parameters"):
        load_encoder(spec, device="cpu")


def test_an_encoder_runs_no_code_of_its_folder(tmp_path: Path) -> None:
    """open_clip hands tokenizer_kwargs on to transformers, trust_remote_code among them: this once ran `evil.py`."""
    from tiny_models import save_open_clip

    from sparsecbm.encoders import load_encoder

    folder = save_open_clip(tmp_path / "m")
    described = json.loads((folder / "open_clip_config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer |= {"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "evil.py").write_text(
        f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
        "from transformers import PreTrainedTokenizerFast\nclass Evil(PreTrainedTokenizerFast): pass\n"
    )
    for options in ({"clean": "lower", "trust_remote_code": True}, {"clean": "lower"}):
        described["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = options
        (folder / "open_clip_config.json").write_text(json.dumps(described))
        if "trust_remote_code" in options:
            with pytest.raises(InputError, match="tokenizer_kwargs has 'trust_remote_code'"):
                load_encoder(f"open_clip:local-dir:{folder}", device="cpu")
        else:  # its class is foreign: transformers' own stands in for it, or it is refused
            with contextlib.suppress(InputError):
                load_encoder(f"open_clip:local-dir:{folder}", device="cpu")
        assert not (tmp_path / "ran").exists()


def test_an_encoder_reads_nothing_outside_its_folder(tmp_path: Path) -> None:
    from tiny_models import save_open_clip, save_transformers

    from sparsecbm.encoders import load_encoder

    folder, other = save_transformers("clip", tmp_path / "m"), tmp_path / "other.safetensors"
    spec = f"transformers:{folder}"
    (folder / "model.safetensors").rename(other)
    (folder / "model.safetensors").symlink_to(other)
    with pytest.raises(InputError, match="link out of its folder"):
        load_encoder(spec, device="cpu")
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {"logit_scale": "../other.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="no file beside it"):
        load_encoder(spec, device="cpu")
    folder = save_open_clip(tmp_path / "o")
    described = json.loads((folder / "open_clip_config.json").read_text())
    for part, key, value in (
        ("text_cfg", "hf_model_name", str(tmp_path / "m")),
        ("text_cfg", "hf_model_name", "../m"),
        ("vision_cfg", "timm_model_name", f"local-dir:{tmp_path}"),
    ):
        changed = json.loads(json.dumps(described))
        changed["model_cfg"][part][key] = value
        (folder / "open_clip_config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match=f"{part}.{key} is"):
            load_encoder(f"open_clip:local-dir:{folder}", device="cpu")


def test_an_encoder_blows_nothing_up(tmp_path: Path) -> None:
    """Compressed weights, and preprocessing that would make every picture gigabytes."""
    import torch
    from tiny_models import save_transformers

    from sparsecbm.encoders import load_encoder

    folder = save_transformers("clip", tmp_path / "m")
    spec = f"transformers:{folder}"
    good = (folder / "preprocessor_config.json").read_text()
    changed = json.loads(good) | {"crop_size": {"height": 10**6, "width": 10**6}}
    (folder / "preprocessor_config.json").write_text(json.dumps(changed))
    with pytest.raises(InputError, match="pictures of size 1,000,000"):
        load_encoder(spec, device="cpu")
    (folder / "preprocessor_config.json").write_text(good)
    torch.save({"logit_scale": torch.zeros(1)}, tmp_path / "stored.bin")
    with (
        zipfile.ZipFile(tmp_path / "stored.bin") as stored,
        zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for member in stored.infolist():
            packed.writestr(member.filename, stored.read(member))
    with pytest.raises(InputError, match="is compressed"):
        load_encoder(spec, device="cpu")
    with pytest.raises(InputError, match="is compressed"):
        load_encoder(f"open_clip:RN50/{folder / 'pytorch_model.bin'}", device="cpu")


@pytest.mark.parametrize("spec", ["parquet", "hub"])
def test_a_table_of_pictures_is_no_bomb(spec: str, tmp_path: Path) -> None:
    """One picture, stored once and counted 200,000 times: 300 kB that `datasets` would write out as 54 GB."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from sparsecbm.data import load_images

    picture = malformed.png(300, 300, np.random.default_rng(0).bytes(300 * 901))
    count = 200_000
    once = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([picture]))
    cells = pa.StructArray.from_arrays([once, pa.nulls(count, pa.string())], ["bytes", "path"])
    table = pa.table({"image": cells, "label": np.zeros(count, np.int64)})
    parquet.write_table(table, tmp_path / "train.parquet", dictionary_pagesize_limit=1 << 30)
    assert (tmp_path / "train.parquet").stat().st_size < 400_000
    with pytest.raises(InputError, match=r"would unfold to 5\d,\d{3},\d{3},\d{3}, a decompression bomb"):
        load_images(f"{spec}:{tmp_path}", "train")


def test_an_archive_of_a_data_set_is_no_bomb(tmp_path: Path) -> None:
    from sparsecbm.data import load_images

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.png", malformed.png(1, 1, bytes(4)))
    data = bytearray(packed.getvalue())
    place = data.index(b"PK\x01\x02") + 24  # the size that the directory declares
    data[place : place + 4] = (1 << 30).to_bytes(4, "little")
    (tmp_path / "train.zip").write_bytes(data)
    with pytest.raises(InputError, match="would unfold to 1,073,741,824, a decompression bomb"):
        load_images(f"hub:{tmp_path}", "train")


def test_a_picture_in_a_table_is_no_bomb(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    from sparsecbm.data import load_images

    cells = [
        malformed.png(60_000, 60_000),
        malformed.png(13_000, 13_000, bytes(13_000 * 390)),
        malformed.png(1, 1, bytes(4)),
    ]
    table = pa.table({"image": pa.array(cells, pa.binary()), "label": [0, 0, 0]})
    parquet.write_table(table, tmp_path / "a.parquet")
    images = load_images(f"parquet:{tmp_path}", "all", on_error="skip")
    assert [reason.split(" (")[0] for _, reason in images.skipped] == ["it is too large"] * 2
    assert images[0].size == (1, 1)


def test_a_vae_larger_than_its_weights_gets_no_memory(tmp_path: Path) -> None:
    from sparsecbm.vae.model import DiscreteVAE
    from sparsecbm.vae.storage import load_vae, save_vae

    save_vae(tmp_path, DiscreteVAE(16, groups=[4, 4], hidden=[5]))
    assert load_vae(tmp_path).n_pixels == 16
    described = json.loads((tmp_path / "config.json").read_text())
    for key, value in (("n_pixels", 10**9), ("hidden", [10**7, 10**7]), ("groups", [10**6, 10**6]), ("latents", "x")):
        changed = described | {"options": described["options"] | {key: value}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="does not hold together"):
            load_vae(tmp_path)
