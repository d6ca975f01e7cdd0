"""Label columns of every type, and parts of one data set that number or spell their classes differently."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sparsecbm import load_images
from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm.data.labels import LabelColumn, gather_labels, untrained
from sparsecbm.embeddings import load_embeddings

D = decimal.Decimal


def gather(*parts: tuple[Any, ...]) -> tuple[list[int], tuple[str, ...]]:
    columns = [LabelColumn(values, f"part {i}", *names) for i, (values, *names) in enumerate(parts)]
    found = gather_labels(columns, "'x'")
    assert found.numbers.dtype == np.int64
    return found.numbers.tolist(), found.class_names


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (pa.array([True, False, True]), ("True", "False", "True")),
        *((pa.array([4, 3, 4], pa_type), ("4", "3", "4")) for pa_type in map(pa.type_for_alias, ("int8", "uint64"))),
        (pa.array([2**63 + 1, 5, 5], pa.uint64()), (str(2**63 + 1), "5", "5")),
        (pa.array(np.array([1, 0, 1], np.float16)), ("1", "0", "1")),
        (pa.array([1.0, -0.0, 0.0]), ("1", "0", "0")),
        (pa.array([D("1.00"), D("2.00")]), ("1", "2")),
        (pa.array(["b", "a", "b"], pa.string_view()), ("b", "a", "b")),
        (pa.array(["b", "a"], pa.large_string()), ("b", "a")),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ("b", "a", "b")),
        (pa.array([7, 9]).dictionary_encode(), ("7", "9")),
        (pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]), ("a", "a", "b")),
        (pa.chunked_array([["a"], [], ["b"]]), ("a", "b")),
        (pa.array([b"cat", b"dog"]), ("cat", "dog")),
        (pa.array([b"cat", b"dog"], pa.large_binary()), ("cat", "dog")),
        (pa.array([b"cat", b"dog"], pa.binary_view()), ("cat", "dog")),
        (pa.array([b"cat\0", b"bird"], pa.binary(4)), ("cat", "bird")),  # the padding of a fixed width
        (pa.array(["caf\u00e9", "cafe\u0301", "tea "]), ("caf\u00e9", "caf\u00e9", "tea")),
        (pa.array(["A", "a"]), ("A", "a")),
        (pa.array(["-1", "1"]), ("-1", "1")),
    ],
    ids=lambda value: str(value.type) if hasattr(value, "type") else "",
)
def test_every_type_of_label_is_read(values: Any, names: tuple[str, ...]) -> None:
    numbers, class_names = gather((values,))
    assert tuple(class_names[k] for k in numbers) == names
    assert len(class_names) == len(set(names))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([0.5, 1.0]), "is 0.5: expected names or whole numbers"),
        (pa.array([float("inf")]), "is inf"),
        (pa.array([D("1.50")]), "is 1.50"),
        (pa.array([[1], [2]]), "of type list"),
        (pa.array([0], pa.date32()), "of type date32"),
        (pa.array(["a", None]), r"picture '1' of 'x' has no label \(1 such pictures\)"),
        (pa.array([0.0, float("nan")]), "has no label"),
        (pa.array(["a", "a\0"]), "NUL"),
        (pa.array([b"\xff"]), "UTF-8"),
        (pa.array(["a", " "]), "nothing visible"),
        (pa.array(["x" * 10**6]), "1,000,000 characters"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_labels_that_mean_nothing_are_said(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        gather((values,))
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    ("parts", "numbers", "names"),
    [
        ([([0, 1], ["cat", "dog"]), ([0, 1], ["dog", "cat"])], [0, 1, 1, 0], ("cat", "dog")),
        ([([0, 1, 2], ["a", "b", "c"]), ([0, 1], ["A", "c"])], [0, 1, 2, 0, 2], ("a", "b", "c")),
        ([([0, 1], ["a", "b"]), ([1, 0],)], [0, 1, 1, 0], ("a", "b")),  # names in one part only
        ([([1, 0],), ([0, 1], ["a", "b"])], [1, 0, 0, 1], ("a", "b")),
        ([([0, 1], ["a", "b"]), ([-1, -1],)], [0, 1, -1, -1], ("a", "b")),
        ([([0, 1], ["b", "a"]), (["A", "b"],)], [0, 1, 1, 0], ("b", "a")),
        ([(["a", "b", "c"],), (["a", "c"],)], [0, 1, 2, 0, 2], ("a", "b", "c")),
        ([(["a", "b"],), ([None, None],)], [0, 1, -1, -1], ("a", "b")),
        ([([3, 5],), ([5],), ([4],)], [0, 2, 2, 1], ("3", "4", "5")),
        ([([0, 1], ["Cat", "cat"]), (["cat", "Cat"],)], [0, 1, 1, 0], ("Cat", "cat")),  # listed apart on purpose
        ([([0, 1], ["missile", "missile"]), ([1], ["missile", "missile"])], [0, 1, 1], ("missile", "missile")),
        ([(["1", "0"],), ([-1],)], [1, 0, -1], ("0", "1")),
    ],
)
def test_parts_are_matched_by_name(parts: list[tuple], numbers: list[int], names: tuple[str, ...]) -> None:
    assert gather(*((pa.array(values), *more) for values, *more in parts)) == (numbers, names)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ([(["a", "b"],), ([0, 1],)], "labels of part 1 are numbers such as 1, those of part 0 names"),
        ([([0], ["a", "b"]), ([1], ["b", "a"]), ([1],)], "labels of part 2 are numbers"),
        ([([0, 1], ["a", "b"]), ([1, 7],)], r"label 7 of picture '3' of 'x' is out of range: expected 0\.\.1"),
        ([(["a", "q"], ["a", "b"])], "1 of 2 names not found: 'q'"),
        ([([0, 1], ["caf\u00e9", "cafe\u0301"])], "classes 0 and 1 of part 0, .* have one name"),
    ],
)
def test_parts_that_cannot_be_matched_are_said(parts: list[tuple], message: str) -> None:
    with pytest.raises(InputError, match=message):
        gather(*((pa.array(values), *more) for values, *more in parts))


def test_what_was_taken_together_or_added_is_noted() -> None:
    merged = gather_labels([LabelColumn(pa.array(["Great_Dane", "great dane", "pug"]), "x")], "'x'")
    assert merged.class_names == ("Great_Dane", "pug")
    assert merged.notes == (
        "'x': class names that differ in form only were taken for one: 'Great_Dane' and 'great dane'",
    )
    columns = [LabelColumn(pa.array([0]), "a", ["pug"]), LabelColumn(pa.array([0, 1]), "b", ["tit", "pug"])]
    added = gather_labels(columns, "'x'")
    assert added.numbers.tolist() == [0, 1, 0]
    assert "none in training: 'tit'" in untrained(added.numbers, added.numbers[:1], added.class_names, "'x'")[0]


@pytest.fixture
def save(tmp_path: Path, encoded: Callable[..., bytes]) -> Callable[..., None]:
    """Write a parquet file of pictures with the given labels, with or without a list of class names."""

    def write(name: str, labels: Any, names: list[str] | None = None) -> None:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        table = {"image": [{"bytes": encoded(i), "path": None} for i in range(len(labels))], "label": labels}
        if names is not None:
            features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
            datasets.Dataset.from_dict(table, features=features).to_parquet(tmp_path / f"{name}.parquet")
        else:
            pq.write_table(pa.table(table), tmp_path / f"{name}.parquet")

    return write


def first_names(tmp_path: Path, split: str, n: int) -> list[str]:
    source = load_images(f"parquet:{tmp_path}/*.parquet", split)
    return [source.class_names[k] for k in source.labels[:n]]


def test_files_of_pictures_are_matched_by_name(tmp_path: Path, save: Callable[..., None]) -> None:
    save("train-00000-of-00002", [0] * 6 + [1] * 6, ["cat", "dog"])
    save("train-00001-of-00002", [0] * 6 + [1] * 6, ["dog", "cat"])  # another order in another shard
    save("test-00000-of-00001", [0, 1, 0], ["dog", "emu"])
    assert first_names(tmp_path, "all", 27)[:24] == ["cat"] * 6 + ["dog"] * 12 + ["cat"] * 6
    with pytest.warns(DataWarning, match="none in training: 'emu'"):
        assert first_names(tmp_path, "test", 3) == ["dog", "emu", "dog"]
    save("test-00000-of-00001", ["Dog", "cat ", "dog"])
    assert first_names(tmp_path, "test", 3) == ["dog", "cat", "dog"]


@pytest.mark.parametrize("labels", [[True, False] * 6, [0.0, 1.0] * 6, pa.array(["a", "b"] * 6, pa.string_view())])
def test_a_column_named_label_is_never_taken_for_none(tmp_path: Path, save: Callable[..., None], labels: Any) -> None:
    save("photos", labels)
    assert load_images(f"parquet:{tmp_path}", "all").labels.tolist()[:2] in ([0, 1], [1, 0])
    save("photos", [[0, 1]] * 12)
    with pytest.raises(InputError, match=r"'photos.parquet' is of type list"):
        load_images(f"parquet:{tmp_path}", "all")


def test_a_hub_folder_whose_files_number_their_classes_differently(tmp_path: Path, save: Callable[..., None]) -> None:
    save("repo/data/train-00000-of-00001", [0, 1] * 6, ["cat", "dog"])
    save("repo/data/test-00000-of-00001", [0, 1], ["dog", "cat"])
    with pytest.raises(InputError, match=r"give the files as parquet:.*matches classes by name"):
        load_images(f"hub:{tmp_path}/repo", "test")
    save("repo/data/test-00000-of-00001", [0, 1], ["cat", "dog"])
    assert load_images(f"hub:{tmp_path}/repo", "test").labels.tolist() == [0, 1]


def embedded(tmp_path: Path, labels: dict[str, Any], **metadata: str) -> Path:
    """A parquet file of vectors with the given labels of each split."""
    values = pa.chunked_array([pa.array(part) for part in labels.values()])
    where = [split for split, part in labels.items() for _ in part]
    vectors = pa.array(np.eye(8, dtype=np.float32)[np.arange(len(where)) % 8].tolist(), pa.list_(pa.float32()))
    path = tmp_path / "e.parquet"
    table = pa.table({"embedding": vectors, "label": values, "split": where})
    pq.write_table(table.replace_schema_metadata(metadata or None), path)
    return path


def test_embeddings_number_the_classes_of_all_splits_alike(tmp_path: Path) -> None:
    path = embedded(tmp_path, {"test": ["dog", "cat"], "train": ["ant", "Cat", "dog"]})
    with pytest.warns(DataWarning, match="taken for one: 'Cat' and 'cat'"):
        train, test = (load_embeddings(path, split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("Cat", "ant", "dog")
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 0, 2], [2, 0])
    path = embedded(tmp_path, {"train": [7, 3], "test": [3, 3]})
    assert load_embeddings(path, "test").labels.tolist() == [3, 3]  # numbers without names stay what they are
    path = embedded(tmp_path, {"train": ["Wren", "owl"], "test": ["owl"]}, class_names='["owl", "wren"]')
    assert load_embeddings(path, "train").labels.tolist() == [1, 0]
