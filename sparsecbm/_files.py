"""Files written beside and renamed, and checksums: nobody ever reads a half-written file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from sparsecbm._errors import StoredFileError
from sparsecbm._untrusted import read_bytes


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
    except OSError as error:
        raise StoredFileError(
            f"cannot write {str(path)!r}: {error.strerror or error}; "
            "free some space or choose a folder you may write to"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


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


def read_json(path: str | Path) -> Any:
    """Read JSON.

    Raises
    ------
    StoredFileError
        If the file is missing, larger than `sparsecbm._untrusted.MAX_TEXT_BYTES`, or is not JSON.
    """
    path = Path(path)
    data = read_bytes(path)
    try:
        return json.loads(data.decode("utf-8"))
    # JSONDecodeError, UnicodeDecodeError and a number of too many digits are all ValueErrors.
    except (ValueError, RecursionError) as error:
        raise StoredFileError(
            f"{str(path)!r} is not valid JSON ({error}); it may be damaged: write it again"
        ) from error


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with Path(path).open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _digest(handle)


def _digest(handle: IO[bytes]) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while block := handle.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()
