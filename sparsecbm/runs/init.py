"""`init_run`: from a folder of pictures to a configuration to begin with, in which every line is explained."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import check_free, write_text
from sparsecbm.config.reading import load_config
from sparsecbm.runs.base import Result

if TYPE_CHECKING:
    from sparsecbm.encoders.recommended import Recommended

_CONFIG = Template("""\
# Written by `sparsecbm init`; train with:  sparsecbm train $file
# What each key means:  sparsecbm info --config KEY, such as images.on_error
#
# $count pictures of $n_classes classes:
$classes
images:
  spec: $spec
  on_error: skip      # pictures that cannot be read are left out, counted and named
encoder:
  # For this machine ($machine); what it takes:
$encoders
  spec: $encoder
concepts:
  file: $concepts     # your words, a line each: what you would name to tell the classes apart
  templates: photo_with
model:
  max_active_concepts: 8   # at most so many concepts are named in a picture
  concepts_per_class: 5    # so many concepts decide about a class
# output: $name       # folder of the results; runs/$name unless you say so
""")


@dataclass(frozen=True)
class InitResult(Result):
    """What `init_run` found and wrote.

    Attributes
    ----------
    path : Path
        The configuration.
    classes : dict of str to int
        Pictures of each class.
    encoder : str
        The one suggested.
    machine : str
        Where, in words.
    encoders : tuple of Recommended
    concepts : Path
        File of words that it names.
    notes : tuple of str
        What was found odd.
    """

    path: Path
    classes: dict[str, int]
    encoder: str
    machine: str
    encoders: tuple[Recommended, ...]
    concepts: Path
    notes: tuple[str, ...]


def init_run(
    images: str, *, concepts: str | Path = "words.txt", output: str | Path | None = None, force: bool = False
) -> InitResult:
    """Look through a folder of pictures and write a configuration for it.

    Parameters
    ----------
    images : str
        Folder, or an image spec.
    concepts : path
        File of words, which need not be there yet.
    output : path, optional
        The configuration; by default the folder's name with ``.yaml``, here.
    force : bool
        Whether a file of that name is replaced.

    Raises
    ------
    InputError
        If the pictures cannot be had or have no classes, or the file is there already.
    """
    from sparsecbm.data import load_images
    from sparsecbm.encoders.recommended import RECOMMENDED  # takes seconds to import

    spec = images if ":" in images else f"folder:{images}"
    kind, _, place = spec.partition(":")
    path = Path(output or f"{Path(place or kind).resolve().name or 'pictures'}.yaml")
    check_free(path, force)
    source = load_images(spec, "all")
    if source.labels is None:
        raise InputError(f"{spec!r} has no classes: put the pictures into a folder a class")
    counts = np.bincount(source.labels, minlength=len(source.class_names)).tolist()
    classes = dict(zip(source.class_names, counts))
    machine, best = _machine()
    # Paths in a configuration are taken from its folder.
    relative = f"{kind}:{_from(path.parent, place)}" if kind in ("folder", "parquet") else spec
    text = _CONFIG.substitute(
        file=json.dumps(str(path)) if " " in str(path) else path,
        count=f"{len(source):,}",
        n_classes=f"{len(classes):,}",
        classes="\n".join(f"#   {count:6,}  {name}" for name, count in classes.items()),
        spec=json.dumps(relative, ensure_ascii=False),
        machine=machine,
        encoders="\n".join(f"  #   {described(made)}" for made in RECOMMENDED),
        encoder=best.spec,
        concepts=json.dumps(_from(path.parent, str(concepts)), ensure_ascii=False),
        name=path.stem,
    )
    write_text(path, text)
    load_config(path)
    few = [name for name, count in classes.items() if count < 10]
    notes = [*getattr(source, "notes", ())]
    notes += [f"fewer than 10 pictures: {', '.join(few)}"] if few else []
    notes += [] if Path(concepts).is_file() else [f"there is no {str(concepts)!r} yet: write your words, a line each"]
    return InitResult(path, classes, best.spec, machine, RECOMMENDED, Path(concepts), tuple(notes))


def described(made: Recommended) -> str:
    """What an encoder takes, in a line."""
    return f"{made.spec}  ({made.download:.1f} GB to download once, {made.memory:.1f} GB of memory, {made.dim}-d)"


def _from(folder: Path, path: str) -> str:
    return os.path.relpath(Path(path).expanduser(), folder) if not Path(path).expanduser().is_absolute() else path


def _machine() -> tuple[str, Recommended]:
    import torch

    from sparsecbm.encoders.recommended import suggested

    if torch.cuda.is_available():
        held = torch.cuda.get_device_properties(0)
        memory = held.total_memory / 1e9
        return f"{held.name}, {memory:.0f} GB", suggested(memory, gpu=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9 if hasattr(os, "sysconf") else 0.0
    return f"no GPU, {os.cpu_count()} cores, {memory:.0f} GB", suggested(memory, gpu=False)
