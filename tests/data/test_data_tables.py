"""hub: and parquet:, on files in the hub's layout written here, and on real CIFAR-10 pictures where at hand."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from sparsecbm import load_images
from sparsecbm._base.errors import InputError, StoredFileError

NAMES = ["ant", "bee", "cow"]
FEATURES = {"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}


def rows(encoded: Callable[..., bytes], n: int, seed: int = 0) -> dict:
    return {
        "img": [{"bytes": encoded(seed + i), "path": f"{i}.png"} for i in range(n)],
        "label": [i % 3 for i in range(n)],
    }


@pytest.fixture
def repository(tmp_path: Path, encoded: Callable[..., bytes], write_parquet: Callable[..., None]) -> Path:
    """A folder in the layout of a hub repository: two shards of train, one of test."""
    root = tmp_path / "repo"
    write_parquet(root / "data" / "train-00000-of-00002.parquet", rows(encoded, 30), FEATURES)
    write_parquet(root / "data" / "train-00001-of-00002.parquet", rows(encoded, 30, 100), FEATURES)
    write_parquet(root / "data" / "test-00000-of-00001.parquet", rows(encoded, 9, 200), FEATURES)
    return root


@pytest.mark.parametrize("kind", ["hub", "parquet"])
def test_hub_layout_with_official_test_and_carved_validation(repository: Path, kind: str, encoded: Callable) -> None:
    spec = f"hub:{repository}" if kind == "hub" else f"parquet:{repository}/data/*.parquet"
    train, val, test = (load_images(spec, split) for split in ("train", "validation", "test"))
    assert (len(train), len(val), len(test)) == (54, 6, 9)
    assert train.class_names == tuple(NAMES)
    assert not set(train.ids) & set(val.ids)
    assert set(train.ids) | set(val.ids) == {f"train/{i}" for i in range(60)}
    assert test.ids == [f"test/{i}" for i in range(9)]
    assert np.bincount(val.labels).tolist() == [2, 2, 2]
    with Image.open(io.BytesIO(encoded(203))) as expected:
        assert np.array_equal(np.asarray(test[3]), np.asarray(expected))
    last = train.ids.index("train/59")  # a row of the second shard
    with Image.open(io.BytesIO(encoded(129))) as expected:
        assert np.array_equal(np.asarray(train[last]), np.asarray(expected))


def test_fingerprint_does_not_depend_on_the_container(repository: Path, tmp_path: Path, encoded: Callable) -> None:
    (tmp_path / "flat").mkdir()
    for i in range(9):
        (tmp_path / "flat" / f"{i}.png").write_bytes(encoded(200 + i))
    of_files = load_images(f"folder:{tmp_path / 'flat'}", "all").fingerprint
    assert load_images(f"hub:{repository}", "test").fingerprint == of_files
    assert load_images(f"parquet:{repository}", "test").fingerprint == of_files
    assert load_images(f"parquet:{repository}", "train").fingerprint != of_files


def test_an_edited_file_is_read_afresh(repository: Path, encoded: Callable, write_parquet: Callable) -> None:
    before = load_images(f"parquet:{repository}", "test").fingerprint
    path = repository / "data" / "test-00000-of-00001.parquet"
    write_parquet(path, rows(encoded, 9, 300), FEATURES)
    os.utime(path, (1, 1))
    assert load_images(f"parquet:{repository}", "test").fingerprint != before


def test_splits_told_by_file_and_folder_names(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    write_parquet(tmp_path / "x" / "train" / "0000.parquet", rows(encoded, 30), FEATURES)
    write_parquet(tmp_path / "x" / "val.parquet", rows(encoded, 6, 50), FEATURES)
    write_parquet(tmp_path / "x" / "extra-00000-of-00001.parquet", rows(encoded, 4, 90), FEATURES)
    assert [len(load_images(f"parquet:{tmp_path / 'x'}", s)) for s in ("train", "val", "test", "extra")] == [
        24,
        6,
        6,
        4,
    ]


def test_one_file_of_any_name_is_split_three_ways(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    path = tmp_path / "my [pictures]" / "photos.parquet"
    write_parquet(path, rows(encoded, 30), FEATURES)
    spec = f"parquet:{path.parent}"
    parts = [load_images(spec, split) for split in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [21, 3, 6]
    assert len(set().union(*(part.ids for part in parts))) == 30
    write_parquet(tmp_path / "my [pictures]" / "test.parquet", rows(encoded, 3), FEATURES)
    with pytest.raises(InputError, match=r"cannot tell the split of .*photos\.parquet"):
        load_images(spec)


def test_columns_without_metadata_are_told_by_their_storage(
    tmp_path: Path, encoded: Callable, write_parquet: Callable
) -> None:
    table = rows(encoded, 30)
    table["label"] = [("cow", "ant", "bee")[i % 3] for i in range(30)]
    write_parquet(tmp_path / "a" / "photos.parquet", table)  # a bare struct {bytes, path}, and text
    source = load_images(f"parquet:{tmp_path / 'a'}", "all")
    assert source.class_names == ("ant", "bee", "cow")
    assert source.labels[:4].tolist() == [2, 0, 1, 2]
    assert source[0].size == (12, 10)
    bare = {"photo": [cell["bytes"] for cell in table["img"]], "label": [10 * (i % 3) for i in range(30)]}
    write_parquet(tmp_path / "b" / "photos.parquet", bare)  # bare bytes, and numbers with gaps
    again = load_images(f"parquet:{tmp_path / 'b'}", "all")
    assert again.class_names == ("0", "10", "20")
    assert again.labels[:4].tolist() == [0, 1, 2, 0]
    assert again.fingerprint == source.fingerprint


def test_ambiguous_columns_list_the_candidates(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    table = rows(encoded, 30)
    fine, coarse = datasets.ClassLabel(names=NAMES), datasets.ClassLabel(names=["x", "y", "z"])
    table = {"img": table["img"], "fine_label": table["label"], "coarse_label": table["label"][::-1]}
    features = {"img": datasets.Image(), "fine_label": fine, "coarse_label": coarse}
    write_parquet(tmp_path / "train.parquet", table, features)
    spec = f"parquet:{tmp_path}/*.parquet"
    with pytest.raises(InputError, match=r"choose one of 'fine_label', 'coarse_label' by label_column"):
        load_images(spec)
    source = load_images(spec, label_column="coarse_label")
    assert source.class_names == ("x", "y", "z")
    with pytest.raises(InputError, match="did you mean 'fine_label'"):
        load_images(spec, label_column="fine_labels")
    with pytest.raises(InputError, match=r"image_column='fine_label' .* candidates are 'img'"):
        load_images(spec, image_column="fine_label", label_column="fine_label")


def test_a_table_without_pictures_lists_its_columns(tmp_path: Path, write_parquet: Callable) -> None:
    write_parquet(tmp_path / "train.parquet", {"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(InputError, match=r"no column of pictures; its columns are text \(string\), label \(int64\)"):
        load_images(f"parquet:{tmp_path}/*.parquet")


def test_an_identifier_is_not_taken_for_a_label(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    table = {"img": rows(encoded, 9)["img"], "filename": [f"{i}.png" for i in range(9)]}
    write_parquet(tmp_path / "train.parquet", table)
    with pytest.raises(InputError, match="name one of 'filename' by label_column"):
        load_images(f"parquet:{tmp_path}/*.parquet")
    assert load_images(f"parquet:{tmp_path}/*.parquet", "all", label_column="filename").labels.tolist() == list(
        range(9)
    )


def test_secret_and_impossible_labels(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    write_parquet(tmp_path / "train-00000-of-00001.parquet", rows(encoded, 30), FEATURES)
    secret = rows(encoded, 6) | {"label": [-1] * 6}
    write_parquet(tmp_path / "test-00000-of-00001.parquet", secret, FEATURES)
    spec = f"parquet:{tmp_path}/*.parquet"
    test = load_images(spec, "test")
    assert test.labels is None
    assert test.class_names == tuple(NAMES)
    plain = rows(encoded, 6) | {"label": [0, 1, 2, 0, 1, 7]}
    write_parquet(tmp_path / "test-00000-of-00001.parquet", plain)
    os.utime(tmp_path / "test-00000-of-00001.parquet", (1, 1))
    with pytest.raises((InputError, StoredFileError), match="7"):
        load_images(spec, "test")
    half = rows(encoded, 6) | {"label": [0, 1, 2, 0, 1, -1]}
    write_parquet(tmp_path / "test-00000-of-00001.parquet", half, FEATURES)
    os.utime(tmp_path / "test-00000-of-00001.parquet", (2, 2))
    with pytest.raises(InputError, match=r"label -1 of picture 'test/5' .* expected 0\.\.2"):
        load_images(spec, "test")
    none = rows(encoded, 6) | {"label": [0, 1, 2, 0, None, 1]}
    write_parquet(tmp_path / "test-00000-of-00001.parquet", none, FEATURES)
    os.utime(tmp_path / "test-00000-of-00001.parquet", (3, 3))
    with pytest.raises(InputError, match=r"'test/4' .* has no label"):
        load_images(spec, "test")


def test_damaged_rows_are_named_or_skipped(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    table = rows(encoded, 30)
    table["img"][4]["bytes"] = table["img"][4]["bytes"][:40]
    table["img"][8] = None
    table["img"][9] = {"bytes": None, "path": "somewhere/else.png"}
    write_parquet(tmp_path / "train.parquet", table, FEATURES)
    spec = f"parquet:{tmp_path}/*.parquet"
    source = load_images(spec, "all")
    assert len(source) == 30
    for i in (4, 8, 9):
        with pytest.raises(InputError, match=f"'train/{i}'"):
            source[i]
    skipping = load_images(spec, "all", on_error="skip")
    assert [name for name, _ in skipping.skipped] == ["train/4", "train/8", "train/9"]
    assert len(skipping) == len(skipping.labels) == len(skipping.ids) == 27
    assert skipping.labels.tolist() == [i % 3 for i in range(30) if i not in (4, 8, 9)]


def test_files_that_are_no_parquet(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(StoredFileError, match="no parquet file") as error:
        load_images(f"parquet:{tmp_path}/*.parquet")
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # the one line is the error's; `datasets` logs its own otherwise
    with pytest.raises(InputError, match="no parquet file matches"):
        load_images(f"parquet:{tmp_path}/*.parq")


def test_hub_folder_of_class_folders(class_folders: Path) -> None:
    source = load_images(f"hub:{class_folders}", "all")  # datasets' imagefolder: paths instead of bytes
    assert len(source) == 30
    assert source.fingerprint == load_images(f"folder:{class_folders}", "all").fingerprint


def test_no_network_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        InputError, match=r"cannot load 'hub:some/where': .*the hub is out of reach.*parquet:GLOB"
    ) as error:
        load_images("hub:some/where")
    assert "\n" not in str(error.value)


def test_missing_configuration_is_named(repository: Path) -> None:
    with pytest.raises(InputError, match="nonsense"):
        load_images(f"hub:{repository}:nonsense")


def test_configurations_of_a_hub_layout(tmp_path: Path, encoded: Callable, write_parquet: Callable) -> None:
    root = tmp_path / "re:po"
    card = ["---", "configs:"]
    for name, n in {"small": 30, "large": 60}.items():
        write_parquet(root / name / "train-00000-of-00001.parquet", rows(encoded, n), FEATURES)
        card += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/*.parquet"]
    (root / "README.md").write_text("\n".join([*card, "---", ""]))
    assert len(load_images(f"hub:{root}:small", "all")) == 30
    assert len(load_images(f"hub:{root}:large", "all")) == 60
    with pytest.raises(InputError, match=r"available configs.*'small'") as error:
        load_images(f"hub:{root}")
    assert "\n" not in str(error.value)


def test_datasets_is_not_imported_before_it_is_needed() -> None:
    code = (
        "import sys; from sparsecbm import load_images; load_images('birds', 'test'); print('datasets' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_sources_travel_to_other_processes(repository: Path, class_folders: Path) -> None:
    for spec in (f"parquet:{repository}", f"folder:{class_folders}"):
        source = load_images(spec, "train")
        copy = pickle.loads(pickle.dumps(source))
        assert copy.ids == source.ids
        assert np.array_equal(np.asarray(copy[3]), np.asarray(source[3]))


@pytest.fixture
def cifar(data_dir: Path) -> str:
    if not (data_dir / "cifar10_subset").is_dir():
        pytest.skip(f"{data_dir} has no cifar10_subset/: the real CIFAR-10 pictures are not here")
    return f"parquet:{data_dir}/cifar10_subset/*.parquet"


def test_real_cifar_pictures(cifar: str) -> None:
    parts = {split: load_images(cifar, split) for split in ("train", "validation", "test")}
    assert [len(part) for part in parts.values()] == [4500, 500, 1000]
    assert parts["test"].class_names[:3] == ("airplane", "automobile", "bird")
    assert not set(parts["train"].ids) & set(parts["validation"].ids)
    shares = np.bincount(parts["validation"].labels) / np.bincount(parts["train"].labels)
    assert np.allclose(shares, 1 / 9, atol=0.01)
    some = load_images(cifar, "train", max_images=50, on_error="skip")
    assert np.bincount(some.labels).min() >= 4
    assert not some.skipped
    assert some[0].size == (32, 32)
