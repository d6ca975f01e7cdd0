"""Which files are pictures: one rule for training and for prediction.

Everything is a picture but hidden files and folders, what systems leave behind (``Thumbs.db``, ``@eaDir`` with its
thumbnails, ``__MACOSX``), and files whose suffix says that they are something else. Other files are found out when they
are decoded, never dropped. What is left out is counted and said.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm._base.names import name_list
from sparsecbm.data.base import Catalogue, EncodedImages, OnError
from sparsecbm.data.decode import read_picture

_SYSTEM_FOLDERS = {
    "__macosx", "__pycache__", "@eadir", "@recycle", "@tmp", "#recycle", "#snapshot", "$recycle.bin", "lost+found",
    "system volume information",
}  # fmt: skip
_SYSTEM_FILES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "readme", "license", "icon\r"}
_OTHER_SUFFIXES = {
    ".7z", ".aae", ".arrow", ".avi", ".bat", ".bz2", ".cfg", ".css", ".csv", ".db", ".doc", ".docx", ".gz", ".h5",
    ".hdf5", ".htm", ".html", ".ini", ".ipynb", ".js", ".json", ".jsonl", ".lnk", ".log", ".mat", ".md", ".md5", ".mkv",
    ".mov", ".mp3", ".mp4", ".npy", ".npz", ".parquet", ".pdf", ".pickle", ".pkl", ".pt", ".pth", ".py", ".rar", ".rst",
    ".sh", ".sha256", ".sqlite", ".tar", ".tgz", ".toml", ".tsv", ".txt", ".url", ".wav", ".xls", ".xlsx", ".xml",
    ".xmp", ".xz", ".yaml", ".yml", ".zip",
}  # fmt: skip


@dataclass(eq=False)
class PictureFolder:
    """A folder and what lies in it.

    Attributes
    ----------
    path : Path
    pictures : list of str
        Names of the pictures directly in it, sorted.
    folders : list of PictureFolder
        Folders in it that are not hidden, sorted by name.
    left_out : list of Path
        Files directly in it, and in its hidden folders, that are no pictures.
    """

    path: Path
    pictures: list[str] = field(default_factory=list)
    folders: list[PictureFolder] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the folder itself."""
        return self.path.name

    def walk(self) -> Iterator[PictureFolder]:
        """This folder, then all folders below."""
        left = [self]
        while left:
            folder = left.pop()
            yield folder
            left += reversed(folder.folders)

    def all_pictures(self) -> list[Path]:
        """All pictures in it and below, folder by folder."""
        return [folder.path / name for folder in self.walk() for name in folder.pictures]

    def any_pictures(self) -> bool:
        """Whether there is a picture in it or below."""
        return any(folder.pictures for folder in self.walk())

    def filled(self) -> list[PictureFolder]:
        """Folders directly in it that hold pictures."""
        return [folder for folder in self.folders if folder.any_pictures()]

    def note(self, what: str) -> str:
        """Say how many files were left out; empty if none were."""
        left = [path for folder in self.walk() for path in folder.left_out]
        if not left:
            return ""
        shown = [path.relative_to(self.path) for path in left]
        named = [path.as_posix() for path in shown if not _is_system(path)]
        parts = [f"{len(left) - len(named)} hidden or left behind by a system"] if len(named) < len(left) else []
        parts += [f"{len(named)} of another type ({name_list(named, 3)})"] if named else []
        files = "1 file that is no picture" if len(left) == 1 else f"{len(left)} files that are no pictures"
        return f"{what}: left out {files}: {', '.join(parts)}"


def read_folder(top: Path) -> PictureFolder:
    """List a folder and all below; links are followed, but not back up.

    Raises
    ------
    InputError
        If a folder cannot be read.
    """

    def failed(error: OSError) -> None:
        raise InputError(f"folder {str(error.filename)!r} cannot be read ({error.strerror})") from error

    made = {top: PictureFolder(top)}
    seen: set[str] = set()
    for here, folders, files in os.walk(top, followlinks=True, onerror=failed):
        if (real := os.path.realpath(here)) in seen:
            folders.clear()
            continue
        seen.add(real)
        hidden = _is_system(Path(here).relative_to(top))
        node = made[Path(here)]
        folders.sort()
        for name in folders:
            inner = Path(here, name)
            # What lies in hidden folders is counted only, in the nearest folder that is not hidden.
            made[inner] = node if hidden or _is_system(Path(name)) else PictureFolder(inner)
            if made[inner] is not node:
                node.folders.append(made[inner])
        for name in sorted(files):
            if hidden or _is_system(Path(name)) or Path(name).suffix.lower() in _OTHER_SUFFIXES:
                node.left_out.append(Path(here, name))
            else:
                node.pictures.append(name)
    return made[top]


def _is_system(path: Path) -> bool:
    """Whether a file or folder is hidden or left behind by a system, or lies in one that is."""
    *folders, last = map(str.lower, path.parts or ("",))
    return any(name.startswith(".") or name in _SYSTEM_FOLDERS for name in (*folders, last)) or last in _SYSTEM_FILES


class FileCatalogue(Catalogue):
    """Files, each a picture; named for messages as they are listed."""

    def __init__(self, files: Sequence[str], what: str, root: Path | None = None) -> None:
        self.what, self.files, self.root = what, list(files), root or Path()
        self.official = {"all": range(len(self.files))}
        self.labels, self.class_names = None, ()

    def read(self, row: int) -> bytes:
        return read_picture(self.root / self.files[row])

    def name(self, row: int) -> str:
        return self.files[row]


def picture_files(paths: Sequence[str | Path], on_error: OnError = "raise") -> EncodedImages:
    """Return picture files, and all picture files under folders, as an image source.

    Parameters
    ----------
    paths : sequence of str or Path
        A file is taken whatever its name; of a folder, what this module takes for pictures, sorted.
    on_error : {"raise", "skip"}
        What to do with a file that cannot be decoded.

    Raises
    ------
    InputError
        If a path does not exist, a folder holds no picture, or nothing can be decoded.
    """
    files: list[str] = []
    notes: list[str] = []
    for path in map(Path, paths):
        if path.is_dir():
            folder = read_folder(path)
            note = folder.note(repr(str(path)))
            if not folder.any_pictures():
                raise InputError(f"folder {str(path)!r} holds no picture" + (f" ({note})" if note else ""))
            files += map(str, folder.all_pictures())
            notes += [note] if note else []
        elif path.is_file():
            files.append(str(path))
        else:
            raise InputError(f"there is no picture {str(path)!r}: expected a file or a folder of pictures")
    if not files:
        raise InputError("no pictures given: expected at least one file or folder")
    catalogue = FileCatalogue(files, "the pictures given")
    catalogue.notes = tuple(notes)
    for note in notes:
        warnings.warn(note, DataWarning, stacklevel=2)
    return EncodedImages(catalogue, np.arange(len(files)), spec="files", split="all", on_error=on_error)
