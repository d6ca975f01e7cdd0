"""`info_run`: what is installed, where, and what can be chosen by name."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib import metadata

from sparsecbm._base.errors import InputError, suggest, unknown
from sparsecbm._base.parts import ENCODERS, IMAGES, LOSSES
from sparsecbm.config.keys import documented_keys
from sparsecbm.config.reading import KINDS, builtin_configs
from sparsecbm.explain.glossary import plain_words
from sparsecbm.runs.base import Result

_PACKAGES = ("torch", "open_clip_torch", "transformers", "datasets", "accelerate", "scikit-learn", "numpy")


@dataclass(frozen=True)
class InfoResult(Result):
    """Versions, devices, folders, and what can be chosen by name."""

    versions: dict[str, str]
    devices: list[str]
    cache: str
    cache_bytes: int
    configs: list[str]
    choices: dict[str, list[str]]


@dataclass(frozen=True)
class GlossaryResult(Result):
    """What each word means."""

    words: dict[str, str]


def glossary_run() -> GlossaryResult:
    """Return the glossary."""
    return GlossaryResult(plain_words())


def info_run() -> InfoResult:
    """Gather versions, devices, the cache folder and its size, and the names to choose from."""
    from sparsecbm import __version__
    from sparsecbm.concepts import TEMPLATE_SETS
    from sparsecbm.embeddings import cache_dir, cache_entries

    folder = cache_dir()
    size = sum(entry.bytes for entry in cache_entries())
    versions = {"sparsecbm": __version__, "python": platform.python_version()}
    return InfoResult(
        versions=versions | {name: metadata.version(name) for name in _PACKAGES},
        devices=_devices(),
        cache=str(folder),
        cache_bytes=size,
        configs=[name for kind in KINDS for name in builtin_configs(kind)],
        choices={
            "encoders": sorted(ENCODERS),
            "images": sorted(IMAGES),
            "losses": list(LOSSES),
            "templates": list(TEMPLATE_SETS),
        },
    )


@dataclass(frozen=True)
class KeysResult(Result):
    """What `keys_run` found: rows of key, type, default and meaning."""

    rows: list[dict[str, str]]


def keys_run(key: str = "", kind: str = "train") -> KeysResult:
    """Say what the keys of a configuration mean.

    Parameters
    ----------
    key : str
        A key with its section, such as ``model.loss``, or a section; empty for all.
    kind : {"train", "search", "vae"}
        Command whose configuration it is.

    Raises
    ------
    InputError
        If there is no such key.
    """
    if kind not in KINDS:
        raise unknown("kind of configuration", kind, KINDS)
    rows = [vars(found) for found in documented_keys(KINDS[kind])]
    chosen = [row for row in rows if not key or row["key"] == key or row["key"].startswith(f"{key}.")]
    if not chosen:
        near = suggest(key, [row["key"] for row in rows])
        raise InputError(f"unknown key {key!r}{near} (`sparsecbm info --config` lists all)")
    return KeysResult(chosen)


def _devices() -> list[str]:
    import torch

    names = [f"cpu ({torch.get_num_threads()} threads)"]
    names += [f"cuda:{i} ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return names
