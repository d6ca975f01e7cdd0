"""``folder:PATH``: one folder a class, optionally below one folder a split.

The listing is ours and not `datasets`' imagefolder, which drops files of unknown extension without a word, gives up on
labels where folder depths differ, and takes a class called "train" or "test" for a split.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import name_list
from sparsecbm.data.base import Catalogue, EncodedImages, LoadOptions
from sparsecbm.data.decode import read_picture
from sparsecbm.data.select import select

_NOT_PICTURES = {"thumbs.db", "desktop.ini", "readme", "readme.md", "readme.txt", "license", "license.txt"}
_SPLIT_FOLDERS = {"train", "training", "validation", "val", "valid", "dev", "test", "testing"}


def load(path: str, options: LoadOptions, spec: str) -> EncodedImages:
    """Load a folder of pictures.

    Layouts: ``PATH/CLASS/picture``, ``PATH/SPLIT/CLASS/picture`` (when every folder in PATH is named like a split) or
    ``PATH/picture`` (no labels). Folders inside a class folder belong to the class. Hidden files are no pictures.
    """
    for column in ("image_column", "label_column"):
        if getattr(options, column) is not None:
            raise InputError(f"{column}={getattr(options, column)!r} does not apply to {spec!r}: no columns there")
    return select(FolderCatalogue(Path(path).expanduser(), spec), options, spec)


class FolderCatalogue(Catalogue):
    """The files of a folder, sorted by name."""

    def __init__(self, root: Path, spec: str) -> None:
        if not root.is_dir():
            problem = "is a file, not a folder" if root.exists() else "does not exist"
            raise InputError(f"folder {str(root)!r} {problem}: expected one with a sub-folder of pictures a class")
        self.what, self.root = repr(spec), root
        folders = _folders(root)
        if folders and {folder.name.lower() for folder in folders} <= _SPLIT_FOLDERS:
            splits = [(folder.name, folder) for folder in folders]
        else:
            splits = [("all", root)]
        classes = sorted({_class_name(folder) for _, top in splits for folder in _folders(top)})
        number = {name: k for k, name in enumerate(classes)}
        self.class_names = tuple(classes)
        self.files: list[str] = []
        self.official = {}
        labels: list[int] = []
        for name, top in splits:
            start = len(self.files)
            # Pictures straight in a split's folder have no label.
            for folder in _folders(top) or [top]:
                found = _pictures(folder)
                self.files += [file.relative_to(root).as_posix() for file in found]
                labels += [number.get(_class_name(folder), -1) if folder != top else -1] * len(found)
            self.official[name] = range(start, len(self.files))
        self._refuse_strays(top for top in {root, *(top for _, top in splits)} if _folders(top))
        if not self.files:
            example = str(root / "cat" / "1.jpg")
            raise InputError(f"{spec!r} has no pictures: expected files in class folders, such as {example!r}")
        self.labels = np.asarray(labels, dtype=np.int64) if classes else None

    def _refuse_strays(self, folders: Iterable[Path]) -> None:
        strays = [file for top in folders for file in _files(top) if _looks_like_picture(file)]
        if strays:
            names = name_list(sorted(file.relative_to(self.root).as_posix() for file in strays))
            raise InputError(f"{self.what} has {names} beside the class folders: move them into one to give a class")

    def read(self, row: int) -> bytes:
        return read_picture(self.root / self.files[row])

    def name(self, row: int) -> str:
        return self.files[row]


def _folders(top: Path) -> list[Path]:
    return sorted((p for p in top.iterdir() if p.is_dir() and not p.name.startswith(".")), key=lambda p: p.name)


def _class_name(folder: Path) -> str:
    return unicodedata.normalize("NFC", folder.name)  # some file systems store decomposed accents


def _files(top: Path) -> list[Path]:
    return sorted(p for p in top.iterdir() if p.is_file())


def _pictures(top: Path) -> list[Path]:
    """Every file below `top` but clutter; one that is no picture is found out when it is decoded, not dropped."""
    found, seen = [], set()
    for folder, inside, files in os.walk(top, followlinks=True):
        if os.path.realpath(folder) in seen:  # a link back up
            inside.clear()
            continue
        seen.add(os.path.realpath(folder))
        inside[:] = sorted(name for name in inside if not name.startswith("."))
        found += [path for path in (Path(folder, file) for file in sorted(files)) if not _is_clutter(path)]
    return found


def _is_clutter(file: Path) -> bool:
    return file.name.startswith(".") or file.name.lower() in _NOT_PICTURES


def _looks_like_picture(file: Path) -> bool:
    Image.init()
    return file.suffix.lower() in Image.EXTENSION
