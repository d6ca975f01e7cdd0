"""A model on disk: ``model.safetensors`` with every array, ``config.json`` with everything else and its checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import atomic_path, cannot_write, locked, read_json, write_json
from sparsecbm._base.formats import MODEL_STEPS, brought_up, current
from sparsecbm._base.untrusted import file_inside

ARRAYS = "model.safetensors"
CONFIG = "config.json"
FORMAT = "sparsecbm-model"
_WAITING = f".{ARRAYS}.new"


def write_model(folder: str | Path, arrays: dict[str, np.ndarray], config: dict[str, Any]) -> None:
    """Write arrays and their description; whatever stops it, the folder holds the old model or the new one.

    The new arrays wait beside the old ones until the new description, which has their checksum, has taken its place; a
    reader who comes in between reads them where they wait. So a folder that is mounted, that somebody works in, or that
    holds other files of its owner can be written to as well.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    arrays : dict of str to ndarray
    config : dict
        JSON values only; ``format``, ``format_version`` and ``sha256`` are added.

    Raises
    ------
    InputError
        If `config` is no JSON.
    StoredFileError
        If the folder cannot be written.
    """
    from safetensors.numpy import save

    folder = Path(folder)
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"the model's metadata_ must hold JSON values only ({error})") from error
    data = save({name: np.ascontiguousarray(value) for name, value in arrays.items()})
    described = {"format": FORMAT, "format_version": current(MODEL_STEPS), "sha256": hashlib.sha256(data).hexdigest()}
    waiting = folder / _WAITING
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder):
            if waiting.is_file():
                _finish(folder, waiting)
            with atomic_path(waiting) as temporary:
                temporary.write_bytes(data)
            try:
                write_json(folder / CONFIG, {**described, **config})
            except BaseException:
                waiting.unlink()
                raise
            waiting.replace(folder / ARRAYS)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _finish(folder: Path, waiting: Path) -> None:
    """End what a killed process began: its arrays take their place if its description has, else they go."""
    try:
        described = read_json(folder / CONFIG).get("sha256")
    except (StoredFileError, AttributeError):
        described = None
    if hashlib.sha256(waiting.read_bytes()).hexdigest() == described:
        waiting.replace(folder / ARRAYS)
    else:
        waiting.unlink()


def read_model(folder: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read what `write_model` wrote; nothing outside the folder is read.

    Returns
    -------
    arrays : dict of str to ndarray
    config : dict
        Without what `write_model` added.

    Raises
    ------
    StoredFileError
        If a file is missing, foreign, of a later format, a link out of the folder, or does not match its checksum.
    """
    from safetensors.numpy import load

    folder = Path(folder)
    if not folder.is_dir():
        raise StoredFileError(f"no model at {str(folder)!r}: expected a folder written by save() or `sparsecbm train`")
    for name in (CONFIG, ARRAYS):
        if not (folder / name).is_file() and not (name == ARRAYS and (folder / _WAITING).is_file()):
            raise StoredFileError(f"model folder {str(folder)!r} has no {name}: it is incomplete or not a model")
    for _attempt in range(3):
        config = _description(folder)
        data = _matching(folder, config.pop("sha256"))
        # Where another process has just written a new model, its description is there now.
        if data is not None:
            break
    else:
        raise StoredFileError(
            f"{str(folder / ARRAYS)!r} does not match the checksum in {CONFIG}: the file was changed or is damaged; "
            "copy the model again or train again"
        )
    try:
        return {name: value.copy() for name, value in load(data).items()}, config
    # SafetensorError, or a KeyError for numbers of a type that NumPy has not.
    except Exception as error:
        raise StoredFileError(
            f"{str(folder / ARRAYS)!r} is not a safetensors file ({' '.join(str(error).split())[:200]})"
        ) from error


def _description(folder: Path) -> dict[str, Any]:
    config = read_json(file_inside(folder, CONFIG))
    if not isinstance(config, dict) or config.pop("format", None) != FORMAT:
        raise StoredFileError(f"{str(folder / CONFIG)!r} does not describe a sparsecbm model; choose another folder")
    return {"sha256": None, **brought_up(config, MODEL_STEPS, f"model {str(folder)!r}")}


def _matching(folder: Path, checksum: Any) -> bytes | None:
    """Bytes of the arrays that a description has the checksum of."""
    for name in (ARRAYS, _WAITING):
        if (folder / name).is_file():
            data = file_inside(folder, name).read_bytes()
            if hashlib.sha256(data).hexdigest() == checksum:
                return data
    return None


@contextmanager
def holds_together(folder: str | Path) -> Iterator[None]:
    """Turn what goes wrong while a model is put together from its files into one line.

    Raises
    ------
    StoredFileError
        In place of any error that parts which do not fit each other cause.
    """
    try:
        yield
    except StoredFileError:
        raise
    except (LookupError, TypeError, RuntimeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = str(error).splitlines()[0] if str(error) else "no detail"
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        raise StoredFileError(
            f"model folder {str(folder)!r} does not hold together ({kind}{reason}); save, train or copy it again"
        ) from error
