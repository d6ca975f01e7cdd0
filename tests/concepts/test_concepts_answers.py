"""Concept names out of free text, and what is odd about names."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sparsecbm import ConceptSet
from sparsecbm.concepts.answers import parse_answer, strip_article
from sparsecbm.concepts.problems import name_problems


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("- a red crown\n- long bill\n", ["red crown", "long bill"]),
        ("1. Webbed feet.\n2. A long, thin neck\n3) the tail", ["webbed feet", "long, thin neck", "tail"]),
        ("(a) scales\n(b) fins\nc) gills", ["scales", "fins", "gills"]),
        ("• “bright eyes”\n• 'short beak'\n• `claws`", ["bright eyes", "short beak", "claws"]),
        ("**Plumage**: mostly red\n* Bill - conical\n* Legs (thin)", ["plumage", "bill", "legs"]),
        ("Sure! Here are the features:\n\n- wings\n- WINGS\n- Wings.\n\nHope this helps!", ["wings"]),
        ("water plants, a glass bowl; pebbles and bubbles", ["water plants", "glass bowl", "pebbles", "bubbles"]),
        (" wheels\n- doors\n- windows\n\nQuestion: and a cat?\n- fur", ["doors", "windows"]),
        ("Answer: a pet", ["pet"]),
        ("- UV light\n- X-ray\n- DNA test", ["UV light", "X-ray", "DNA test"]),
        ("- \n-\n- ...\n- 3\n- none\n- etc.", []),
        ("   \n\n\t\n", []),
        ("- this is a very long sentence about what the bird may be doing", []),
    ],
)
def test_answers(text: str, expected: list[str]) -> None:
    assert parse_answer(text) == expected


def test_articles_go_but_blank_lines_and_words_that_begin_like_one_stay() -> None:
    # A published reader cut two or three characters off every line, also off blank ones and off "anchor".
    lines = ["a red crown", "", "an anchor", "anchor", "the theatre", "theatre", "   ", "a", "the"]
    expected = ["red crown", "", "anchor", "anchor", "theatre", "theatre", "", "a", "the"]
    assert [strip_article(line) for line in lines] == expected
    assert parse_answer("\n".join(f"- {line}" for line in lines)) == ["red crown", "anchor", "theatre"]
    assert ConceptSet.clean(lines).names == ("a red crown", "an anchor", "anchor", "the theatre", "theatre", "a", "the")


@settings(max_examples=80)
@given(st.text(max_size=200))
@example(",")
@example("- ;,;")
def test_whatever_was_written_gives_names_that_a_concept_set_takes(text: str) -> None:
    names = parse_answer(text.encode("utf-8", "ignore").decode())
    assert all(name == name.strip() and len(name.split()) <= 8 for name in names)
    if names:
        assert ConceptSet(names).names == tuple(ConceptSet.clean(names).names)


def test_problems_of_names() -> None:
    concepts = ConceptSet(
        ["wing", "wings", "a wing", "bus", "glass", "a berry", "berries", "robin red", "Robins", "x" * 31]
    )
    found = [(problem.kind, problem.name) for problem in name_problems(concepts, ["robin"])]
    assert found == [
        ("duplicate", "wings"),
        ("duplicate", "a wing"),
        ("duplicate", "berries"),
        ("leak", "robin red"),
        ("leak", "Robins"),
        ("long", "x" * 31),
    ]
    assert not name_problems(ConceptSet(["robinia tree", "wing"]), ["robin"])  # whole words only
