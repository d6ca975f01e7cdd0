"""Errors of the model libraries in one line each, and their chatter kept down."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecbm._errors import InputError, StoredFileError

if TYPE_CHECKING:
    import torch

_LIMIT = 240

_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth")
_MOST_LAYERS = 1000


def one_line(error: BaseException) -> str:
    """First lines of an error as one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


@contextlib.contextmanager
def explained(spec: str, local: bool, what: str = "encoder") -> Iterator[None]:
    """Turn whatever a model library raises while loading into one clear line.

    Parameters
    ----------
    spec : str
        The encoder asked for.
    local : bool
        Whether the files were to be read from a folder rather than from the hub.
    what : str
        What it is, in words.
    """
    try:
        with _quiet():
            yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{what} {spec!r} needs a package that is not installed: {one_line(error)}") from error
    # The libraries raise OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError and more.
    except Exception as error:
        if local:
            raise StoredFileError(
                f"cannot load {what} {spec!r}: {one_line(error)}; a file is missing, damaged or foreign"
            ) from error
        raise StoredFileError(
            f"cannot get {what} {spec!r} from the hub or its local cache: {one_line(error)}; run once with a network "
            "connection, or copy the model to a folder and use 'open_clip:local-dir:PATH' or 'transformers:PATH'"
        ) from error


def check_declared_size(
    spec: str, folder: Path, config: Mapping[str, Any], build: Callable[[], torch.nn.Module]
) -> None:
    """Refuse a folder whose description asks for more numbers than its files hold bytes, before they get memory.

    Parameters
    ----------
    spec : str
        The encoder asked for.
    folder : Path
        Where description and weights lie.
    config : mapping
        The description.
    build : callable
        Builds the model; called with PyTorch's "meta" device, whose tensors have shapes but no memory.

    Raises
    ------
    StoredFileError
        If the model is larger than the weights.
    """
    import torch

    deepest = max(_layers(config), default=0)
    if deepest > _MOST_LAYERS:
        raise StoredFileError(
            f"cannot load encoder {spec!r}: it declares {deepest:,} layers; expected at most {_MOST_LAYERS:,}"
        )
    held = sum(file.stat().st_size for pattern in _WEIGHTS for file in folder.glob(pattern))
    try:
        with torch.device("meta"):
            declared = sum(parameter.numel() for parameter in build().parameters())
    # Architectures by name (timm's) look at numbers while they are built, which meta tensors have none of; their sizes
    # are not the folder's to choose.
    except (NotImplementedError, RuntimeError):
        return
    if declared > held:
        raise StoredFileError(
            f"cannot load encoder {spec!r}: it declares {declared:,} parameters, but its weights are {held:,} bytes; "
            "they do not belong together"
        )


def _layers(config: object) -> Iterator[int]:
    if isinstance(config, Mapping):
        for key, value in config.items():
            if "layers" in str(key) and not isinstance(value, Mapping):
                yield from (v for v in (value if isinstance(value, list) else [value]) if isinstance(v, int))
            else:
                yield from _layers(value)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings and log records up to ERROR: what matters is raised."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
