"""Names from anywhere (classes, concepts, folders, columns): cleaned once where they enter, and matched by form.

Two names have the same *form* if they differ only in Unicode composition, case, blanks, and ``_`` or a dash between
words: ``Great_Dane``, ``great dane`` and ``great-dane``.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sparsecbm._base.errors import InputError, suggest

MAX_NAME = 1000
"""Most characters of a name: more is no name, and takes hours to lay out."""

# Invisible and meaningless in a name, left behind by editors and web pages; joiners that shape letters are kept. Marks
# and overrides of direction would let a name rewrite the line that it stands in.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_JOINED = re.compile("_|(?<=\\w)[-\u2010-\u2015](?=\\w)")
_CURLY = str.maketrans("\u2018\u2019", "''")


def normalise_name(name: str) -> str:
    """Return the name in Unicode NFC, without invisible characters, its runs of white space single blanks.

    Examples
    --------
    >>> normalise_name("  long\\tbill ")
    'long bill'
    """
    visible = unicodedata.normalize("NFC", _INVISIBLE.sub("", name))
    spaced = "".join(" " if unicodedata.category(c) == "Cc" else c for c in visible)
    return " ".join(spaced.split())


def same_name_key(name: str) -> str:
    """Return what all names of one form share.

    Examples
    --------
    >>> same_name_key("Great_Dane") == same_name_key(" great-dane"), same_name_key("-1") == same_name_key("1")
    (True, False)
    """
    normal = normalise_name(name)
    folded = unicodedata.normalize("NFKC", normal).casefold().translate(_CURLY)
    # Case folding may decompose a character again. A minus sign is no dash between words, and stays.
    return unicodedata.normalize("NFC", " ".join(_JOINED.sub(" ", folded).split())) or normal


def check_name(name: object, where: str) -> str:
    """Return `name` if it is text that can be stored and shown.

    Raises
    ------
    InputError
        If it is no text, has more than `MAX_NAME` characters, or holds half a surrogate pair, which no file can store,
        or a NUL, at which other programs would end it.
    """
    if not isinstance(name, str):
        raise InputError(f"{where} is {name!r} ({type(name).__name__}), expected text: put it in quotes")
    if len(name) > MAX_NAME:
        raise InputError(f"{where} has {len(name):,} characters ({name[:40]!r}...): expected at most {MAX_NAME}")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{where} is {name!r}, which holds half a surrogate pair: write it as valid Unicode") from None
    if "\0" in name:
        raise InputError(f"{where} is {name!r}, which holds a NUL: save its file as UTF-8 text, without padding")
    return str(name)  # NumPy's own texts become plain ones


def clean_name(name: object, where: str) -> str:
    """Return a name from outside as it is used from then on: checked, normalised, never blank.

    Parameters
    ----------
    name : object
        Text; bytes are read as UTF-8.
    where : str
        What it names, for messages, such as ``"class 3 of 'a.npz'"``.

    Raises
    ------
    InputError
        If it is no text that can be stored (see `check_name`), or nothing visible is left of it.

    Examples
    --------
    >>> clean_name(b" wren\\n", "class 0")
    'wren'
    """
    if isinstance(name, bytes):
        try:
            name = name.decode("utf-8")
        except UnicodeDecodeError:
            raise InputError(f"{where} is {name[:40]!r}: expected text in UTF-8") from None
    clean = normalise_name(check_name(name, where))
    if not clean:
        raise InputError(f"{where} is {name!r}: expected a name, got nothing visible")
    return clean


def clean_name_array(names: Any, where: str) -> tuple[str, ...]:
    """Clean a one-dimensional array of names, as files of arrays hold them: texts, bytes or whole numbers.

    Raises
    ------
    InputError
        If it has another shape or kind, or a name cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> clean_name_array(np.array([b"cat", b"dog "]), "class names"), clean_name_array(np.arange(2), "class names")
    (('cat', 'dog'), ('0', '1'))
    """
    import numpy as np

    given = np.asarray(names)
    if given.ndim != 1 or given.dtype.kind not in "USOiub":
        raise InputError(f"{where} are an array of {given.dtype} of shape {given.shape}: expected one list of texts")
    texts = given.astype(str) if given.dtype.kind in "iub" else given
    return tuple(clean_name(name, f"{where}: number {i}") for i, name in enumerate(texts.tolist()))


def name_list(names: Sequence[str], limit: int = 8) -> str:
    """Names for a message, cut after `limit`."""
    return ", ".join(map(repr, names[:limit])) + (f" and {len(names) - limit} more" if len(names) > limit else "")


@dataclass(frozen=True)
class NameMatch:
    """Which known name each wanted name is.

    Attributes
    ----------
    positions : tuple of int or None
        Position among the known names of each wanted one; no position is there twice.
    missing : tuple of str
        Wanted names that are not known.
    unused : tuple of str
        Known names that nothing was matched to.
    known : tuple of str
    """

    positions: tuple[int | None, ...]
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    known: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether every wanted name was found."""
        return not self.missing

    def line(self, what: str = "names", limit: int = 5) -> str:
        """Say in one line which wanted names were not matched; empty if all were.

        Examples
        --------
        >>> match_names(["cat", "dgo"], ["Cat", "dog"]).line("classes")
        "1 of 2 classes not found: 'dgo'; did you mean 'dog'?"
        """
        if not self.missing:
            return ""
        near = suggest(self.missing[0], self.known)
        return f"{len(self.missing)} of {len(self.positions)} {what} not found: {name_list(self.missing, limit)}{near}"


def match_names(wanted: Iterable[str], known: Iterable[str]) -> NameMatch:
    """Match names to known names: by the very name, else normalised, else by form.

    A name that several known ones could be is not matched, unless as many wanted names could be any of them: these are
    paired in order (ImageNet has two classes called "missile").

    Examples
    --------
    >>> match_names(["great dane", "wren"], ["Wren", "owl", "Great_Dane"]).positions
    (2, 0)
    """
    wanted, known = tuple(wanted), tuple(known)
    positions: list[int | None] = [None] * len(wanted)
    free = dict.fromkeys(range(len(known)))
    for form in (str, normalise_name, same_name_key):
        left = [i for i, position in enumerate(positions) if position is None]
        if not left or not free:
            break
        of: dict[str, tuple[list[int], list[int]]] = {}
        for j in free:
            of.setdefault(form(known[j]), ([], []))[1].append(j)
        for i in left:
            of.setdefault(form(wanted[i]), ([], []))[0].append(i)
        for asked, there in of.values():
            if len(asked) == len(there):
                for i, j in zip(asked, there):
                    positions[i] = j
                    del free[j]
    missing = tuple(name for name, position in zip(wanted, positions) if position is None)
    return NameMatch(tuple(positions), missing, tuple(known[j] for j in free), known)


@dataclass(frozen=True)
class NameGroups:
    """Names of which some are forms of each other.

    Attributes
    ----------
    names : tuple of str
        One name of each form: the first that was given.
    positions : tuple of int
        Which of `names` each given name is.
    merged : tuple of tuple of str
        The groups of different spellings that became one name each; composition and blanks alone are no news.
    """

    names: tuple[str, ...]
    positions: tuple[int, ...]
    merged: tuple[tuple[str, ...], ...]

    def line(self, what: str = "names", limit: int = 5) -> str:
        """Say in one line which spellings were taken for one name; empty if none were."""
        if not self.merged:
            return ""
        shown = "; ".join(" and ".join(map(repr, group)) for group in self.merged[:limit])
        more = f"; and {len(self.merged) - limit} more" if len(self.merged) > limit else ""
        return f"{what} that differ in form only were taken for one: {shown}{more}"


def group_names(names: Sequence[str]) -> NameGroups:
    """Take clean names of one form together, in order of first appearance; single letters keep their case.

    Examples
    --------
    >>> grouped = group_names(["Great_Dane", "wren", "great dane"])
    >>> grouped.names, grouped.positions
    (('Great_Dane', 'wren'), (0, 1, 0))
    >>> grouped.line("classes")
    "classes that differ in form only were taken for one: 'Great_Dane' and 'great dane'"
    """
    spellings: dict[str, dict[str, None]] = {}
    # "A" and "a" may be what is classified.
    keys = [normalise_name(name) if len(normalise_name(name)) == 1 else same_name_key(name) for name in names]
    for key, name in zip(keys, names):
        spellings.setdefault(key, {})[normalise_name(name)] = None
    number = {key: i for i, key in enumerate(spellings)}
    groups = [tuple(group) for group in spellings.values()]
    return NameGroups(
        tuple(group[0] for group in groups),
        tuple(number[key] for key in keys),
        tuple(group for group in groups if len(group) > 1),
    )
