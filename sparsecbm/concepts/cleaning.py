"""Normalised, unique concept names, and a report of what that changed."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from sparsecbm._base.errors import InputError

# Invisible and meaningless in a name, left behind by editors and web pages; joiners that shape letters are kept.
_INVISIBLE = str.maketrans("", "", "\u00ad\u200b\u2060\ufeff")


def normalise_name(name: str) -> str:
    """Return the name in Unicode NFC, without invisible characters, its runs of white space single blanks.

    Examples
    --------
    >>> normalise_name("  long\\tbill ")
    'long bill'
    """
    visible = unicodedata.normalize("NFC", name.translate(_INVISIBLE))
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in visible)
    return " ".join(spaced.split())


def same_name_key(name: str) -> str:
    """Return what two names share that differ only in case, white space or Unicode form."""
    # Case folding may decompose a character again.
    return unicodedata.normalize("NFC", normalise_name(name).casefold())


def check_name(name: object, where: str) -> str:
    """Return `name` if it is text that can be stored.

    Raises
    ------
    InputError
        If it is no text, or holds half a surrogate pair, which no file can store.
    """
    if not isinstance(name, str):
        raise InputError(f"{where} is {name!r} ({type(name).__name__}), expected text: put it in quotes")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{where} is {name!r}, which holds half a surrogate pair: write it as valid Unicode") from None
    return name


@dataclass(frozen=True)
class CleaningReport:
    """What cleaning a list of names changed.

    Attributes
    ----------
    kept : tuple of int
        Position in the original list of each name that stayed.
    rewritten : tuple of (str, str)
        Names that were normalised: before, after.
    duplicates : tuple of (str, str)
        Names that were dropped, each with the earlier name that it repeats.
    blank : int
        Empty names that were dropped.
    """

    kept: tuple[int, ...] = ()
    rewritten: tuple[tuple[str, str], ...] = ()
    duplicates: tuple[tuple[str, str], ...] = ()
    blank: int = 0

    @property
    def changed(self) -> bool:
        """Whether anything was changed or dropped."""
        return bool(self.rewritten or self.duplicates or self.blank)

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each change, for people."""
        lines = [f"rewrote {old!r} as {new!r}" for old, new in self.rewritten]
        lines += [f"dropped {name!r}: repeats {first!r}" for name, first in self.duplicates]
        if self.blank:
            lines.append(f"dropped {self.blank} blank name{'s' if self.blank > 1 else ''}")
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines) or "nothing changed"


def clean_names(names: Iterable[object], where: str = "concept") -> tuple[list[str], CleaningReport]:
    """Normalise names, then drop blanks and repetitions (whatever their case), keeping the first of each.

    Raises
    ------
    InputError
        If a name is not text.

    Examples
    --------
    >>> names, report = clean_names(["red  wing", "Red wing", "", "bill"])
    >>> names
    ['red wing', 'bill']
    >>> print(report)
    rewrote 'red  wing' as 'red wing'
    dropped 'Red wing': repeats 'red wing'
    dropped 1 blank name
    """
    clean: list[str] = []
    first: dict[str, str] = {}
    kept, rewritten, duplicates, blank = [], [], [], 0
    for position, raw in enumerate(names):
        name = normalise_name(check_name(raw, f"{where} number {position + 1}"))
        key = same_name_key(name)
        if not name:
            blank += 1
        elif key in first:
            duplicates.append((str(raw), first[key]))
        else:
            if name != raw:
                rewritten.append((str(raw), name))
            first[key] = name
            clean.append(name)
            kept.append(position)
    return clean, CleaningReport(tuple(kept), tuple(rewritten), tuple(duplicates), blank)
