"""Output folders of runs: checked before the work begins, cleared of checkpoints after it."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from sparsecbm._checkpoint import FILE_NAME
from sparsecbm._errors import StoredFileError


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


def remove_checkpoint(folder: Path) -> None:
    """Remove a training checkpoint, and its folder where nothing else lies in it."""
    (folder / FILE_NAME).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else may lie there, or the folder may never have been made
        folder.rmdir()
