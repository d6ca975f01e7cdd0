"""Files and folders written beside and renamed, and checksums: nobody ever reads a half-written one."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import math
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from safetensors import SafetensorError

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.untrusted import read_bytes


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; rename it to `path` on success, remove it on failure.

    Raises
    ------
    StoredFileError
        If the folder cannot be written (no permission, full disk, read-only file system).
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files private to the owner; a result should be as readable as any other new file.
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    # What the system says to safetensors comes as text in its own error.
    except (OSError, SafetensorError) as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: Exception) -> StoredFileError:
    """Build the error for what the system would not let be written."""
    return StoredFileError(
        f"cannot write {str(path)!r}: {getattr(error, 'strerror', None) or error}; "
        "free some space or choose a folder you may write to"
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def atomic_write(path: str | Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Call ``write(binary file)`` on a temporary file, then rename it to `path`."""
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        write(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    atomic_write(path, lambda handle: handle.write(text.encode("utf-8")))


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON atomically; NaN and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def check_free(path: str | Path | None, force: bool) -> None:
    """Refuse to replace a file, unless told to.

    Raises
    ------
    InputError
        If it is there and `force` is False.
    """
    if path is not None and Path(path).exists() and not force:
        raise InputError(f"{str(path)!r} is there already: give another name, or --force (force=True) to replace it")


def replace_folder(path: str | Path, write: Callable[[Path], Any], *, keep: bool = False) -> None:
    """Call ``write(new folder)`` and put that folder in the place of `path`, whole or not at all.

    Parameters
    ----------
    path : path
    write : callable
        Makes the folder that it is given.
    keep : bool
        Whether the new folder begins as a copy of the old one.

    Raises
    ------
    StoredFileError
        If it cannot be written; the old one stays.
    """
    path = Path(path).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            new = beside / "new"
            if keep and path.is_dir():
                shutil.copytree(path, new, symlinks=True)
            write(new)
            with locked(path.parent):
                if path.exists():
                    _exchange(new, path)
                else:
                    new.rename(path)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise cannot_write(path, error) from error


@contextlib.contextmanager
def locked(folder: str | Path, *, wait: bool = True) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of a folder; where the system has no such lock, do nothing.

    The lock is the folder's own, so that no file is left, and a killed process leaves it.

    Raises
    ------
    BlockingIOError
        If another holds it and `wait` is False.
    FileNotFoundError
        If the folder is not there, or has just gone.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # a file system without such locks
            yield
            return
        # Who held it may have put another folder in its place.
        while not os.path.samestat(os.fstat(handle), os.stat(folder)):  # noqa: PTH116
            os.close(handle)
            handle = os.open(folder, os.O_RDONLY)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def _exchange(new: Path, path: Path) -> None:
    """Swap two folders: in one step where the system can (Linux), so that a kill never finds neither."""
    swap = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if swap is None or swap(here, os.fsencode(new), here, os.fsencode(path), exchange) != 0:
        old = new.with_name("old")
        path.rename(old)
        try:
            new.rename(path)
        except BaseException:  # also an interrupt
            old.rename(path)
            raise


def remove_leftovers(folder: str | Path, names: Iterable[str] | None = None) -> None:
    """Remove what killed processes left half-written of files and folders of these names; None for all names."""
    chosen = "[^/]+" if names is None else "|".join(map(re.escape, names))
    pattern = re.compile(rf"\.({chosen})\.[a-z0-9_]{{8}}\.tmp")
    for path in Path(folder).iterdir():
        if pattern.fullmatch(path.name):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises
    ------
    StoredFileError
        If the file is missing, larger than `sparsecbm._base.untrusted.MAX_TEXT_BYTES`, or is not JSON: a key that an
        object has twice, NaN and infinity are not.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_constant)
    # JSONDecodeError, UnicodeDecodeError and a number of too many digits are all ValueErrors.
    except (ValueError, RecursionError) as error:
        raise StoredFileError(
            f"{str(path)!r} is not valid JSON ({error}); it may be damaged: write it again"
        ) from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    held = dict(pairs)
    if len(held) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)[:80]!r} is there twice")
    return held


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no JSON number")


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return sha256_stream(handle)


def sha256_stream(handle: IO[bytes]) -> str:
    """Hex SHA-256 of what is left of an open file."""
    digest = hashlib.sha256()  # Python 3.10 has no hashlib.file_digest
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def plain(value: Any, path: Callable[[Path], str] = str) -> Any:
    """Turn numpy values, paths and tuples into JSON values; NaN and infinity, which JSON lacks, become None.

    `path` makes a text of a path: what may be published holds its last name only.

    Examples
    --------
    >>> plain({"k": np.int64(3), "on": np.True_, "l2": np.array([0.5, np.nan]), "from": Path("folder/words.txt")})
    {'k': 3, 'on': True, 'l2': [0.5, None], 'from': 'folder/words.txt'}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(held, path) for key, held in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist(), path)
    if isinstance(value, (list, tuple, set)):
        return [plain(held, path) for held in value]
    if isinstance(value, np.generic):
        return plain(value.item(), path)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return path(value) if isinstance(value, Path) else value
