"""What every image source offers, and the plumbing shared by sources of encoded pictures."""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, Text, Whole, check_fields
from sparsecbm._base.progress import ProgressBar
from sparsecbm.data.decode import UndecodableError, decode_image

OnError = Literal["raise", "skip"]
_CHUNK = 2048  # pictures queued for checking at once: a queue of a million would take gigabytes


@runtime_checkable
class ImageSource(Protocol):
    """A finite, ordered, seeded collection of pictures.

    Attributes
    ----------
    labels : ndarray of int64, shape (n,), or None
        Index into `class_names`; None where the pictures have no labels.
    class_names : tuple of str
        Name of each class; a class may have no picture in this split.
    ids : list of str, length n
        Name of each picture, for messages and reports.
    fingerprint : str
        SHA-256 of the content and order of the pictures as they are now (not of the labels).
    skipped : list of (str, str)
        Name and reason of each picture left out because it cannot be decoded.
    spec, split : str
        What was asked for.
    """

    labels: np.ndarray | None
    class_names: tuple[str, ...]
    skipped: list[tuple[str, str]]
    spec: str
    split: str

    @property
    def ids(self) -> list[str]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Image.Image: ...


@dataclass(frozen=True)
class LoadOptions:
    """Options of `load_images` that every source understands; see there."""

    split: Text = "train"
    seed: Whole = 0
    max_images: Count | None = None
    on_error: OnError = "raise"
    image_column: str | None = None
    label_column: str | None = None
    concept_labels: str | Sequence[str] | None = None
    splits: Mapping[str, str] | None = None
    class_labels: str | Sequence[str] | None = None

    def __post_init__(self) -> None:
        check_fields(self)


class Catalogue(ABC):
    """All pictures of a data set, still encoded, whatever split they belong to.

    Attributes
    ----------
    what : str
        Name of the data set, for messages.
    official : dict of str to range
        The data set's own splits as ranges of rows; together they are all rows.
    labels : ndarray of int64, shape (n,) or (n, K), or None
        Class of each row, negative where the data set keeps it secret; or 0 and 1 of classes that do not exclude each
        other.
    class_names : tuple of str
        Name of each class.
    notes : tuple of str
        What people should know about how it was read, a line each.
    attribute_names, attributes : tuple of str, ndarray of shape (n, A), or None
        What is known of each picture, in [0, 1]; NaN where nothing is.
    """

    what: str
    official: dict[str, range]
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    notes: tuple[str, ...] = ()
    attribute_names: tuple[str, ...] = ()
    attributes: np.ndarray | None = None

    @property
    def one_class(self) -> np.ndarray | None:
        """Class of each row (n,); None without labels, or where classes do not exclude each other."""
        return None if self.labels is None or self.labels.ndim == 2 else self.labels

    @abstractmethod
    def read(self, row: int) -> bytes | None:
        """Encoded bytes of one picture; None where the row has none."""

    @abstractmethod
    def name(self, row: int) -> str:
        """Name of one picture for messages."""

    def read_many(self, rows: np.ndarray) -> Iterator[bytes | None]:
        """Encoded bytes of many pictures, in order."""
        return (self.read(int(row)) for row in rows)


class EncodedImages:
    """Pictures kept as encoded bytes and decoded one by one when asked for.

    Parameters
    ----------
    catalogue : Catalogue
        Where the bytes are.
    rows : ndarray of int64, shape (n,)
        Which of its rows, in which order.
    spec, split : str
        What was asked for.
    split_rule : str
        How the split came about.
    on_error : {"raise", "skip"}
        ``"skip"`` decodes every picture once, now, and leaves out those that fail; ``"raise"`` decodes nothing yet.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        rows: np.ndarray,
        *,
        spec: str,
        split: str,
        split_rule: str = "",
        on_error: OnError = "raise",
    ) -> None:
        self._catalogue = catalogue
        self.spec, self.split, self.split_rule = spec, split, split_rule
        self.class_names = tuple(catalogue.class_names)
        self.notes = tuple(catalogue.notes)
        self.skipped: list[tuple[str, str]] = []
        self._rows = np.asarray(rows, dtype=np.int64)
        if on_error == "skip":
            self._rows, self.skipped = self._decodable()
        if len(self._rows) == 0:
            why = f": all {len(self.skipped)} failed, first {': '.join(self.skipped[0])}" if self.skipped else ""
            raise InputError(f"no pictures in split {split!r} of {spec!r}{why}")
        self.labels = self._known_labels()
        self.attribute_names = catalogue.attribute_names
        self.attributes = None if catalogue.attributes is None else catalogue.attributes[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Image.Image:
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {index} of {len(self)}")
        return self.open_hashed(index)[0]

    def open_hashed(self, index: int) -> tuple[Image.Image, bytes]:
        """Decode one picture; also the SHA-256 of the very bytes that it was decoded from, as in `content_hashes`."""
        row = int(self._rows[index])
        try:
            data = self._catalogue.read(row)
            return decode_image(data), _hash(data)
        except UndecodableError as error:
            raise self._failed(row, error) from error

    def __iter__(self) -> Iterator[Image.Image]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        classes = f", {len(self.class_names)} classes" if self.class_names else ", no labels"
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return f"<{type(self).__name__} {self.spec!r} split {self.split!r}: {len(self)} pictures{classes}{skipped}>"

    @cached_property
    def ids(self) -> list[str]:
        """Name of each picture."""
        return [self._catalogue.name(int(row)) for row in self._rows]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the `content_hashes`: read anew each time, since files change while a source lives."""
        return self.fingerprint_of(self.content_hashes())

    @staticmethod
    def fingerprint_of(hashes: bytes) -> str:
        """Fingerprint of pictures with these `content_hashes`."""
        return hashlib.sha256(b"sparsecbm images 2" + hashes).hexdigest()

    def content_hashes(self) -> bytes:
        """SHA-256 of the encoded bytes of each picture as they are now, 32 bytes each, in order; nothing is decoded."""
        hashes = bytearray()
        with ProgressBar("Fingerprinting pictures", len(self)) as bar:
            try:
                for data in self._catalogue.read_many(self._rows):
                    hashes += _hash(data)
                    bar.update()
            except UndecodableError as error:
                raise self._failed(int(self._rows[len(hashes) // 32]), error) from error
        return bytes(hashes)

    def _failed(self, row: int, error: UndecodableError) -> InputError:
        name = self._catalogue.name(row)
        others = [(other, why) for other, why in self._undecodable if other != name]
        what, them = f"picture {name!r} of {self.spec!r}: {error}", "it"
        if others:  # all in one go, not one a run
            listed = "; ".join(f"{other!r}: {why}" for other, why in [(name, str(error)), *others[:7]])
            more = f"; and {len(others) - 7} more" if len(others) > 7 else ""
            what, them = f"{len(others) + 1} of {len(self)} pictures of {self.spec!r}: {listed}{more}", "them"
        return InputError(
            f"cannot decode {what}; repair or remove {them}, or pass on_error='skip' to leave such pictures out"
        )

    @cached_property
    def _undecodable(self) -> list[tuple[str, str]]:
        return self._decodable()[1]

    def _decodable(self) -> tuple[np.ndarray, list[tuple[str, str]]]:
        def reason(row: int) -> str | None:
            try:
                decode_image(self._catalogue.read(row))
            except UndecodableError as error:
                return str(error)
            return None

        keep, skipped = [], []
        # Pillow decodes outside the interpreter lock, so threads are enough.
        with (
            ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool,
            ProgressBar("Checking pictures", len(self._rows)) as bar,
        ):
            for start in range(0, len(self._rows), _CHUNK):
                rows = self._rows[start : start + _CHUNK].tolist()
                for row, failed in zip(rows, pool.map(reason, rows)):
                    if failed is None:
                        keep.append(row)
                    else:
                        skipped.append((self._catalogue.name(row), failed))
                    bar.update()
        return np.asarray(keep, dtype=np.int64), skipped

    def _known_labels(self) -> np.ndarray | None:
        if self._catalogue.labels is None:
            return None
        labels = self._catalogue.labels[self._rows].astype(np.int64)
        if labels.ndim == 2:
            return labels
        if (labels == -1).all():  # the hub's sign for a test split whose labels are secret
            return None
        wrong = np.flatnonzero((labels < 0) | (labels >= len(self.class_names)))
        if len(wrong):
            row = int(self._rows[wrong[0]])
            raise InputError(
                f"label {labels[wrong[0]]} of picture {self._catalogue.name(row)!r} of {self.spec!r} is out of range: "
                f"expected 0..{len(self.class_names) - 1} for {len(self.class_names)} classes "
                f"({len(wrong)} such pictures)"
            )
        return labels


def _hash(data: bytes | None) -> bytes:
    return bytes(32) if data is None else hashlib.sha256(data).digest()
