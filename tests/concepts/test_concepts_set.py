from __future__ import annotations

import json
import pickle
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecbm import ConceptSet
from sparsecbm._base.errors import InputError
from sparsecbm._base.names import normalise_name, same_name_key
from sparsecbm.concepts.cleaning import clean_names

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)


@given(st.lists(TEXT, max_size=20))
@settings(max_examples=100)
def test_cleaning_accounts_for_every_name(raw: list[str]) -> None:
    clean, report = clean_names(raw)
    assert len(clean) + len(report.duplicates) + report.blank == len(raw)
    assert [normalise_name(raw[i]) for i in report.kept] == clean
    assert len({same_name_key(name) for name in clean}) == len(clean)
    for name in clean:
        assert name == normalise_name(name) == " ".join(name.split())
        assert unicodedata.is_normalized("NFC", name)
    assert clean_names(clean) == (clean, type(report)(tuple(range(len(clean)))))  # nothing is left to clean
    assert report.changed == bool(report.lines) == (clean != raw)


def test_cleaning_reports_what_it_changed() -> None:
    concepts = ConceptSet.clean(["red  wing", "Bär", "Ba\u0308r", " ", "RED WING", "\ufeffbill", "tail"])
    assert concepts.names == ("red wing", "Bär", "bill", "tail")
    assert concepts.report.lines == (
        "rewrote 'red  wing' as 'red wing'",
        "rewrote '\\ufeffbill' as 'bill'",
        "dropped 'Ba\u0308r': repeats 'Bär'",
        "dropped 'RED WING': repeats 'red wing'",
        "dropped 1 blank name",
    )
    assert concepts.report.kept == (0, 1, 5, 6)
    assert str(ConceptSet(["bill"]).report) == "nothing changed"


def test_cleaning_keeps_groups_and_relevance_aligned() -> None:
    names = ["red", "", "Red", "blue"]
    relevance = [[1, 9, 9, 0], [0, 9, 9, 2]]
    concepts = ConceptSet.clean(names, groups=["warm", "x", "y", "cold"], relevance=relevance, class_names=["a", "b"])
    assert concepts.groups == ("warm", "cold")
    assert concepts.relevance.tolist() == [[1, 0], [0, 2]]
    with pytest.raises(InputError, match="3 groups for 4 concept names"):
        ConceptSet.clean(names, groups=["a", "b", "c"])


def test_constructor_refuses_what_would_break_alignment() -> None:
    with pytest.raises(InputError, match=r"2 of 4 .*dropped 'B': repeats 'b'.*ConceptSet\.clean"):
        ConceptSet(["a", "b", "B", ""])
    with pytest.raises(InputError, match="at least one"):
        ConceptSet([])
    with pytest.raises(InputError, match="one text"):
        ConceptSet("red wing")
    with pytest.raises(InputError, match=r"number 2 is 3 \(int\)"):
        ConceptSet(["a", 3])
    with pytest.raises(InputError, match="surrogate"):
        ConceptSet(["a", "\ud800"])
    with pytest.raises(InputError, match="every one is blank"):
        ConceptSet.clean(["", " "])


def test_groups_and_relevance_by_name() -> None:
    concepts = ConceptSet(
        ["red crown", "black crown", "hooked bill", "wild"],
        groups={"crown": ["Red crown", "black crown"], "bill": ["hooked bill"]},
        relevance={"hawk": ["hooked bill"], "cardinal": {"red crown": 1, "hooked bill": 0.25}},
        provenance="by hand",
    )
    assert concepts.groups == ("crown", "crown", "bill", None)
    assert concepts.class_names == ("hawk", "cardinal")
    assert concepts.relevance.tolist() == [[0, 0, 1, 0], [1, 0, 0.25, 0]]
    assert concepts.relevance.dtype == np.float32
    assert concepts.provenance == {"note": "by hand"}
    assert concepts.index("HOOKED  bill") == 2
    assert "red crown" in concepts
    assert list(concepts) == list(concepts.names)
    assert concepts[1] == "black crown"
    reordered = ConceptSet(["a"], relevance={"x": [], "y": ["a"]}, class_names=["y", "x"])
    assert reordered.relevance.tolist() == [[1], [0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": {"g": ["rde"]}}, "did you mean 'red'"),
        ({"groups": {"g": ["red"], "h": ["red"]}}, "in two groups, 'g' and 'h'"),
        ({"groups": {"g": "red"}}, "expected a list"),
        ({"groups": "gh"}, "one text"),
        ({"groups": ["g"]}, "1 groups for 2"),
        ({"relevance": [[1.0]]}, r"shape \(1, 1\): expected \(classes, 2\)"),
        ({"relevance": [[1.0, float("nan")]]}, r"relevance\[0, 1\] is nan"),
        ({"relevance": [[1.0, -2.0]]}, r"relevance\[0, 1\] is -2.0"),
        ({"relevance": [["a", "b"]]}, "not a matrix of numbers"),
        ({"relevance": [[1, 0]], "class_names": ["a", "b"]}, "2 class names for 1 rows"),
        ({"relevance": [[1, 0], [1, 1]], "class_names": ["a", "a"]}, "repeat"),
        ({"relevance": {"x": {"red": "high"}}}, "expected a number"),
        ({"relevance": {"x": ["rod"]}}, "did you mean 'red'"),
        ({"relevance": {"x": []}, "class_names": ["y"]}, "only one of class_names and relevance"),
        ({"provenance": {"made": {1, 2}}}, "cannot be stored"),
    ],
)
def test_what_does_not_fit_is_named(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        ConceptSet(["red", "blue"], **options)
    assert "\n" not in str(error.value)


def test_set_cannot_be_changed_and_compares_by_value() -> None:
    concepts = ConceptSet(["a", "b"], relevance=[[1, 0]], provenance={"k": [1]})
    with pytest.raises(AttributeError):
        concepts.names = ("c",)
    with pytest.raises(ValueError, match="read-only"):
        concepts.relevance[0, 0] = 5
    concepts.provenance["k"].append(2)
    assert concepts.provenance == {"k": [1]}
    same = ConceptSet(["a", "b"], relevance=[[1, 0]], provenance={"k": [1]})
    assert concepts == same
    assert hash(concepts) == hash(same)
    assert concepts != ConceptSet(["a", "b"])
    assert pickle.loads(pickle.dumps(concepts)) == concepts  # worker processes get their set this way


def test_select_by_position_and_mask() -> None:
    concepts = ConceptSet(["a", "b", "c"], groups=["x", None, "y"], relevance=[[1, 2, 3]], class_names=["k"])
    picked = concepts.select([2, 0])
    assert (picked.names, picked.groups, picked.relevance.tolist()) == (("c", "a"), ("y", "x"), [[3, 1]])
    assert concepts.select(np.array([True, False, True])).names == ("a", "c")
    with pytest.raises(InputError, match="2 entries in the mask for 3"):
        concepts.select(np.array([True, False]))


def refused(call: Callable[[Path], object], path: Path) -> str | None:
    """The message that the call refuses with, or None."""
    try:
        call(path)
    except InputError as error:
        return str(error)
    return None


# --- files ---------------------------------------------------------------------------------------------------------


@st.composite
def concept_sets(draw: st.DrawFn) -> ConceptSet:
    raw = draw(st.lists(TEXT, min_size=1, max_size=8))
    names, _ = clean_names([*raw, "bill"])
    options: dict = {}
    if draw(st.booleans()):
        group = st.none() | TEXT.map(normalise_name).filter(bool)
        options["groups"] = draw(st.lists(group, min_size=len(names), max_size=len(names)))
    if draw(st.booleans()):
        classes = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
        weight = st.sampled_from([0.0, 1.0, 0.5, 3.25])
        row = st.lists(weight, min_size=len(names), max_size=len(names))
        options["relevance"] = draw(st.lists(row, min_size=len(classes), max_size=len(classes)))
        options["class_names"] = classes
    if draw(st.booleans()):
        options["provenance"] = draw(st.dictionaries(TEXT, TEXT | st.integers(), max_size=3))
    return ConceptSet(names, **options)


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
@given(concept_sets())
@settings(max_examples=50)
def test_structured_files_round_trip(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, concepts: ConceptSet
) -> None:
    path = tmp_path_factory.mktemp("c") / f"concepts{suffix}"
    concepts.save(path)
    again = ConceptSet.from_file(path)
    if concepts.groups is not None and not any(concepts.groups):
        assert not any(again.groups)
    assert again == concepts
    assert not again.report.changed


@given(st.lists(TEXT, min_size=1, max_size=8), st.dictionaries(st.sampled_from(["made by", "source"]), TEXT))
@settings(max_examples=50)
def test_text_files_round_trip_or_refuse(
    tmp_path_factory: pytest.TempPathFactory, raw: list[str], provenance: dict[str, str]
) -> None:
    names, _ = clean_names([*raw, "bill"])
    concepts = ConceptSet(names, provenance=provenance)
    path = tmp_path_factory.mktemp("c") / "concepts.txt"
    refusal = refused(concepts.save, path)
    if refusal is None:
        assert ConceptSet.from_file(path) == concepts
    else:
        assert "save as .json or .yaml" in refusal
        assert not path.exists()


@given(st.binary(max_size=60), st.sampled_from([".txt", ".json", ".yaml"]))
@settings(max_examples=50)
def test_any_bytes_give_a_set_or_one_clear_line(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    path = tmp_path_factory.mktemp("c") / f"concepts{suffix}"
    path.write_bytes(data)
    refusal = refused(ConceptSet.from_file, path)
    if refusal is None:
        assert len(ConceptSet.from_file(path)) >= 1
    else:
        assert path.name in refusal
        assert "\n" not in refusal


def test_text_file_with_everything_people_put_into_one(tmp_path: Path) -> None:
    path = tmp_path / "concepts.txt"
    path.write_bytes(
        "\ufeff# made by: a person\n# just a remark\n\nred  wing\r\nhooked bill\n  \n# later: no provenance\nRED WING\n"
        "C# book\n\n".encode()
    )
    concepts = ConceptSet.from_file(path)
    assert concepts.names == ("red wing", "hooked bill", "C# book")
    assert concepts.provenance == {"made by": "a person"}
    assert concepts.report.lines == (
        "rewrote 'red  wing' as 'red wing'",
        "dropped 'RED WING': repeats 'red wing'",
        "dropped 2 blank names",
    )


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_shapes_of_structured_files(tmp_path: Path, suffix: str) -> None:
    def read(tree: object) -> ConceptSet:
        path = tmp_path / f"c{suffix}"
        path.write_text(json.dumps(tree) if suffix == ".json" else yaml.safe_dump(tree, sort_keys=False))
        return ConceptSet.from_file(path)

    assert read(["red", "blue"]).names == ("red", "blue")
    by_class = read({"hawk": ["hooked bill", "talons"], "duck": ["flat bill", "Talons"]})
    assert by_class.names == ("hooked bill", "talons", "flat bill")
    assert by_class.class_names == ("hawk", "duck")
    assert by_class.relevance.tolist() == [[1, 1, 0], [0, 1, 1]]
    assert not by_class.report.changed  # classes may share a concept
    by_group = read({"provenance": {"made by": "hand"}, "groups": {"bill": ["hooked", "flat"], "tail": ["long"]}})
    assert by_group.names == ("hooked", "flat", "long")
    assert by_group.groups == ("bill", "bill", "tail")
    assert by_group.provenance == {"made by": "hand"}
    assert read({"names": ["a", "A", "b"], "relevance": {"k": ["A"]}}).relevance.tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("c.txt", b"", "is empty"),
        ("c.txt", b" \n\n", "is empty"),
        ("c.txt", b"# only\n# comments\n", "only comments"),
        ("c.txt", b"good\nb\xe4r\n", r"not UTF-8 text \(byte 0xe4 in line 2\)"),
        ("c.json", b"[]", "0 given|no concept"),
        ("c.json", b'["a"', "not valid JSON"),
        ("c.json", b'"a"', "expected a list of names"),
        ("c.json", b'["a", 2]', r"number 2 is 2 \(int\)"),
        ("c.json", b'["a", "\\ud800"]', "surrogate"),
        ("c.json", b'{"nams": 1, "x": 2}', "did you mean 'names'"),
        ("c.json", b'{"names": ["a"], "group": {}}', "did you mean 'groups'"),
        ("c.json", b'{"names": "a"}', "expected a list"),
        ("c.json", b'{"hawk": ["a"], "hawk": ["b"]}', "key 'hawk' is there twice"),
        ("c.json", b"[" * 100_000, "not valid JSON"),
        ("c.txt", "red\nblue\n".encode("utf-16-le"), "UTF-16 without a mark"),
        ("c.yaml", "- red\n- blue\n".encode("utf-16-be"), "UTF-16 without a mark"),
        ("c.yaml", b"{names: [a], relevance: {k: {a: much}}}", "is 'much': expected a number"),
        ("c.yaml", b"groups: {a: [x], a: [y]}", "key 'a' is there twice"),
        ("c.yaml", b"names: [a\n", "not valid YAML"),
        ("c.yaml", b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        ("c.yaml", b"names: [a]\ngroups: [a]\n", "'groups' is not a mapping"),
        ("c.csv", b"a,b", "unknown type '.csv'"),
    ],
)
def test_bad_files_give_one_clear_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        ConceptSet.from_file(path)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_words_in_files_are_read_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    words = ("no", "off", "yes", "1e3", "010", "12:30", "2001-01-01", "7", "null", "true")
    path.write_text("\n".join(f"- {word}" for word in words))
    concepts = ConceptSet.from_file(path)
    assert concepts.names == words
    concepts.save(path)
    assert ConceptSet.from_file(path) == concepts
    path.write_text("no: [off, red]\n010: [1e3]\n")
    assert ConceptSet.from_file(path).class_names == ("no", "010")
    path.write_text(
        "provenance: {year: 2024, ok: true}\nnames: [no, 010]\ngroups:\nclass_names: [Great Dane, Off]\n"
        "relevance: {off: {no: 1e-1}, great_dane: {010: 2}}\n"
    )
    concepts = ConceptSet.from_file(path)
    assert concepts.provenance == {"year": 2024, "ok": True}
    assert concepts.class_names == ("Great Dane", "Off")
    np.testing.assert_allclose(concepts.relevance, [[0, 2], [0.1, 0]])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"), [("c.txt", "rot\ngrün\n"), ("c.json", '["rot", "grün"]'), ("c.yaml", "[rot, grün]")]
)
def test_encodings_that_can_be_told_are_read(encoding, name, text, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode(encoding))
    assert ConceptSet.from_file(tmp_path / name).names == ("rot", "grün")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt.*No such file"):
        ConceptSet.from_file(tmp_path / "none.txt")
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(InputError, match=r"folder\.txt.*directory"):
        ConceptSet.from_file(tmp_path / "folder.txt")


def test_text_files_refuse_what_they_cannot_hold(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    with pytest.raises(InputError, match="cannot hold groups and relevance"):
        ConceptSet(["a"], groups=["g"], relevance=[[1]]).save(path)
    with pytest.raises(InputError, match="cannot hold '#a'"):
        ConceptSet(["#a"]).save(path)
    with pytest.raises(InputError, match="relevance without class names"):
        ConceptSet(["a"], relevance=[[1]]).save(tmp_path / "c.json")
    assert list(tmp_path.iterdir()) == []


def test_shipped_concept_files_are_clean() -> None:
    folder = Path(__file__).parents[2] / "configs" / "concepts"
    files = sorted(folder.glob("*.*"))
    least = {"cifar10": 100, "cifar100": 240, "cub200": 190, "imagenet": 380, "places365": 240}
    assert {file.stem for file in files} >= set(least)
    for file in files:
        concepts = ConceptSet.from_file(file)
        assert not concepts.report.changed, (file.name, concepts.report.lines)
        assert "hand-written" in concepts.provenance["made by"]
        assert len(concepts) >= least.get(file.stem, 1), (file.name, len(concepts))
        assert max(map(len, concepts)) <= 40
