"""`cache_run` and `prune_run`: what lies in the cache of embeddings, and less of it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from sparsecbm._base.errors import InputError
from sparsecbm.runs.base import Result

_AGES = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_SIZES = {"": 1, **{f"{unit}{i}": (1024 if i else 1000) ** k for k, unit in enumerate("kmgt", 1) for i in ("", "i")}}


@dataclass(frozen=True)
class CacheResult(Result):
    """Entries of the cache, least recently used first; see `sparsecbm.embeddings.CacheEntry`."""

    folder: str
    entries: tuple[Any, ...]

    @property
    def bytes(self) -> int:
        """Size of all entries."""
        return sum(entry.bytes for entry in self.entries)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; times in seconds since 1970."""
        return {"folder": self.folder, "bytes": self.bytes, "entries": [asdict(entry) for entry in self.entries]}


@dataclass(frozen=True)
class PruneResult(Result):
    """What a pruning removed; see `sparsecbm.embeddings.PruneReport`."""

    folder: str
    report: Any

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        lists = {name: [asdict(entry) for entry in getattr(self.report, name)] for name in ("removed", "kept", "busy")}
        return {
            "folder": self.folder,
            "freed_bytes": self.report.freed_bytes,
            "dry_run": self.report.dry_run,
            **lists,
        }


def cache_run() -> CacheResult:
    """List the cache of embeddings.

    Raises
    ------
    StoredFileError
        If its folder cannot be read.
    """
    from sparsecbm.embeddings import cache_dir, cache_entries

    return CacheResult(str(cache_dir()), tuple(cache_entries()))


def prune_run(older_than: str | None = None, max_size: str | None = None, *, dry_run: bool = False) -> PruneResult:
    """Remove entries of the cache by age, then the least recently used ones down to a size.

    Parameters
    ----------
    older_than : str, optional
        Age since the last use, such as ``"30d"``, ``"12h"`` or ``"2w"``.
    max_size : str, optional
        Size to come down to, such as ``"5GB"``, ``"500MB"``, ``"2GiB"`` or ``"0"``.
    dry_run : bool
        Only say what would go.

    Raises
    ------
    InputError
        If neither is given, or one is no age or size.
    StoredFileError
        If an entry cannot be removed.
    """
    from sparsecbm.embeddings import cache_dir, prune_cache

    if older_than is None and max_size is None:
        raise InputError("nothing to prune by: give --older-than 30d, --max-size 5GB, or both; --max-size 0 empties it")
    age = None if older_than is None else parse_age(older_than)
    size = None if max_size is None else parse_size(max_size)
    return PruneResult(str(cache_dir()), prune_cache(older_than=age, max_bytes=size, dry_run=dry_run))


def parse_age(text: str) -> float:
    """Seconds of an age such as ``"30d"``.

    Examples
    --------
    >>> parse_age("12h")
    43200.0
    """
    match = re.fullmatch(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([smhdw])\s*", text.lower())
    if match is None:
        raise InputError(f"age {text!r}: expected a number and s, m, h, d or w, such as 30d")
    return float(match[1]) * _AGES[match[2]]


def parse_size(text: str) -> int:
    """Bytes of a size such as ``"5GB"`` (10**9 each) or ``"5GiB"`` (2**30 each).

    Examples
    --------
    >>> parse_size("1.5kB"), parse_size("2 MiB"), parse_size("0")
    (1500, 2097152, 0)
    """
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([kmgt]?i?)b?\s*", text.lower())
    if match is None or match[2] not in _SIZES:
        raise InputError(f"size {text!r}: expected a number and kB, MB, GB, TB or KiB, MiB, GiB, TiB, such as 5GB")
    return int(float(match[1]) * _SIZES[match[2]])
