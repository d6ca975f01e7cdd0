"""Errors of the model libraries in one line each, and their chatter kept down."""

from __future__ import annotations

import contextlib
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import read_json
from sparsecbm._base.hub import hub_problem
from sparsecbm._base.untrusted import file_inside

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
        with quiet():
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
        reason = hub_problem(error) or f"{one_line(error)}; run once with a network connection"
        raise StoredFileError(
            f"cannot get {what} {spec!r} from the hub or its local cache: {reason}, or copy the model to a folder and "
            "use 'open_clip:local-dir:PATH' or 'transformers:PATH'"
        ) from error


def check_folder(spec: str, folder: Path) -> None:
    """Refuse a folder whose files lead out of it, or unfold to more than they are.

    Raises
    ------
    StoredFileError
        If a file is a link out of the folder, an index of weights names files elsewhere, or weights are compressed.
    """
    for file in sorted(folder.iterdir()):
        if not file.is_dir():
            file_inside(folder, file.name)
        if file.name.endswith(".index.json"):
            index = read_json(file)
            names = index.get("weight_map") if isinstance(index, dict) else None
            for name in set(names.values()) if isinstance(names, dict) else ():
                if not isinstance(name, str) or Path(name).name != name:
                    raise StoredFileError(f"encoder {spec!r}: {str(file)!r} names {name!r}, which is no file beside it")
        elif file.suffix in (".bin", ".pt", ".pth"):
            check_weights(spec, file)


def check_weights(spec: str, file: Path) -> None:
    """Refuse pickled weights in an archive that is compressed, which PyTorch's never are: zeros unfold a thousandfold.

    Raises
    ------
    StoredFileError
        If they are.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise StoredFileError(f"encoder {spec!r}: {str(file)!r} is compressed, which no weights are")


_ELSEWHERE = ("hf_model_name", "hf_tokenizer_name", "timm_model_name")
_TOKENIZER_OPTIONS = frozenset({"additional_special_tokens", "clean", "language", "reduction_mask", "strip_sep_token"})


def check_open_clip_config(spec: str, config: Mapping[str, Any]) -> None:
    """Refuse an open_clip description that would have code run or a folder read that is not its own.

    open_clip hands ``tokenizer_kwargs`` on to transformers, which takes ``trust_remote_code`` among them.

    Raises
    ------
    StoredFileError
        Naming the entry.
    """
    for part in ("vision_cfg", "text_cfg"):
        given = config.get(part)
        section: Mapping[str, Any] = given if isinstance(given, Mapping) else {}
        for key in _ELSEWHERE:
            name = section.get(key) or ""
            if not isinstance(name, str) or name.startswith(("/", "~", ".", "local-dir:")) or ".." in name:
                raise StoredFileError(
                    f"encoder {spec!r}: {part}.{key} is {name!r}: expected a model of the hub by name, no folder"
                )
        for key in section.get("tokenizer_kwargs") or ():
            if key not in _TOKENIZER_OPTIONS:
                raise StoredFileError(
                    f"encoder {spec!r}: {part}.tokenizer_kwargs has {key!r}; expected no more than "
                    f"{', '.join(sorted(_TOKENIZER_OPTIONS))}"
                )


MAX_SIDE = 8192
"""Largest side of the pictures that an encoder may ask for; those at hand take 64 to 1024 pixels."""


def check_picture_size(spec: str, *described: object) -> None:
    """Refuse a description of preprocessing that blows every picture up to gigabytes.

    Raises
    ------
    StoredFileError
        If any whole number in it is above `MAX_SIDE`.
    """
    for value in described:
        if isinstance(value, Mapping):
            check_picture_size(spec, *value.values())
        elif isinstance(value, (list, tuple)):
            check_picture_size(spec, *value)
        elif isinstance(value, (int, float)) and value > MAX_SIDE:
            raise StoredFileError(
                f"encoder {spec!r}: its preprocessing makes pictures of size {value:,}; expected at most {MAX_SIDE:,}"
            )


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
def quiet() -> Iterator[None]:
    """Silence warnings and log records up to ERROR: what matters is raised."""
    previous = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
