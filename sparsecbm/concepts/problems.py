"""What is odd about the names of a concept set, seen in the names alone; the filters look at embeddings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sparsecbm._base.names import same_name_key
from sparsecbm.concepts.answers import strip_article
from sparsecbm.concepts.concept_set import ConceptSet


@dataclass(frozen=True)
class Problem:
    """One odd name.

    Attributes
    ----------
    kind : {"long", "duplicate", "leak"}
    name : str
        The concept.
    detail : str
        One line for people.
    """

    kind: str
    name: str
    detail: str


def name_problems(
    concepts: ConceptSet, class_names: Sequence[str] | None = None, *, max_length: int | None = 30
) -> list[Problem]:
    """Find names that are long, that repeat each other but for an article or a plural, or that give a class away.

    Parameters
    ----------
    concepts : ConceptSet
    class_names : sequence of str, optional
        A concept that is, or has in it, the whole name of a class is a leak: it explains nothing.
    max_length : int or None
        In characters.

    Examples
    --------
    >>> for problem in name_problems(ConceptSet(["wing", "the wings", "a robin's nest"]), ["robin"]):
    ...     print(problem.kind, problem.detail)
    duplicate 'the wings' repeats 'wing' but for article or plural
    leak "a robin's nest" has the class name 'robin' in it
    """
    problems: list[Problem] = []
    first: dict[str, str] = {}
    classes = {_bare(label.replace("_", " ")): label for label in class_names or ()}
    patterns = {label: re.compile(rf"(?<!\w){re.escape(bare)}(?!\w)") for bare, label in classes.items() if bare}
    for name in concepts:
        if max_length is not None and len(name) > max_length:
            problems.append(Problem("long", name, f"{name!r} has {len(name)} characters, more than {max_length}"))
        key = _bare(name)
        if key in first:
            problems.append(Problem("duplicate", name, f"{name!r} repeats {first[key]!r} but for article or plural"))
        first.setdefault(key, name)
        if key in classes:
            problems.append(Problem("leak", name, f"{name!r} is the class name {classes[key]!r}"))
            continue
        text = " ".join(map(_singular, re.findall(r"\w+", same_name_key(name))))
        inside = next((label for label, pattern in patterns.items() if pattern.search(text)), None)
        if inside is not None:
            problems.append(Problem("leak", name, f"{name!r} has the class name {inside!r} in it"))
    return problems


def _bare(name: str) -> str:
    words = re.findall(r"\w+", strip_article(same_name_key(name)))
    return " ".join(map(_singular, words))


def _singular(word: str) -> str:
    # Good enough to say that two names look alike; nothing is changed by it.
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
