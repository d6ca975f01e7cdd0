"""Embedding vectors together with what they are of and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import match_names
from sparsecbm._base.rows import as_numpy


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Rows of embeddings with their labels.

    Parameters
    ----------
    vectors : ndarray of float32 (or float16, if stored so), shape (n, d)
        Rows of unit length; read-only and memory-mapped where they come from the cache.
    labels : ndarray of int64, shape (n,) or (n, K), or None
        Index into `class_names` of each row; or 0 and 1 of K classes that do not exclude each other.
    class_names : tuple of str
        Name of each class; empty where there are no labels.
    ids : tuple of str
        Name of each row, such as a file name or the text itself; empty where unknown.
    provenance : dict
        Encoder spec and fingerprint, source of the images or texts, dtype, cache entry. JSON values only.
    images : ImageSource, optional
        The pictures themselves, where they are at hand, a row each.
    known : tuple of (names, ndarray of shape (n, A)), optional
        What is known of the rows, in [0, 1], NaN where nothing is; see `attributes`.

    Raises
    ------
    InputError
        If the shapes do not agree or a label is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> table = Embeddings(np.eye(3, dtype=np.float32), np.array([0, 1, 1]), ("cat", "dog"))
    >>> len(table), table.dim, table.select([1, 2]).labels.tolist()
    (3, 3, [1, 1])
    """

    vectors: np.ndarray
    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    images: Any = field(default=None, repr=False)
    known: tuple[tuple[str, ...], np.ndarray] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "vectors", as_numpy(self.vectors))
        if np.ndim(self.vectors) != 2:
            raise InputError(f"vectors have shape {np.shape(self.vectors)}: expected (n, d)")
        object.__setattr__(self, "class_names", tuple(map(str, self.class_names)))
        object.__setattr__(self, "ids", tuple(map(str, self.ids)))
        if self.ids and len(self.ids) != len(self):
            raise InputError(f"{len(self.ids)} ids for {len(self)} vectors: expected one each")
        if self.labels is not None:
            object.__setattr__(self, "labels", check_labels(self.labels, len(self), self.class_names))

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Length d of an embedding."""
        return int(self.vectors.shape[1])

    @property
    def attributes(self) -> tuple[Sequence[str], np.ndarray] | None:
        """Names of attributes, and what is known of each row (n, A), of its own or of its pictures."""
        if self.known is None and getattr(self.images, "attributes", None) is not None:
            return self.images.attribute_names, self.images.attributes
        return self.known

    def attributes_of(self, concepts: Sequence[str]) -> np.ndarray | None:
        """What is known of each row and concept (n, M), by the attributes of these names; None where nothing is."""
        if self.attributes is None:
            return None
        names, values = self.attributes
        made = np.full((len(self), len(concepts)), np.nan)
        for column, j in zip(np.asarray(values).T, match_names(names, concepts).positions):
            if j is not None:
                made[:, j] = column
        return None if np.isnan(made).all() else made

    @property
    def multilabel(self) -> bool:
        """Whether classes do not exclude each other."""
        return self.labels is not None and self.labels.ndim == 2

    def select(self, rows: Sequence[int] | np.ndarray) -> Embeddings:
        """Return chosen rows (indices or a boolean mask), copied into memory."""
        rows = np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        rows = rows.astype(np.int64)
        return Embeddings(
            np.asarray(self.vectors[rows]),
            None if self.labels is None else self.labels[rows],
            self.class_names,
            tuple(self.ids[i] for i in rows) if self.ids else (),
            dict(self.provenance),
            known=None if self.known is None else (self.known[0], self.known[1][rows]),
        )

    def __repr__(self) -> str:
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"Embeddings({len(self)} x {self.dim} {self.vectors.dtype}{classes})"


def check_labels(labels: Any, count: int, class_names: Sequence[str], where: str = "") -> np.ndarray:
    """Return labels as int64, or say which one is wrong.

    Raises
    ------
    InputError
        If the number of labels is not `count`, they are not whole numbers, or one is outside the class names; if a
        matrix of them holds other values than 0 and 1, or another number of classes.
    """
    given = np.asarray(as_numpy(labels))
    if given.ndim == 2 and len(given) == count and given.shape[1] > 1:
        if class_names and given.shape[1] != len(class_names):
            raise InputError(f"{where}labels have shape {given.shape} for {len(class_names)} class names")
        if given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
            raise InputError(f"{where}a matrix of labels holds other values than 0 and 1: expected one column a class")
        return given.astype(np.int64)
    if given.shape != (count,):
        raise InputError(f"{where}labels have shape {given.shape}: expected ({count},), one for each vector")
    if given.dtype.kind not in "iu" and not (given.dtype.kind == "f" and np.array_equal(given, np.trunc(given))):
        raise InputError(f"{where}labels have dtype {given.dtype}: expected whole numbers, indices into class_names")
    whole = given.astype(np.int64)
    limit = len(class_names) if class_names else np.iinfo(np.int64).max
    wrong = np.flatnonzero((whole < 0) | (whole >= limit))
    if len(wrong):
        expected = f"0..{limit - 1} for {limit} class names" if class_names else "at least 0"
        raise InputError(f"{where}label {whole[wrong[0]]} of row {wrong[0]} is out of range: expected {expected}")
    return whole
