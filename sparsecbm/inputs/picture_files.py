"""Picture files named on the command line, as an image source: decoded when reached, never all in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm.data.base import Catalogue, EncodedImages, OnError
from sparsecbm.data.decode import read_picture

PICTURE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class _Files(Catalogue):
    """A flat list of files without labels."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.what = "the pictures given"
        self.files = list(files)
        self.official = {"all": range(len(self.files))}
        self.labels = None
        self.class_names = ()

    def read(self, row: int) -> bytes:
        return read_picture(self.files[row])

    def name(self, row: int) -> str:
        return str(self.files[row])


def picture_files(paths: Sequence[str | Path], on_error: OnError = "raise") -> EncodedImages:
    """Return picture files, and all picture files under folders, as an image source.

    Parameters
    ----------
    paths : sequence of str or Path
        A file is taken whatever its name; of a folder, the files with a picture's suffix, sorted.
    on_error : {"raise", "skip"}
        What to do with a file that cannot be decoded.

    Raises
    ------
    InputError
        If a path does not exist, a folder holds no picture, or nothing can be decoded.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in PICTURE_SUFFIXES and p.is_file())
            if not inside:
                raise InputError(
                    f"folder {str(path)!r} holds no picture: expected {', '.join(sorted(PICTURE_SUFFIXES))}"
                )
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise InputError(f"there is no picture {str(path)!r}: expected a file or a folder of pictures")
    if not files:
        raise InputError("no pictures given: expected at least one file or folder")
    catalogue = _Files(files)
    return EncodedImages(catalogue, np.arange(len(files)), spec="files", split="all", on_error=on_error)
