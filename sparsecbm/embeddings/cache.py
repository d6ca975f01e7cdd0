"""What lies in the cache of embeddings, and how it is pruned.

Entries are looked at without a lock: what a manifest says is shown, what is half-written is shown as unfinished. To
remove an entry its lock is taken, without waiting; what a process is writing is left alone. An entry is renamed first
and deleted then, so that a reader finds all of it or nothing, and a pruning that was killed leaves only folders that
the next one deletes.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import read_json
from sparsecbm.embeddings.store import FORMAT, cache_dir, locked

State = Literal["complete", "unfinished"]

_KEY = re.compile(r"[0-9a-f]{64}")
_DOOMED = re.compile(r"\.pruned-[0-9a-f]{32}")


@dataclass(frozen=True)
class CacheEntry:
    """One array of the cache, or what a stopped run left of one.

    Attributes
    ----------
    key : str
        SHA-256 that names it.
    state : {"complete", "unfinished"}
        Unfinished entries are resumed by the command that began them.
    kind : {"images", "texts"} or None
        What was embedded; None where only an unfinished entry lies.
    encoder : str or None
        Spec of the encoder.
    source : str or None
        Image spec and split, or the prompt templates.
    rows, dim : int or None
        Shape of the array.
    dtype : str or None
    bytes : int
        Size of all files of the entry.
    made, used : float
        Seconds since 1970 of the last writing and the last opening.
    """

    key: str
    state: State
    bytes: int
    made: float
    used: float
    kind: str | None = None
    encoder: str | None = None
    source: str | None = None
    rows: int | None = None
    dim: int | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class PruneReport:
    """What `prune_cache` did.

    Attributes
    ----------
    removed, kept : tuple of CacheEntry
        Least recently used first.
    busy : tuple of CacheEntry
        Entries that would have gone, but that a process is writing.
    freed_bytes : int
        Size of the removed entries and of left-overs of killed runs.
    dry_run : bool
        Whether nothing was removed in truth.
    """

    removed: tuple[CacheEntry, ...]
    kept: tuple[CacheEntry, ...]
    busy: tuple[CacheEntry, ...] = ()
    freed_bytes: int = 0
    dry_run: bool = False


def cache_entries(root: str | Path | None = None) -> list[CacheEntry]:
    """List the entries of the cache, least recently used first; nothing is changed.

    Parameters
    ----------
    root : path, optional
        The cache folder; None takes `cache_dir`.

    Raises
    ------
    StoredFileError
        If the folder cannot be listed.
    """
    home = _home(root)
    if not home.is_dir():
        return []
    try:
        folders = [path for path in home.iterdir() if _KEY.fullmatch(path.name)]
    except OSError as error:
        raise StoredFileError(f"cannot read the cache folder {str(home)!r}: {error.strerror or error}") from error
    # A link is nobody's entry: neither shown nor followed.
    entries = [_look(path) for path in folders if path.is_dir() and not path.is_symlink()]
    return sorted((entry for entry in entries if entry is not None), key=lambda entry: (entry.used, entry.key))


def prune_cache(
    root: str | Path | None = None,
    *,
    older_than: float | None = None,
    max_bytes: int | None = None,
    dry_run: bool = False,
) -> PruneReport:
    """Remove entries by age, then by size.

    Parameters
    ----------
    root : path, optional
        The cache folder; None takes `cache_dir`.
    older_than : float, optional
        Remove what was not used for so many seconds.
    max_bytes : int, optional
        Then remove what was least recently used until the rest takes at most so much; 0 empties the cache.
    dry_run : bool
        Only say what would go.

    Raises
    ------
    InputError
        If neither limit is given, or one is negative.
    StoredFileError
        If an entry cannot be removed.
    """
    if older_than is None and max_bytes is None:
        raise InputError("nothing to prune by: give older_than, max_bytes or both")
    for name, value in (("older_than", older_than), ("max_bytes", max_bytes)):
        if value is not None and not value >= 0:
            raise InputError(f"{name}={value!r}: expected a number that is not negative")
    home, now = _home(root), time.time()
    entries = cache_entries(root)
    left = sum(entry.bytes for entry in entries)
    removed: list[CacheEntry] = []
    kept: list[CacheEntry] = []
    busy: list[CacheEntry] = []
    for entry in entries:
        old = older_than is not None and now - entry.used > older_than
        if not old and (max_bytes is None or left <= max_bytes):
            kept.append(entry)
        elif dry_run or _remove(home, entry):
            removed.append(entry)
            left -= entry.bytes
        else:
            busy.append(entry)
            kept.append(entry)
    freed = sum(entry.bytes for entry in removed) + _sweep(home, dry_run)
    return PruneReport(tuple(removed), tuple(kept), tuple(busy), freed, dry_run)


def _home(root: str | Path | None) -> Path:
    return (cache_dir() if root is None else Path(root).expanduser()) / "embeddings"


def _scan(folder: Path) -> tuple[int, dict[str, float]]:
    """Bytes of a folder's files, and times by name, at one moment; they may vanish while being looked at."""
    size, times = 0, {}
    for path in (folder, *folder.rglob("*")):
        with contextlib.suppress(OSError):
            status = path.lstat()
            size += status.st_size if path.is_symlink() or path.is_file() else 0
            times[path.name] = status.st_mtime
    return size, times


def _look(folder: Path) -> CacheEntry | None:
    size, times = _scan(folder)
    if not folder.exists():
        return None  # removed since it was listed
    noted: Any = None
    with contextlib.suppress(StoredFileError):
        noted = read_json(folder / "manifest.json")
    if not isinstance(noted, dict) or noted.get("format") != FORMAT or "vectors.npy" not in times:
        newest = max(times.values(), default=0.0)
        return CacheEntry(folder.name, "unfinished", size, newest, newest)
    provenance = noted.get("provenance")
    provenance = provenance if isinstance(provenance, dict) else {}
    kind = next((kind for kind in ("images", "texts") if isinstance(provenance.get(kind), dict)), None)
    shape = noted.get("shape")
    rows, dim = shape if isinstance(shape, list) and len(shape) == 2 else (None, None)
    made = times["vectors.npy"]
    return CacheEntry(
        folder.name,
        "complete",
        size,
        made,
        max(made, times.get("manifest.json", 0.0)),
        kind,
        _text(provenance.get("encoder"), "spec"),
        _source(provenance, kind),
        rows if isinstance(rows, int) else None,
        dim if isinstance(dim, int) else None,
        str(noted["dtype"]) if "dtype" in noted else None,
    )


def _text(held: Any, key: str) -> str | None:
    return str(held[key]) if isinstance(held, dict) and held.get(key) is not None else None


def _source(provenance: dict[str, Any], kind: str | None) -> str | None:
    if kind == "images":
        words = [_text(provenance["images"], key) for key in ("spec", "split")]
        return " ".join(word for word in words if word) or None
    templates = provenance["texts"].get("templates") if kind == "texts" else None
    return ", ".join(map(str, templates)) if isinstance(templates, list) else None


def _remove(home: Path, entry: CacheEntry) -> bool:
    """Remove an entry unless a process is writing it; whether it is gone."""
    from filelock import Timeout

    folder, doomed = home / entry.key, home / f".pruned-{uuid.uuid4().hex}"
    try:
        with locked(home / f"{entry.key}.lock", wait=False):
            folder.rename(doomed)
    except Timeout:
        return False
    except FileNotFoundError:
        return True  # somebody else pruned it
    except OSError as error:
        raise StoredFileError(f"cannot remove {str(folder)!r}: {error.strerror or error}") from error
    _delete(doomed)
    return True


def _sweep(home: Path, dry_run: bool) -> int:
    """Delete what a killed pruning left; its size."""
    freed = 0
    for path in home.iterdir() if home.is_dir() else ():
        if _DOOMED.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            freed += _scan(path)[0]
            if not dry_run:
                _delete(path)
    return freed


def _delete(folder: Path) -> None:
    try:
        shutil.rmtree(folder)  # links inside are removed, not followed
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StoredFileError(f"cannot remove {str(folder)!r}: {error.strerror or error}") from error
