"""One way for names to be cleaned, and one for them to be matched."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import (
    MAX_NAME,
    clean_name,
    clean_name_array,
    group_names,
    match_names,
    normalise_name,
    same_name_key,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@pytest.mark.parametrize(
    "other",
    [
        "caf\u00e9 noir",
        "cafe\u0301 noir",
        "CAF\u00c9 NOIR",
        "caf\u00e9_noir",
        "Caf\u00e9-Noir",
        " caf\u00e9  noir ",
        "caf\u00e9\u00a0noir",
        "caf\u00e9\u200b noir",
    ],
)
def test_forms_of_one_name(other: str) -> None:
    assert same_name_key(other) == same_name_key("caf\u00e9 noir")
    assert match_names([other], ["tea", "caf\u00e9 noir"]).positions == (1,)
    assert len(group_names(["caf\u00e9 noir", other]).names) == 1


@pytest.mark.parametrize(
    ("one", "other"), [("-1", "1"), ("+", "-"), ("_", "__x"), ("C", "C++"), ("x-1", "x1"), ("1.0", "10")]
)
def test_other_names_stay_other(one: str, other: str) -> None:
    assert same_name_key(one) != same_name_key(other)
    assert len(group_names([one, other]).names) == 2


@given(TEXT)
def test_normalising_and_keys_are_stable(name: str) -> None:
    assert normalise_name(normalise_name(name)) == normalise_name(name)
    assert same_name_key(same_name_key(name)) == same_name_key(name)
    assert same_name_key(name) == same_name_key(normalise_name(name))


@given(st.lists(TEXT, max_size=6), st.randoms())
def test_any_list_matches_its_own_permutation(names: list[str], random: object) -> None:
    shuffled = random.sample(names, len(names))  # type: ignore[attr-defined]
    found = match_names(names, shuffled)
    assert found.complete
    assert not found.unused
    assert [shuffled[j] for j in found.positions] == names


def test_what_is_ambiguous_is_not_matched() -> None:
    assert match_names(["cat"], ["Cat", "CAT"]).positions == (None,)
    assert match_names(["Cat", "cat"], ["cat"]).positions == (None, 0)  # no known name is given away twice
    assert match_names(["missile", "missile"], ["missile", "owl", "missile"]).positions == (0, 2)
    found = match_names(["cat", "dgo", "emu"], ["dog", "Cat"])
    assert (found.missing, found.unused) == (("dgo", "emu"), ("dog",))
    assert found.line("classes") == "2 of 3 classes not found: 'dgo', 'emu'; did you mean 'dog'?"


def test_letters_are_classes_of_their_own() -> None:
    assert group_names(["A", "a", "b"]).names == ("A", "a", "b")
    assert not group_names(["e\u0301", "\u00e9"]).merged  # composition alone is no news


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (3, "expected text"),
        (None, "expected text"),
        ("x\0", "NUL"),
        (b"x\0", "NUL"),
        (b"\xff", "UTF-8"),
        ("\ud800", "surrogate"),
        (" \u200b\t", "nothing visible"),
        ("x" * (MAX_NAME + 1), "1,001 characters"),
        ("y" * 2**20, "1,048,576 characters"),
    ],
)
def test_names_that_cannot_be_used_are_said(name: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        clean_name(name, "class 3")
    assert str(error.value).startswith("class 3 ")
    assert len(str(error.value)) < 200
    assert "\n" not in str(error.value)


def test_names_are_cleaned_once() -> None:
    assert clean_name("wren\u202egnp.\u202c\x1b[2J", "class") == "wrengnp. [2J"
    assert clean_name(np.str_("wren"), "class").__class__ is str
    assert clean_name_array(np.array([b"cat", b"emu"]), "x") == ("cat", "emu")
    assert clean_name_array(np.array([True, False]), "x") == ("True", "False")
    for odd in (np.zeros((2, 2), dtype=int), np.array([0.5]), np.array(["a", None], dtype=object)):
        with pytest.raises(InputError, match=r"^x"):
            clean_name_array(odd, "x")
