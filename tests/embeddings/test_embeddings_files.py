"""Embeddings made elsewhere: what is read, and what is refused with which words."""

from __future__ import annotations

import doctest
import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file

from sparsecbm._base.errors import DataWarning, InputError, StoredFileError
from sparsecbm.embeddings import Embeddings, load_embeddings
from sparsecbm.embeddings import table as table_module

NAMES = ("cat", "dog", "red bird")


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def rows() -> np.ndarray:
    return _unit(np.random.default_rng(0).normal(size=(7, 5)))


LABELS = np.array([0, 2, 1, 1, 0, 2, 2])


def _npz(path: Path, rows, labels=LABELS, names=NAMES, split="train") -> Path:
    arrays = {f"{split}_images": rows}
    if labels is not None:
        arrays[f"{split}_labels"] = labels
    if names is not None:
        arrays["class_names"] = np.array(names)
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_npz_of_any_float_type_becomes_unit_float32(dtype, rows, tmp_path):
    table = load_embeddings(_npz(tmp_path / "a.npz", rows.astype(dtype)), "train")
    assert table.vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(table.vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(table.vectors, rows, atol=2e-3 if dtype == "float16" else 1e-6)
    assert table.labels.dtype == np.int64
    assert table.labels.tolist() == LABELS.tolist()
    assert table.class_names == NAMES


def test_safetensors_and_parquet_hold_the_same(rows, tmp_path):
    save_file(
        {"val_images": torch.tensor(rows).bfloat16(), "val_labels": torch.tensor(LABELS)},
        tmp_path / "a.safetensors",
        metadata={"class_names": json.dumps(NAMES)},
    )
    columns = {
        "embedding": [*rows.tolist(), *rows.tolist()],
        "label": [*LABELS.tolist(), *LABELS[::-1].tolist()],
        "split": ["val"] * 7 + ["test"] * 7,
    }
    table = pa.table(columns).replace_schema_metadata({"class_names": json.dumps(NAMES)})
    parquet.write_table(table, tmp_path / "a.parquet")
    for name, tolerance in (("a.safetensors", 1e-2), ("a.parquet", 1e-6)):
        table = load_embeddings(tmp_path / name, "val")
        np.testing.assert_allclose(table.vectors, rows, atol=tolerance)
        assert table.labels.tolist() == LABELS.tolist()
        assert table.class_names == NAMES
    assert load_embeddings(tmp_path / "a.parquet", "test").labels.tolist() == LABELS[::-1].tolist()
    with pytest.raises(InputError, match=r"unknown split 'tests'.*did you mean 'test'"):
        load_embeddings(tmp_path / "a.parquet", "tests")


def test_parquet_with_class_names_as_labels_and_no_split(rows, tmp_path):
    labels = [NAMES[label] for label in LABELS]
    parquet.write_table(pa.table({"embedding": rows.tolist(), "label": labels}), tmp_path / "a.parquet")
    table = load_embeddings(tmp_path / "a.parquet", "train")
    assert [table.class_names[label] for label in table.labels] == labels


def _both(folder: Path, arrays: dict, names: dict) -> list[Path]:
    """The same splits as .npz and as .safetensors; `names` go by key."""
    np.savez(folder / "a.npz", **arrays, **{key: np.array(held) for key, held in names.items()})
    tensors = {key: torch.tensor(held) for key, held in arrays.items()}
    save_file(tensors, folder / "a.safetensors", metadata={key: json.dumps(held) for key, held in names.items()})
    return [folder / "a.npz", folder / "a.safetensors"]


def test_splits_that_list_their_classes_apart_are_matched_by_name(rows, tmp_path):
    arrays = {"train_images": rows, "train_labels": LABELS, "test_images": rows[:2], "test_labels": np.array([0, 1])}
    for path in _both(tmp_path, arrays, {"train_class_names": NAMES, "test_class_names": ["dog", "Cat"]}):
        train, test = (load_embeddings(path, split) for split in ("train", "test"))
        assert train.class_names == test.class_names == NAMES
        assert (train.labels.tolist(), test.labels.tolist()) == (LABELS.tolist(), [1, 0])
    for path in _both(tmp_path, arrays, {"class_names": NAMES, "test_class_names": ["emu", "dog"]}):
        with pytest.warns(DataWarning, match="'emu'"):
            test = load_embeddings(path, "test")
        assert [test.class_names[label] for label in test.labels] == ["emu", "dog"]
        assert test.class_names[:3] == NAMES


@pytest.mark.parametrize("kind", [str, "S8", object])
def test_names_as_labels_are_numbered_over_all_splits(kind, rows, tmp_path):
    arrays = {"train_images": rows[:3], "test_images": rows[:2]}
    arrays |= {"train_labels": np.array(["dog", "cat", "emu"], kind), "test_labels": np.array(["emu", "dog"], kind)}
    np.savez(tmp_path / "a.npz", **arrays)
    if kind is object:
        with pytest.raises(StoredFileError, match="Python objects, which would have to be unpickled"):
            load_embeddings(tmp_path / "a.npz", "test")
        return
    train, test = (load_embeddings(tmp_path / "a.npz", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("cat", "dog", "emu")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 2], [2, 1])
    np.savez(tmp_path / "a.npz", **arrays, class_names=np.array(["emu", "Dog", "cat"], kind))
    assert load_embeddings(tmp_path / "a.npz", "train").labels.tolist() == [1, 2, 0]
    np.savez(tmp_path / "a.npz", **arrays, class_names=np.array(["emu", "dog"], kind))
    with pytest.raises(InputError, match="'cat'"):
        load_embeddings(tmp_path / "a.npz", "test")


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        (np.array([1.0, 0.0, 1.0]), [1, 0, 1], ()),
        (np.array([1, 0, 1], np.uint8), [1, 0, 1], ()),
        (np.array([True, False, True]), [1, 0, 1], ("False", "True")),
    ],
)
def test_labels_of_other_types(labels, numbers, names, rows, tmp_path):
    for path in _both(tmp_path, {"train_images": rows[:3], "train_labels": labels}, {}):
        table = load_embeddings(path, "train")
        assert (table.labels.tolist(), table.class_names) == (numbers, names)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (np.array([0.5, 1, 2]), "expected whole numbers"),
        (np.array([np.nan, 1, 2]), "expected whole numbers"),
        (np.array([[0], [1], [2]]), r"shape \(3, 1\): expected \(3,\)"),
        (np.array([["a"], ["b"], ["c"]]), r"<U1 of shape \(3, 1\): expected \(n,\)"),
        (np.array(["a", "", "c"]), "nothing visible"),
        (np.array([1j, 0, 0]), "complex128 of shape"),
    ],
)
def test_labels_that_mean_nothing_are_refused(labels, line, rows, tmp_path):
    np.savez(tmp_path / "a.npz", train_images=rows[:3], train_labels=labels)
    with pytest.raises(InputError, match=line):
        load_embeddings(tmp_path / "a.npz", "train")


def test_rows_without_a_split_are_refused(rows, tmp_path):
    columns = {"embedding": rows[:3].tolist(), "split": ["train", None, "test"]}
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="row 1 names no split"):
        load_embeddings(tmp_path / "a.parquet", "train")


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e30, 1e200])
def test_rows_of_any_length_are_rescaled(scale, rows, tmp_path):
    parquet.write_table(pa.table({"embedding": (rows * scale).tolist()}), tmp_path / "a.parquet")
    for path in (*_both(tmp_path, {"train_images": rows * scale}, {}), tmp_path / "a.parquet"):
        np.testing.assert_allclose(load_embeddings(path, "train", normalize=True).vectors, rows, atol=1e-6)
        if not 1e-30 < scale < 1e37:
            with pytest.raises(InputError, match="largest number is"):
                load_embeddings(path, "train", normalize=False)


def test_labels_and_names_may_be_missing(rows, tmp_path):
    table = load_embeddings(_npz(tmp_path / "a.npz", rows, labels=None, names=None), "train")
    assert table.labels is None
    assert table.class_names == ()


def test_lengths_other_than_one_are_a_choice(rows, tmp_path):
    path = _npz(tmp_path / "a.npz", 10 * rows)
    with pytest.raises(InputError, match=r"vector 0 has length 10 .*normalize=True"):
        load_embeddings(path, "train")
    np.testing.assert_allclose(load_embeddings(path, "train", normalize=True).vectors, rows, atol=1e-6)
    np.testing.assert_allclose(load_embeddings(path, "train", normalize=False).vectors, 10 * rows, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r, y: (np.where(np.arange(7)[:, None] == 3, np.nan, r), y), "vectors: row 3 holds NaN or infinity"),
        (lambda r, y: (np.where(np.arange(7)[:, None] == 2, 0, r), y), "vectors: row 2 is a zero vector"),
        (lambda r, y: (np.where(np.arange(7)[:, None] == 2, np.inf, r), y), "vectors: row 2 holds NaN or infinity"),
        (lambda r, y: (r, y[:-1]), r"labels have shape \(6,\): expected \(7,\)"),
        (lambda r, y: (r, np.where(y == 2, 3, y)), "label 3 of row 1 is out of range: expected 0..2"),
        (lambda r, y: (r, -y), "label -2 of row 1 is out of range"),
        (lambda r, y: (r, y + 0.5), "labels have dtype float64"),
        (lambda r, y: (r[0], y), r"vectors have shape \(5,\)"),
        (lambda r, y: (r[:0], y[:0]), r"vectors have shape \(0, 5\)"),
        (lambda r, y: (r.astype(str), y), "vectors have dtype"),
    ],
)
def test_bad_contents_are_named(change, words, rows, tmp_path):
    vectors, labels = change(rows, LABELS)
    with pytest.raises(InputError, match=words) as caught:
        load_embeddings(_npz(tmp_path / "a.npz", vectors, labels), "train")
    assert "a.npz" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_files_are_named(rows, tmp_path):
    with pytest.raises(StoredFileError, match="there is no embeddings file"):
        load_embeddings(tmp_path / "absent.npz", "train")
    with pytest.raises(InputError, match=r"unknown embeddings format '\.npx'.*did you mean '\.npz'"):
        load_embeddings(tmp_path / "a.npx", "train")
    with pytest.raises(InputError, match=r"unknown split 'trian'.*did you mean 'train'"):
        load_embeddings(_npz(tmp_path / "a.npz", rows), "trian")
    np.savez(tmp_path / "b.npz", features=rows)
    with pytest.raises(StoredFileError, match="holds features: expected arrays named SPLIT_images"):
        load_embeddings(tmp_path / "b.npz", "train")
    parquet.write_table(pa.table({"embeddings": rows.tolist()}), tmp_path / "b.parquet")
    with pytest.raises(StoredFileError, match="did you mean 'embeddings'"):
        load_embeddings(tmp_path / "b.parquet", "train")
    parquet.write_table(pa.table({"embedding": [[1.0, 0.0], [1.0]]}), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="different lengths"):
        load_embeddings(tmp_path / "c.parquet", "train")


def test_pickled_arrays_are_refused(tmp_path):
    marker = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    rows = np.empty((1, 1), dtype=object)
    rows[0, 0] = Code()
    np.savez(tmp_path / "a.npz", train_images=rows)
    with pytest.raises(StoredFileError, match="would have to be unpickled"):
        load_embeddings(tmp_path / "a.npz", "train")
    assert not marker.exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["a.npz", "a.safetensors", "a.parquet"]), cut=st.integers(0, 400), flip=st.integers(0, 255))
def test_damaged_files_raise_one_clear_line_or_load(name, cut, flip, tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("damaged")
    if name == "a.parquet":
        parquet.write_table(pa.table({"embedding": rows.tolist(), "label": LABELS.tolist()}), folder / name)
    elif name == "a.npz":
        _npz(folder / name, rows, LABELS, NAMES)
    else:
        save_file(
            {"train_images": torch.tensor(rows), "train_labels": torch.tensor(LABELS)},
            folder / name,
            {"class_names": json.dumps(NAMES)},
        )
    raw = bytearray((folder / name).read_bytes())
    raw[cut % len(raw)] ^= flip
    (folder / name).write_bytes(raw if cut % 2 else raw[: cut % len(raw)])
    message = ""
    try:
        load_embeddings(folder / name, "train", normalize=False)
    except InputError as error:
        message = str(error)
    assert "\n" not in message


@settings(max_examples=60)
@given(
    rows=hnp.arrays(
        np.float32,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=6),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    )
)
def test_normalised_rows_have_unit_length_or_are_refused(rows, tmp_path_factory):
    path = _npz(tmp_path_factory.mktemp("n") / "a.npz", rows, labels=None, names=None)
    if (rows == 0).all(axis=1).any():
        with pytest.raises(InputError, match="is a zero vector"):
            load_embeddings(path, "train", normalize=True)
        return
    table = load_embeddings(path, "train", normalize=True)
    np.testing.assert_allclose(np.linalg.norm(table.vectors.astype(np.float64), axis=1), 1, atol=1e-5)


def test_embeddings_check_themselves(rows):
    with pytest.raises(InputError, match=r"vectors have shape \(5,\)"):
        Embeddings(rows[0])
    with pytest.raises(InputError, match="2 ids for 7 vectors"):
        Embeddings(rows, ids=("a", "b"))
    with pytest.raises(InputError, match="out of range"):
        Embeddings(rows, LABELS + 1, NAMES)
    table = Embeddings(rows, LABELS, NAMES, tuple("abcdefg"))
    chosen = table.select(LABELS == 1)
    assert (chosen.ids, chosen.labels.tolist(), chosen.dim) == (("c", "d"), [1, 1], 5)


def test_tensors_become_arrays(rows):
    table = Embeddings(torch.tensor(rows).bfloat16(), torch.tensor(LABELS), NAMES)
    assert table.vectors.dtype == np.float32
    assert table.labels.tolist() == LABELS.tolist()


def test_docstring_examples():
    assert doctest.testmod(table_module).failed == 0


DATA = os.environ.get("SPARSECBM_DATA_DIR")


@pytest.mark.skipif(not DATA, reason="SPARSECBM_DATA_DIR is not set: no real embeddings here")
@pytest.mark.parametrize(("name", "classes"), [("oxford_pets", 37), ("dtd", 47)])
def test_real_embeddings(name, classes):
    table = load_embeddings(Path(DATA, "clip_vitb32", f"{name}.npz"), "test")
    assert table.dim == 512
    assert len(table.class_names) == classes
    assert set(table.labels) == set(range(classes))
    np.testing.assert_allclose(np.linalg.norm(table.vectors, axis=1), 1, atol=1e-6)
