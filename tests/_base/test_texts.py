"""Text and YAML say what was written, in whatever encoding can be told, or one line says why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.texts import dump_yaml, parse_yaml, read_text

WORDS = "rot\nüber\nпёс 狗\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marked_encodings_are_read(encoding, tmp_path: Path):
    path = tmp_path / "words.txt"
    path.write_bytes(WORDS.encode(encoding))
    assert read_text(path) == WORDS


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (WORDS.encode("utf-16-le"), r"byte 0xfc in line 2; it may be UTF-16 without a mark\): save it"),
        ("red\nblue\n".encode("utf-16-be"), r"0x00 in line 1; it may be UTF-16 without a mark"),
        ("собака".encode("utf-16-le"), r"0x04 in line 1; it may be UTF-16"),
        ("red\nblue\n".encode("utf-32-le"), "UTF-16"),
        ("red\nüber\n".encode("latin-1"), r"byte 0xfc in line 2\): save it in the encoding UTF-8"),
        ("a “quote”".encode("cp1252"), "byte 0x93 in line 1"),
        (WORDS.encode("utf-16")[:-1], "is not UTF-8 text"),
        (b"red\n\x1b[31mblue\n", "0x1b in line 2"),
    ],
)
def test_others_are_one_line(data, line, tmp_path: Path):
    path = tmp_path / "words.txt"
    path.write_bytes(data)
    with pytest.raises(InputError, match=line) as caught:
        read_text(path, "words")
    assert str(caught.value).startswith(f"words {str(path)!r} is not UTF-8 text")
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(StoredFileError, match=r"cannot read words '.*none\.txt': No such file"):
        read_text(tmp_path / "none.txt", "words")
    (tmp_path / "long.txt").write_bytes(b"x" * 11)
    with pytest.raises(StoredFileError, match="larger than"):
        read_text(tmp_path / "long.txt", limit=10)


def test_words_stay_words():
    text = "- no\n- off\n- yes\n- 010\n- 12:30\n- 2001-01-01\n- 0x1f\n- 1_000\n- <<\n- nil\n"
    assert parse_yaml(text) == text.replace("- ", "").split()
    assert parse_yaml("[7, -3, 1e3, 1.5e-3, .5, true, False, null, ~]") == [7, -3, 1000, 0.0015, 0.5, 1, 0, None, None]
    assert parse_yaml("") is None
    assert parse_yaml("{no: 1, '1': 2, 010: 3}") == {"no": 1, "1": 2, "010": 3}
    assert parse_yaml("[7, 1e3, true, null, ~, '']", as_written=True) == ["7", "1e3", "true", "null", "~", ""]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1", "it is not valid YAML: .*line 1 column"),
        ("a: &a [x]\nb: *a", "line 2: YAML aliases are not allowed"),
        ("a: 1\nb:\n  c: 1\n  c: 2", "line 4: key 'c' is there twice"),
        ("[" * 5000, "nested more than 20 levels"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML: could not determine a constructor"),
        ("!!int x", "not valid YAML"),
        ("a: b: c", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
@pytest.mark.parametrize("as_written", [False, True])
def test_other_yaml_is_one_line(text, line, as_written):
    with pytest.raises(InputError, match=line) as caught:
        parse_yaml(text, as_written=as_written)
    assert "\n" not in str(caught.value)


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**9), 10**9),
    st.floats(allow_nan=False),
    st.text(max_size=8),
    st.sampled_from(["no", "1e3", "010", "12:30", "1.0e5", "null", "~", "=", "<<", "2001-01-01", "x\x85y", "\ufeffa"]),
)


@given(st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner), max_leaves=8))
def test_what_is_written_is_read_back_by_both_versions(tree):
    text = dump_yaml(tree)
    assert parse_yaml(text) == tree
    assert yaml.safe_load(text) == tree
