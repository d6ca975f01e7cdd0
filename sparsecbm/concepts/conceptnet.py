"""Concept names from a ConceptNet dump: what things have, are, are made of, and where they are found.

Reads the published assertions file (``conceptnet-assertions-5.7.0.csv.gz``, or unpacked), a line an assertion with five
fields between tabs: its own address, relation, start, end, and JSON with its weight. The file is streamed; of its 34
million lines only English ones about the classes are kept.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.names import normalise_name, same_name_key
from sparsecbm._base.progress import ProgressBar
from sparsecbm.concepts.answers import strip_article
from sparsecbm.concepts.concept_set import ConceptSet

RELATIONS: dict[str, tuple[str, bool, bool]] = {
    "/r/HasA": ("features", True, False),
    "/r/PartOf": ("features", False, True),
    "/r/HasProperty": ("features", True, False),
    "/r/MadeOf": ("features", True, False),
    "/r/AtLocation": ("surroundings", True, True),
    "/r/IsA": ("superclass", True, False),
}
"""Relation -> group, whether its end is a concept of its start, and whether its start is a concept of its end."""

_MAX_LINE = 1 << 20


def conceptnet_concepts(
    path: str | Path,
    class_names: Sequence[str],
    *,
    relations: Sequence[str] = tuple(RELATIONS),
    min_weight: float = 1.0,
    per_class: int | None = 30,
    head_nouns: bool = True,
    progress: bool | None = None,
) -> ConceptSet:
    """Collect what a ConceptNet dump says about the classes.

    Parameters
    ----------
    path : path
        Assertions, ``.csv`` or ``.csv.gz``.
    class_names : sequence of str of length K
    relations : sequence of str
        Some of `RELATIONS`.
    min_weight : float
        Weaker assertions are left out; most have weight 1, those that several people made more.
    per_class : int or None
        At most so many concepts a class, those of the largest total weight.
    head_nouns : bool
        Where nothing is said about a class of several words ("painted bunting"), take what is said about the last one.
    progress : bool or None
        See `ProgressBar`.

    Returns
    -------
    ConceptSet
        Relevance: total weight of the assertions; group: by relation; the counts in the provenance.

    Raises
    ------
    InputError
        If a relation is unknown, or the dump says nothing about the classes.
    StoredFileError
        If the file cannot be read or is no ConceptNet dump.
    """
    for relation in relations:
        if relation not in RELATIONS:
            from sparsecbm._base.errors import unknown

            raise unknown("relation", relation, RELATIONS)
    wanted: dict[str, list[tuple[int, bool]]] = {}
    for k, label in enumerate(class_names):
        words = same_name_key(strip_article(label.replace("_", " "))).split()
        if words:
            wanted.setdefault("_".join(words), []).append((k, True))
        if head_nouns and len(words) > 1:
            wanted.setdefault(words[-1], []).append((k, False))
    found: list[dict[bool, dict[str, float]]] = [{True: {}, False: {}} for _ in class_names]
    group_of: dict[str, str] = {}
    for relation, start, end, weight in _assertions(Path(path), set(relations), progress):
        if weight < min_weight:
            continue
        group, forward, backward = RELATIONS[relation]
        for about, says, applies in ((start, end, forward), (end, start, backward)):
            if not applies or about not in wanted or says == about:
                continue
            name = normalise_name(says.replace("_", " "))
            group_of.setdefault(name, group)
            for k, exact in wanted[about]:
                held = found[k][exact]
                held[name] = held.get(name, 0.0) + weight
    relevance, by_head, nothing, beyond = {}, [], [], []
    for label, weights in zip(class_names, found):
        best = weights[True] or weights[False]
        if not weights[True] and weights[False]:
            by_head.append(label)
        if not best:
            nothing.append(label)
        ranked = sorted(best.items(), key=lambda entry: (-entry[1], entry[0]))
        relevance[label] = dict(ranked[:per_class])
        beyond += [name for name, _ in ranked[len(relevance[label]) :]]
    names = list(dict.fromkeys(name for entries in relevance.values() for name in entries))
    if not names:
        raise InputError(
            f"{str(path)!r} says nothing about the {len(class_names)} classes (first {class_names[0]!r}) with weight "
            f"{min_weight} or more: expected English nouns"
        )
    provenance = {
        "source": "ConceptNet",
        "file": Path(path).name,
        "relations": list(relations),
        "min_weight": min_weight,
        "per_class": per_class,
        "classes by their last word": by_head,
        "classes without concepts": nothing,
    }
    made = ConceptSet(names, groups=[group_of[name] for name in names], relevance=relevance, provenance=provenance)
    why = f"not among the {per_class} of largest weight of any class"
    return made.noted((name, why) for name in dict.fromkeys(beyond) if name not in made)


def _assertions(path: Path, relations: set[str], progress: bool | None) -> Iterator[tuple[str, str, str, float]]:
    """English assertions: relation, start, end (words joined by underscores), weight."""
    keys = {relation.encode() for relation in relations}
    lines = odd = 0
    try:
        size = path.stat().st_size
        with path.open("rb") as raw, ProgressBar(f"Reading {path.name}", size, progress) as bar:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            place = 0
            with closing(gzip.open(raw) if zipped else raw) as handle:
                for line in _limited(handle):
                    lines += 1
                    if lines % 65536 == 0:
                        bar.update(raw.tell() - place)
                        place = raw.tell()
                    fields = line.rstrip(b"\r\n").split(b"\t")
                    if len(fields) != 5 or not fields[1].startswith(b"/r/"):
                        odd += 1
                        if odd > 100 and odd > lines / 2:
                            break
                        continue
                    if fields[1] not in keys:
                        continue
                    if not (fields[2].startswith(b"/c/en/") and fields[3].startswith(b"/c/en/")):
                        continue
                    start, end = fields[2].split(b"/")[3].decode(), fields[3].split(b"/")[3].decode()
                    yield fields[1].decode(), start, end, float(json.loads(fields[4])["weight"])
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        text = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise StoredFileError(f"cannot read {str(path)!r} (line {lines}): {text}; get it again") from error
    if odd * 2 > lines or not lines:
        raise StoredFileError(
            f"{str(path)!r} is no ConceptNet dump: {odd} of {lines} lines are not five fields with a relation"
        )


def _limited(handle: BinaryIO | gzip.GzipFile) -> Iterator[bytes]:
    while line := handle.readline(_MAX_LINE):
        yield line
