"""Errors that a user can act on: one line, the value, what was expected, what to do."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, named in one line: which value, what was expected, what to do."""


class StoredFileError(InputError):
    """A file or folder that sparsecbm wrote or was given is missing, foreign, damaged or cannot be written."""


class DataWarning(UserWarning):
    """What people should know about their data, in one line; the run goes on."""


class DomainWarning(DataWarning):
    """An encoder is used on pictures or words that it was not trained on: what it says of them means nothing."""


def suggest(value: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(str(value), list(known), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def unknown(what: str, value: object, known: Iterable[str]) -> InputError:
    """Build the error for a name that is not in a registry, with the nearest known name."""
    names = sorted(map(str, known))
    listed = ", ".join(names) if len(names) <= 100 else f"{len(names):,} names, such as {', '.join(names[:3])}"
    return InputError(f"unknown {what} {value!r}: expected one of {listed}{suggest(str(value), names)}")


def printable(text: str, keep: str = "") -> str:
    """Replace control characters but those in `keep`, which could rewrite the terminal, by a visible mark.

    Examples
    --------
    >>> printable("wren\\x1b[2J").isprintable()
    True
    """
    if text.isprintable():
        return text
    return "".join(
        "\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf") and c not in keep else c for c in text
    )
