"""Normalised, unique concept names, and a report of what that changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sparsecbm._base.names import check_name, name_list, normalise_name, same_name_key


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
    def reasons(self) -> list[tuple[str, str]]:
        """Each name that was dropped, and why."""
        return [(name, f"repeats {first!r}") for name, first in self.duplicates]

    @property
    def lines(self) -> tuple[str, ...]:
        """One line for each change, for people."""
        lines = [f"rewrote {old!r} as {new!r}" for old, new in self.rewritten]
        lines += [f"dropped {name!r}: {reason}" for name, reason in self.reasons]
        if self.blank:
            lines.append(f"dropped {self.blank} blank name{'s' if self.blank > 1 else ''}")
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines) or "nothing changed"


def by_reason(dropped: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Names that were dropped, by their reason.

    Examples
    --------
    >>> by_reason([("Jay", "repeats 'jay'"), ("a", "too short"), ("b", "too short")])
    {"repeats 'jay'": ['Jay'], 'too short': ['a', 'b']}
    """
    found: dict[str, list[str]] = {}
    for name, reason in dropped:
        found.setdefault(reason, []).append(name)
    return found


def dropped_lines(dropped: Mapping[str, Sequence[str]], limit: int = 8) -> list[str]:
    """One line a reason; of its names the first ones."""
    return [f"dropped {name_list(list(names), limit)}: {reason}" for reason, names in dropped.items()]


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
