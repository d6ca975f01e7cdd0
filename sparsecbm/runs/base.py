"""What every run shares: its result, and its output folder, checked before the work begins, cleared after it."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sparsecbm._base.checkpoint import FILE_NAME, STEP_SUFFIX
from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.files import plain, remove_leftovers


class Result:
    """What a run returns: typed, free of torch, printable as JSON."""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))


def check_folder(folder: Path, names: Sequence[str], ours: Callable[[Path], bool]) -> None:
    """Refuse a folder that cannot be written, or that holds files of these names but is not `ours`.

    Raises
    ------
    StoredFileError
        For either reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoredFileError(
            f"cannot write to output folder {str(folder)!r}: {error.strerror or error}; choose another with --output"
        ) from error
    found = [name for name in names if (folder / name).exists()]
    if found and not ours(folder):
        raise StoredFileError(
            f"output folder {str(folder)!r} holds {', '.join(found)}, which no earlier run wrote: "
            "choose an empty folder with --output"
        )


def tidy(folder: Path, names: Sequence[str]) -> None:
    """Remove what was kept to go on from (``checkpoint/``), and what killed runs left half-written of these names."""
    remove_leftovers(folder, names)
    for place, _, files in os.walk(folder / "checkpoint", topdown=False):
        remove_leftovers(place)
        for name in files:
            if name == FILE_NAME or name.endswith(STEP_SUFFIX):
                Path(place, name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            Path(place).rmdir()
