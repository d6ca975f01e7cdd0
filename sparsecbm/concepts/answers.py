"""Concept names out of what a language model wrote."""

from __future__ import annotations

import re
import unicodedata

from sparsecbm._base.names import normalise_name, same_name_key

_MARKER = re.compile(r"^\s*(?:[-*+•‣◦▪●·–—]+\s*|\(?(?:\d{1,3}|[A-Za-z])[.)]\s+|\(?\d{1,3}[.):]\s*)+")
_STOP = re.compile(r"^\s*(?:q(?:uestion)?|human|user|example)\s*\d*\s*[:.]", re.IGNORECASE)
_TALK = re.compile(
    r"^\s*(?:a(?:nswer)?|assistant)\s*:|^\s*(?:sure|certainly|of course|here (?:are|is)|these are|the following)\b",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(?:a|an|the|some|its|their)\s+(?=\S)", re.IGNORECASE)
_QUOTES = "\"'`´“”‘’„«»*_ "


def strip_article(name: str) -> str:
    """Return a name without its leading article; a blank stays a blank, and *anchor* keeps its letters.

    Examples
    --------
    >>> [strip_article(name) for name in ("a red crown", "An owl", "anchor", "the", "  ", "")]
    ['red crown', 'owl', 'anchor', 'the', '', '']
    """
    return _ARTICLE.sub("", name.strip())


def parse_answer(text: str, *, max_words: int = 8, dropped: list[tuple[str, str]] | None = None) -> list[str]:
    """Return the concept names in a model's answer, in order and without repetitions.

    Understands bullets, numbers and letters in front, several answers in one line (commas, semicolons), quotes,
    markdown emphasis, explanations after a colon, a dash or in brackets, articles, and small talk before the list. What
    follows a line that asks the next question is not read.

    Parameters
    ----------
    text : str
        Free text.
    max_words : int
        Longer entries are sentences, not concepts, and are left out.
    dropped : list, optional
        Takes those and the reason.

    Examples
    --------
    >>> parse_answer("Here are some:\\n1. A long bill\\n2) \\"Webbed feet\\".\\n- **Tail**: forked\\n\\n* a long bill")
    ['long bill', 'webbed feet', 'tail']
    >>> parse_answer("feathers, a beak; two wings and claws")
    ['feathers', 'beak', 'two wings', 'claws']
    >>> parse_answer("")
    []
    """
    lines = _lines(text)
    marked = [line for line in lines if _MARKER.match(line)]
    # Prose around a list is talk; without any list, each line is an entry or several.
    entries = marked if len(marked) >= 2 else lines
    names: list[str] = []
    seen: set[str] = set()
    for line in entries:
        body = _MARKER.sub("", line)
        for piece in _pieces(body, several=not _MARKER.match(line) or len(entries) == 1):
            name = _clean(piece)
            key = same_name_key(name)
            if not name or key in seen:
                continue
            seen.add(key)
            if len(name.split()) <= max_words:
                names.append(name)
            elif dropped is not None:
                dropped.append((name, f"a sentence, of more than {max_words} words"))
    return names


def _lines(text: str) -> list[str]:
    lines: list[str] = []
    for line in re.split(r"\r\n|\r|\n", text):
        if _STOP.match(line):
            break
        if _TALK.match(line) and not _MARKER.match(line):
            line = line.partition(":")[2]
        if line.strip():
            lines.append(line)
    return lines


def _pieces(body: str, several: bool) -> list[str]:
    if not several:
        return [body]
    if ";" not in body and "," not in body:
        return [body]
    *front, last = [piece for piece in re.split(r"[;,]", body) if piece.strip()] or [""]
    last = re.sub(r"^\s*(?:and|or)\s+", "", last)
    return [*front, *re.split(r"\s+(?:and|or)\s+", last)]


def _clean(piece: str) -> str:
    text = normalise_name(piece)
    text = re.sub(r"[*_`]{1,3}([^*_`]+)[*_`]{1,3}", r"\1", text)
    text = re.split(r":(?=\s|$)|\s[-–—]\s|\s?\(", text, maxsplit=1)[0]
    text = text.strip(_QUOTES).rstrip(".,;:!? ").strip(_QUOTES)
    text = strip_article(text).strip(_QUOTES)
    if same_name_key(text) in {"a", "an", "the", "none", "n/a", "etc", "and", "or"}:
        return ""
    if not any(unicodedata.category(c).startswith("L") for c in text):
        return ""
    first, _, rest = text.partition(" ")
    # The capital of a list entry is no part of the name; those of acronyms are.
    if first[1:] == first[1:].lower() and first[1:2] != "-":
        first = first.lower()
    return f"{first} {rest}" if rest else first
