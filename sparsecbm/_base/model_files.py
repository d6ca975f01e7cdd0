"""A model on disk: ``model.safetensors`` with every array, ``config.json`` with everything else and its checksum."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import atomic_path, read_json, sha256_file, write_json
from sparsecbm._base.untrusted import file_inside

ARRAYS = "model.safetensors"
CONFIG = "config.json"
FORMAT = "sparsecbm-model"
FORMAT_VERSION = 1


def write_model(folder: str | Path, tensors: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write arrays, then the description with their checksum; each beside and renamed.

    Parameters
    ----------
    folder : path
        Made if it does not exist.
    tensors : dict of str to Tensor
    config : dict
        JSON values only; ``format``, ``format_version`` and ``sha256`` are added.

    Raises
    ------
    StoredFileError
        If the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    arrays = {name: value.contiguous() for name, value in tensors.items()}
    try:
        json.dumps(config, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"the model's metadata_ must hold JSON values only ({error})") from error
    with atomic_path(folder / ARRAYS) as temporary:
        save_file(arrays, temporary)
        checksum = sha256_file(temporary)
    write_json(folder / CONFIG, {"format": FORMAT, "format_version": FORMAT_VERSION, "sha256": checksum, **config})


def read_model(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write_model` wrote; nothing outside the folder is read.

    Raises
    ------
    StoredFileError
        If a file is missing, foreign, of a later format, a link out of the folder, or does not match its checksum.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    if not folder.is_dir():
        raise StoredFileError(f"no model at {str(folder)!r}: expected a folder written by save() or `sparsecbm train`")
    for name in (CONFIG, ARRAYS):
        if not (folder / name).is_file():
            raise StoredFileError(f"model folder {str(folder)!r} has no {name}: it is incomplete or not a model")
        file_inside(folder, name)
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise StoredFileError(f"{str(folder / CONFIG)!r} does not describe a sparsecbm model; choose another folder")
    if config.get("format_version") != FORMAT_VERSION:
        raise StoredFileError(
            f"model {str(folder)!r} has format version {config.get('format_version')!r}, this version of sparsecbm "
            f"reads {FORMAT_VERSION}: upgrade sparsecbm or train again"
        )
    if sha256_file(folder / ARRAYS) != config.get("sha256"):
        raise StoredFileError(
            f"{str(folder / ARRAYS)!r} does not match the checksum in {CONFIG}: the file was changed or is damaged; "
            "copy the model again or train again"
        )
    try:
        return load_file(folder / ARRAYS), config
    # SafetensorError, or a KeyError for numbers of a type that PyTorch has not.
    except Exception as error:
        raise StoredFileError(
            f"{str(folder / ARRAYS)!r} is not a safetensors file ({' '.join(str(error).split())[:200]})"
        ) from error


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
        raise StoredFileError(
            f"model folder {str(folder)!r} does not hold together ({type(error).__name__}: {reason}); "
            "save, train or copy it again"
        ) from error


def class_array(values: list[Any], dtype: str) -> np.ndarray:
    """Return class labels read from JSON in the dtype they had when saved.

    Raises
    ------
    StoredFileError
        If the dtype is none that labels have, or makes texts far longer than they are: in a description by a stranger,
        ``"<U100000000"`` would take gigabytes for a few names.
    """
    kind = np.dtype(dtype)
    if kind.hasobject:
        return np.array(values, dtype=object)
    natural = np.array(values)
    if natural.ndim != 1 or kind.subdtype is not None or kind.names is not None or kind.kind not in "biufUS":
        raise StoredFileError(f"classes of dtype {dtype!r}: expected a list of numbers or texts")
    if kind.kind in "US" and kind.itemsize > 2 * natural.itemsize + 1024:
        raise StoredFileError(f"classes of dtype {dtype!r}: the longest takes {natural.itemsize} bytes")
    return natural.astype(kind)
