"""Output folders of runs: one run at a time, results that take their places together, evaluations of what is there."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sparsecbm._base.checkpoint import FILE_NAME, STEP_SUFFIX
from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.files import locked, read_json, remove_leftovers, replace_folder, sha256_file
from sparsecbm._base.launch import is_main_process

_STAGED = "results"


@contextlib.contextmanager
def output_folder(
    folder: Path, names: Sequence[str] = (), ours: Callable[[Path], bool] = lambda _: True
) -> Iterator[Path]:
    """Hold an output folder for one run; checked before the work begins, in the first process of a launch.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    names : sequence of str
        What the run writes there.
    ours : callable
        Whether an earlier run of the kind wrote what lies in a folder.

    Yields
    ------
    Path
        ``checkpoint/``: what the same run goes on from when it is stopped. It stands for the run while that works; the
        system's lock on it is gone with the process, and where a file system has none, nobody is kept out.

    Raises
    ------
    StoredFileError
        If it cannot be written, holds files of these names that are not `ours`, or another run works there.
    """
    checkpoint = folder / "checkpoint"
    if not is_main_process():
        yield checkpoint
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        found = [name for name in names if (folder / name).exists()]
        if found and not checkpoint.is_dir() and not ours(folder):
            raise StoredFileError(
                f"output folder {str(folder)!r} holds {', '.join(found)}, which no earlier run wrote: "
                "choose an empty folder with --output"
            )
        held = contextlib.ExitStack()
        while True:
            checkpoint.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # the run that held it has just ended, and taken it away
                held.enter_context(locked(checkpoint, wait=False))
                break
    except BlockingIOError as error:
        raise StoredFileError(
            f"another run is at work in output folder {str(folder)!r}: wait for it, or choose another with --output"
        ) from error
    except OSError as error:
        raise StoredFileError(
            f"cannot write to output folder {str(folder)!r}: {error.strerror or error}; choose another with --output"
        ) from error
    with held:
        try:
            yield checkpoint
        finally:
            with contextlib.suppress(OSError):  # there is something to go on from
                checkpoint.rmdir()


def publish(folder: Path, names: Sequence[str], write: Callable[[Path], None]) -> None:
    """Let `write` make results in a new folder, then put them in their places and clear the checkpoint away.

    Until all are written the old ones stay. Of `names` what was not made goes, so that nothing of another run is left;
    the last of them is away while the others change, so that where it stands the rest is complete.

    Raises
    ------
    StoredFileError
        If they cannot be written.
    """
    try:
        staged = Path(tempfile.mkdtemp(prefix=f".{_STAGED}.", suffix=".tmp", dir=folder))
        try:
            write(staged)
            (folder / names[-1]).unlink(missing_ok=True)
            for name in names:
                new, place = staged / name, folder / name
                if new.is_dir():
                    replace_folder(place, new.rename)
                elif new.exists():
                    new.replace(place)
                elif place.is_dir():
                    shutil.rmtree(place)
                else:
                    place.unlink(missing_ok=True)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    except OSError as error:
        raise StoredFileError(
            f"cannot write to output folder {str(folder)!r}: {error.strerror or error}; choose another with --output"
        ) from error
    _tidy(folder, names)


def _tidy(folder: Path, names: Sequence[str]) -> None:
    """Remove what was kept to go on from (``checkpoint/``), and what killed runs left half-written of these names."""
    remove_leftovers(folder, [*names, _STAGED])
    for place, _, files in os.walk(folder / "checkpoint", topdown=False):
        remove_leftovers(place)
        for name in files:
            if name == FILE_NAME or name.endswith(STEP_SUFFIX):
                Path(place, name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something else lies there
            Path(place).rmdir()


def default_output(model: str | Path) -> Path:
    """Where ``sparsecbm evaluate MODEL`` writes: ``evaluation/`` in the output folder of the run."""
    path = Path(model)
    inner = path / "model"
    if inner.is_dir():
        return path / "evaluation"
    resolved = path.resolve()
    return (resolved.parent if resolved.name == "model" else resolved) / "evaluation"


def model_checksum(model: Path) -> str:
    """SHA-256 of a model's description, which holds that of its arrays."""
    return sha256_file(model / "config.json")


def evaluation_files(split: str) -> tuple[str, str, str, str]:
    """Names of what an evaluation writes: confusion matrix, accuracy against NEC and reliability drawn, metrics."""
    return f"{split}-confusion.csv", f"{split}-nec.png", f"{split}-reliability.svg", f"{split}.json"


def remove_evaluations(folder: Path, keep: str) -> None:
    """Remove what was measured on another model than the one of checksum `keep`; other files stay."""
    for path in sorted(folder.glob("*.json")):
        try:
            held = read_json(path)
        except StoredFileError:
            continue
        if isinstance(held, dict) and {"model", "split", "metrics"} <= held.keys() and held.get("checksum") != keep:
            for name in evaluation_files(path.stem)[::-1]:
                (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # it is not there, or not empty
        folder.rmdir()
