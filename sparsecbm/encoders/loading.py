"""Errors of the model libraries in one line each, and their chatter kept down."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

from sparsecbm._errors import InputError, StoredFileError

_LIMIT = 240


def one_line(error: BaseException) -> str:
    """First lines of an error as one line of limited length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LIMIT else text[: _LIMIT - 1] + "…"


@contextlib.contextmanager
def explained(spec: str, local: bool) -> Iterator[None]:
    """Turn whatever a model library raises while loading into one clear line.

    Parameters
    ----------
    spec : str
        The encoder asked for.
    local : bool
        Whether the files were to be read from a folder rather than from the hub.
    """
    try:
        with _quiet():
            yield
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"encoder {spec!r} needs a package that is not installed: {one_line(error)}") from error
    # The libraries raise OSError, RuntimeError, ValueError, KeyError, SafetensorError, pickle.UnpicklingError and more.
    except Exception as error:
        if local:
            raise StoredFileError(
                f"cannot load encoder {spec!r}: {one_line(error)}; a file is missing, damaged or foreign"
            ) from error
        raise StoredFileError(
            f"cannot get encoder {spec!r} from the hub or its local cache: {one_line(error)}; run once with a network "
            "connection, or copy the model to a folder and use 'open_clip:local-dir:PATH' or 'transformers:PATH'"
        ) from error


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
