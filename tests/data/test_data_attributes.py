"""Concept labels of pictures: read as they stand, or refused in one line that says where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm.data import load_images
from sparsecbm.data.attributes import column_attributes, read_attributes

PICTURES, CLASSES = ["cat/1.png", "cat/2.png", "zebra/1.png"], ("cat", "zebra")
LABELS = np.array([0, 0, 1])


def read(folder: Path, text: str) -> tuple[tuple[str, ...], np.ndarray]:
    (folder / "a.csv").write_text(text)
    return read_attributes(folder / "a.csv", PICTURES, LABELS, CLASSES, "'pets'")


def test_rows_of_pictures_and_of_classes(tmp_path: Path) -> None:
    names, values = read(tmp_path, "file;striped;tail\ncat/2.png;;0.25\nZebra;1;\n./zebra/1.png;1;0\n")
    assert names == ("striped", "tail")
    np.testing.assert_array_equal(values, [[np.nan, np.nan], [np.nan, 0.25], [1, 0]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,a\ncat/1.png,2\n", "line 2: 'a' of 'cat/1.png' is '2'"),
        ("file,a\ncat/1.png,yes\n", "is 'yes': expected 0, 1, a probability"),
        ("file,a\ncat/3.png,1\n", "1 of 1 rows name no picture and no class of 'pets': 'cat/3.png'; did you mean"),
        ("file,a\ncat/1.png,1\ncat/1.png,1\n", "line 3: 'cat/1.png' is there twice"),
        ("file,a\nzebra,1\nzebra/1.png,0\n", "'zebra/1.png' says 'a' is 0, its class 'zebra' says 1"),
        ("file,ab,Ab\ncat/1.png,1,1\n", "'Ab' is an attribute twice"),
        ("file,a\ncat/1.png,1,1\n", "line 2: 3 cells under 2 headings"),
        ("file\ncat/1.png\n", "has no attributes"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_columns_of_tables() -> None:
    plain = [pa.chunked_array([[True, None]]), pa.chunked_array([[False]])]
    struct = [pa.chunked_array([[{"b": 1.0}, None]]), pa.chunked_array([[{"b": 0.5}]])]
    lists = [pa.chunked_array([[["c"], None]]), pa.chunked_array([[["d", "c"]]])]
    names, values = column_attributes({"a": plain, "s": struct, "l": lists}, "x")
    assert names == ("a", "b", "c", "d")
    np.testing.assert_array_equal(values, [[1, 1, 1, 0], [np.nan, np.nan, np.nan, np.nan], [0, 0.5, 1, 1]])
    with pytest.raises(InputError, match="do not say whose values they are"):
        column_attributes({"l": [pa.chunked_array([[[1, 0]]])]}, "x")
    with pytest.raises(InputError, match="'a' in column 'a', row 0 is -1"):
        column_attributes({"a": [pa.chunked_array([[-1]])]}, "x")


def test_a_folder_and_a_table_know_their_attributes(tmp_path: Path) -> None:
    for name in PICTURES:
        (tmp_path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "pets" / name)
    (tmp_path / "pets" / "attributes.csv").write_text("file,striped\nzebra,1\ncat/1.png,0\n")
    images = load_images(f"folder:{tmp_path / 'pets'}", "all")
    assert images.attribute_names == ("striped",)
    np.testing.assert_array_equal(images.attributes, [[0], [np.nan], [1]])
    assert not images.notes

    bytes_ = [(tmp_path / "pets" / name).read_bytes() for name in PICTURES]
    table = pa.table({"image": bytes_, "label": ["cat", "cat", "zebra"], "striped": [0, None, 1]})
    pq.write_table(table, tmp_path / "pets.parquet")
    spec = f"parquet:{tmp_path / 'pets.parquet'}"
    found = load_images(spec, "all", concept_labels="striped", label_column="label")
    np.testing.assert_array_equal(found.attributes, images.attributes)
    with pytest.raises(InputError, match=r"concept_labels of .* 'stripes'"):
        load_images(spec, "all", concept_labels="stripes", label_column="label")

    (tmp_path / "classes.csv").write_text("file,wild,tame\ncat,0,1\nzebra,1,0\n")
    many = load_images(f"folder:{tmp_path / 'pets'}", "all", class_labels=str(tmp_path / "classes.csv"))
    assert many.class_names == ("wild", "tame")
    np.testing.assert_array_equal(many.labels, [[0, 1], [0, 1], [1, 0]])
    pq.write_table(table.append_column("what", [[["tame"], [], ["wild", "tame"]]]), tmp_path / "pets.parquet")
    several = load_images(spec, "all", class_labels="what", max_images=3)
    assert several.class_names == ("tame", "wild")
    np.testing.assert_array_equal(several.labels, [[1, 0], [0, 0], [1, 1]])
    with pytest.raises(InputError, match=r"'striped' of 'all/1' is not said .*expected 0 or 1 for every picture"):
        load_images(spec, "all", class_labels="striped")


def test_painted_birds_know_theirs() -> None:
    birds = load_images("birds", "test", max_images=20, concept_labels="attributes")
    assert birds.attributes.shape == (20, len(birds.attribute_names))
    with pytest.raises(InputError, match="does not apply"):
        load_images("birds", "test", concept_labels="labels")
