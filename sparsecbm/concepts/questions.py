"""Concept names from class names, by asking a language model the three usual questions.

After Oikarinen et al. 2023 (arXiv 2304.06129), section 3.1: what features help to recognise a class, what is seen
around it, what kinds of thing it is. Answers are kept in a journal as they come, so an interrupted build goes on where
it stopped and no answer is asked for twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.names import same_name_key
from sparsecbm._base.progress import ProgressBar
from sparsecbm.concepts.answers import parse_answer
from sparsecbm.concepts.concept_set import ConceptSet

QUESTIONS: dict[str, str] = {
    "features": (
        "Question: Which visible parts, colours, shapes and textures help to recognise a picture of a goldfish?\n"
        "Answer:\n- bright orange scales\n- a short rounded body\n- flowing fins\n- large round eyes\n\n"
        "Question: Which visible parts, colours, shapes and textures help to recognise a picture of a {}?\nAnswer:\n-"
    ),
    "surroundings": (
        "Question: Which things are often seen around a goldfish?\n"
        "Answer:\n- a glass bowl\n- water plants\n- coloured pebbles\n- air bubbles\n\n"
        "Question: Which things are often seen around a {}?\nAnswer:\n-"
    ),
    "superclass": (
        "Question: Which kinds of thing is a goldfish?\nAnswer:\n- a fish\n- a pet\n- an aquatic animal\n\n"
        "Question: Which kinds of thing is a {}?\nAnswer:\n-"
    ),
}
"""Each with one worked answer, so that a plain language model goes on in the same form; {} is the class."""

Generate = Callable[[Sequence[str], int], Sequence[str]]
"""Prompts and a seed to one answer each."""


def ask_for_concepts(
    class_names: Sequence[str],
    generate: Generate,
    *,
    model: str,
    questions: Mapping[str, str] = QUESTIONS,
    journal: str | Path | None = None,
    seed: int = 0,
    options: Mapping[str, Any] | None = None,
    progress: bool | None = None,
) -> ConceptSet:
    """Ask the questions about every class and collect the answers.

    Parameters
    ----------
    class_names : sequence of str of length K
    generate : callable
        ``generate(prompts, seed)`` returns one answer a prompt; called once a class, with a seed of that class.
    model : str
        Its name, for the provenance and so that a journal of another model is not taken up.
    questions : mapping of str to str
        Name of the question -> prompt with one ``{}``.
    journal : path, optional
        File of answers so far, a JSON value a line. Removed by the caller when the result is safe.
    seed : int
    options : mapping, optional
        How answers are drawn (JSON values), for the same two purposes as `model`.
    progress : bool or None
        See `ProgressBar`.

    Returns
    -------
    ConceptSet
        With relevance 1 for the classes whose answers named a concept, the question that first did as its group, and
        the questions and counts in its provenance.

    Raises
    ------
    InputError
        If there is no class, a prompt lacks ``{}``, or no answer holds a concept.
    StoredFileError
        If the journal is of another build or cannot be written.
    """
    if not class_names:
        raise InputError("no class names to ask about: expected at least one")
    for name, prompt in questions.items():
        if prompt.count("{}") != 1:
            raise InputError(f"question {name!r} must have exactly one {{}} for the class: {prompt!r}")
    task = {"model": model, "questions": dict(questions), "seed": seed, "options": dict(options or {})}
    answers = _Journal(journal, task)
    relevance: dict[str, list[str]] = {}
    group_of: dict[str, str] = {}
    spelling: dict[str, str] = {}
    dropped: list[tuple[str, str]] = []
    with ProgressBar("Asking for concepts", len(class_names), progress) as bar:
        for label in class_names:
            shown = label.replace("_", " ")
            given = answers.get(label)
            if given is None:
                prompts = [prompt.replace("{}", shown) for prompt in questions.values()]
                given = dict(zip(questions, map(str, generate(prompts, _seed_of(seed, label)))))
                answers.add(label, given)
            mine: dict[str, str] = {}
            for question in questions:
                for name in parse_answer(given[question], dropped=dropped):
                    key = same_name_key(name)
                    name = spelling.setdefault(key, name)
                    group_of.setdefault(name, question)
                    mine.setdefault(key, name)
            relevance[label] = list(mine.values())
            bar.update(note=shown)
    names = list(group_of)
    if not names:
        raise InputError(
            f"no answer of {model!r} about {len(class_names)} classes holds a concept; the first was "
            f"{next(iter((answers.get(class_names[0]) or {}).values()))[:80]!r}: try another model"
        )
    counts = {question: sum(group == question for group in group_of.values()) for question in questions}
    provenance = {
        "source": "language model",
        "model": model,
        "seed": seed,
        **dict(options or {}),
        "questions": dict(questions),
        "concepts by question": counts,
        "classes without concepts": [label for label, found in relevance.items() if not found],
    }
    made = ConceptSet(names, groups=[group_of[name] for name in names], relevance=relevance, provenance=provenance)
    return made.noted(dict.fromkeys(dropped))


def _seed_of(seed: int, label: str) -> int:
    digest = hashlib.sha256(f"{seed}\0{label}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


class _Journal:
    """Answers by class, appended to a file as they come; a line cut off by an interruption is asked for again."""

    def __init__(self, path: str | Path | None, task: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.answers: dict[str, dict[str, str]] = {}
        header = {"task": hashlib.sha256(json.dumps(task, sort_keys=True).encode()).hexdigest()}
        if self.path is None:
            return
        whole = self._read(header) if self.path.exists() else []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("w" if not whole else "r+b") as handle:
                if whole:
                    handle.truncate(sum(map(len, whole)))
                else:
                    handle.write(json.dumps(header) + "\n")
        except OSError as error:
            raise StoredFileError(f"cannot write {str(self.path)!r}: {error.strerror or error}") from error

    def _read(self, header: Mapping[str, str]) -> list[bytes]:
        assert self.path is not None
        lines = [line for line in self.path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
        for number, line in enumerate(lines):
            try:
                entry = json.loads(line)
                if number == 0:
                    if entry != header:
                        raise StoredFileError(
                            f"{str(self.path)!r} holds answers of another model, other questions or another seed: "
                            "remove it, or build with the same"
                        )
                else:
                    self.answers[str(entry["class"])] = {str(q): str(a) for q, a in entry["answers"].items()}
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                if isinstance(error, StoredFileError):
                    raise
                raise StoredFileError(f"{str(self.path)!r}, line {number + 1} is damaged: remove the file") from error
        return lines

    def get(self, label: str) -> dict[str, str] | None:
        return self.answers.get(label)

    def add(self, label: str, answers: dict[str, str]) -> None:
        self.answers[label] = answers
        if self.path is None:
            return
        try:
            with self.path.open("ab") as handle:
                handle.write((json.dumps({"class": label, "answers": answers}, ensure_ascii=False) + "\n").encode())
        except OSError as error:
            raise StoredFileError(f"cannot write {str(self.path)!r}: {error.strerror or error}") from error
