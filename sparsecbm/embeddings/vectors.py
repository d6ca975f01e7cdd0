"""Embeddings made elsewhere, in .npz, .safetensors or .parquet files."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm._base.errors import DataWarning, InputError, StoredFileError, suggest, unknown
from sparsecbm._base.names import clean_name, clean_name_array
from sparsecbm._base.rows import as_numpy, check_scale, row_lengths, unit_rows
from sparsecbm._base.untrusted import open_npz, open_parquet, regular_file
from sparsecbm.data.columns import class_list
from sparsecbm.data.labels import LabelColumn, gather_labels, untrained
from sparsecbm.embeddings.table import Embeddings, check_labels

# Rows whose length is within this of one (float16 storage is off by up to about 1e-3) count as unit rows.
UNIT_TOLERANCE = 5e-3
# Sizes of numbers that float32 holds in full.
_KEPT = (1e-30, 1e38)
_IMAGES, _LABELS, _NAMES = "_images", "_labels", "class_names"


def load_embeddings(path: str | Path, split: str, *, normalize: bool | None = None) -> Embeddings:
    """Read embeddings made elsewhere.

    Parameters
    ----------
    path : str or Path
        A file in one of these layouts:

        - ``.npz``: arrays ``SPLIT_images`` (n, d), ``SPLIT_labels`` (n,) and ``class_names`` (K,) of strings; labels
          and names may be missing. Labels are indices into the names, or names themselves; or 0 and 1 of shape (n, K).
          A split that numbers its classes in its own way has ``SPLIT_class_names``; classes are then matched by name
          over all splits.
        - ``.safetensors``: tensors ``SPLIT_images`` and ``SPLIT_labels``; metadata ``class_names`` (or
          ``SPLIT_class_names``), a JSON list.
        - ``.parquet``: columns ``embedding`` (lists of d numbers), ``label`` and ``split``; a missing ``split`` column
          means that the file holds the one split asked for. Names from the schema metadata ``class_names`` (a JSON
          list), or ``label`` is a column of strings.
    split : str
        Which split, such as ``"train"``.
    normalize : bool, optional
        None (default) expects unit rows: it refuses rows further than 0.5% from unit length, since a scale may carry
        meaning, and rescales the others, which mends rounding such as float16's. True rescales whatever the length.
        False keeps the numbers as they are.

    Returns
    -------
    Embeddings
        float32 vectors in memory, labels in int64.

    Raises
    ------
    StoredFileError
        If the file is missing, damaged, needs unpickling, lacks the arrays, or would unfold to far more than its size
        (more than 256 MiB and 100 times as much).
    InputError
        If the split is not there, a vector is NaN, infinite or zero, the numbers of rows differ, or a label is out of
        range.
    """
    path = Path(path)
    if path.suffix not in READERS:
        raise unknown("embeddings format", path.suffix or path.name, READERS)
    if not path.exists():
        raise StoredFileError(f"there is no embeddings file {str(path)!r}")
    regular_file(path)
    try:
        vectors, labels, names = READERS[path.suffix](path, split)
    except InputError:
        raise
    # Damaged files raise BadZipFile, zlib.error, SafetensorError, ArrowInvalid, ...; object arrays a ValueError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise StoredFileError(
            f"cannot read embeddings from {str(path)!r}: {reason[:200]}; it may be damaged or of another format"
        ) from error
    where = f"{str(path)!r}, split {split!r}: "
    rows = _checked_rows(vectors, where, normalize)
    checked = None if labels is None else check_labels(labels, len(rows), names, where)
    return Embeddings(rows, checked, names, (), {"file": str(path), "split": split})


Read = tuple[np.ndarray, "np.ndarray | None", tuple[str, ...]]


def _read_npz(path: Path, split: str) -> Read:
    with open_npz(path) as archive:
        _check_split(path, split, archive.files)
        labels = {name: archive[name + _LABELS] for name in _splits(archive.files) if name + _LABELS in archive.files}
        lists = {key: _names(path, archive[key]) for key in archive.files if key.endswith(_NAMES)}
        return archive[split + _IMAGES], *_split_labels(path, split, labels, lists)


def _read_safetensors(path: Path, split: str) -> Read:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:  # torch, since NumPy has no bfloat16
        keys = list(file.keys())
        _check_split(path, split, keys)
        labels = {name: as_numpy(file.get_tensor(name + _LABELS)) for name in _splits(keys) if name + _LABELS in keys}
        lists = {key: _names(path, text) for key, text in (file.metadata() or {}).items() if key.endswith(_NAMES)}
        return as_numpy(file.get_tensor(split + _IMAGES)), *_split_labels(path, split, labels, lists)


def _split_labels(
    path: Path, split: str, labels: Mapping[str, np.ndarray], lists: Mapping[str, tuple[str, ...]]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels of one split of a file of arrays, whose splits may each list their classes (``SPLIT_class_names``)."""
    common = lists.get(_NAMES, ())
    own = {name: lists[f"{name}_{_NAMES}"] for name in labels if lists.get(f"{name}_{_NAMES}")}
    if split not in labels:
        return None, own.get(split, common)
    if not own and all(held.dtype.kind in "iuf" + "b" * (held.ndim == 2) for held in labels.values()):
        return labels[split], common  # numbers that index one list, or none; 0 and 1 of every class
    import pyarrow as pa

    for name, held in labels.items():
        if held.ndim != 1 or held.dtype.kind not in "biufUS":
            found = f"{name}{_LABELS} are {held.dtype} of shape {held.shape}"
            raise InputError(f"{str(path)!r}: {found}: expected (n,) whole numbers or names")
    columns = {name: pa.array(held.tolist() if held.dtype.kind in "US" else held) for name, held in labels.items()}
    return _read_labels(path, columns, split, {name: own.get(name, common) for name in labels})


def _read_parquet(path: Path, split: str) -> Read:
    with open_parquet(path) as file:
        table = file.read()
    if "embedding" not in table.column_names:
        near = suggest("embedding", table.column_names)
        raise StoredFileError(f"{str(path)!r} has columns {', '.join(table.column_names)}: expected 'embedding'{near}")
    where = np.full(len(table), split, dtype=object)
    if "split" in table.column_names:
        column = table["split"].to_pylist()
        if None in column:
            raise InputError(f"{str(path)!r}: row {column.index(None)} names no split: fill it in or leave it out")
        where = np.array([clean_name(name, f"{str(path)!r}: a split") for name in column], dtype=object)
        if split not in set(where):
            raise InputError(f"{str(path)!r}: {unknown('split', split, {str(name) for name in where})}")
    vectors = _matrix(path, table["embedding"].take(np.flatnonzero(where == split)))
    names = _names(path, ((table.schema.metadata or {}).get(b"class_names") or b"").decode("utf-8"))
    if "label" not in table.column_names:
        return vectors, None, names
    names = names or _names(path, class_list(table.schema, "label") or [])
    by_split = {name: table["label"].take(np.flatnonzero(where == name)) for name in dict.fromkeys(where)}
    return vectors, *_read_labels(path, by_split, split, dict.fromkeys(by_split, names))


def _read_labels(
    path: Path, by_split: Mapping[Any, Any], split: str, names: Mapping[Any, tuple[str, ...]]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels of one split; classes are those of all splits, so that each split numbers them alike."""
    order = sorted(by_split, key=lambda name: name != "train")
    columns = [LabelColumn(by_split[name], f"split {name!r}", names[name] or None) for name in order]
    gathered = gather_labels(columns, repr(str(path)))
    ends = np.cumsum([len(column.values) for column in columns])
    parts = dict(zip(order, np.split(gathered.numbers, ends[:-1])))
    trained = untrained(gathered.numbers, parts.get("train", np.empty(0)), gathered.class_names, repr(str(path)))
    for note in (*gathered.notes, *trained):
        warnings.warn(note, DataWarning, stacklevel=1)
    numbers = parts[split]
    if (numbers == -1).all():
        return None, gathered.class_names if gathered.named else ()
    if gathered.named:
        return numbers, gathered.class_names
    # Numbers without names stay what they are.
    return np.array([*map(int, gathered.class_names), -1])[numbers], ()


def _matrix(path: Path, column: Any) -> np.ndarray:
    """Lists of numbers as one array, without a Python object for each number."""
    import pyarrow.compute as compute
    import pyarrow.types as types

    kind = column.type
    if not (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)):
        raise InputError(f"{str(path)!r}: column 'embedding' holds {kind}: expected lists of numbers")
    if not (types.is_floating(kind.value_type) or types.is_integer(kind.value_type)):
        raise InputError(f"{str(path)!r}: column 'embedding' holds {kind}: expected lists of numbers")
    if column.null_count:
        raise InputError(f"{str(path)!r}: {column.null_count} rows have no embedding: fill them in or leave them out")
    lengths = np.unique(compute.list_value_length(column).to_numpy()).tolist()
    if len(lengths) > 1:
        raise InputError(f"{str(path)!r}: embeddings of different lengths {lengths[:4]}: expected one length d")
    # A missing number becomes NaN, which is refused with the row's number.
    numbers = np.asarray(compute.list_flatten(column).to_numpy())
    return numbers.reshape(len(column), lengths[0] if lengths else 0)


READERS: dict[str, Callable[[Path, str], Read]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    ".parquet": _read_parquet,
}


def _names(path: Path, names: Any) -> tuple[str, ...]:
    """Class names of an array or a JSON list, cleaned."""
    listed = json.loads(names or "[]") if names is None or isinstance(names, str) else names
    return clean_name_array(listed, f"{str(path)!r}: class names") if len(listed) else ()


def _check_split(path: Path, split: str, keys: Sequence[str]) -> None:
    if split + _IMAGES in keys:
        return
    if not (splits := _splits(keys)):
        raise StoredFileError(f"{str(path)!r} holds {', '.join(keys) or 'nothing'}: expected arrays named SPLIT_images")
    raise InputError(f"{str(path)!r}: {unknown('split', split, splits)}")


def _splits(keys: Sequence[str]) -> list[str]:
    return [key.removesuffix(_IMAGES) for key in keys if key.endswith(_IMAGES)]


def _checked_rows(vectors: Any, where: str, normalize: bool | None) -> np.ndarray:
    given = np.asarray(vectors)
    if given.ndim != 2 or 0 in given.shape:
        raise InputError(f"{where}vectors have shape {given.shape}: expected (n, d) with at least one row and column")
    if given.dtype.kind not in "fiu":
        raise InputError(f"{where}vectors have dtype {given.dtype}: expected floating-point numbers")
    what = f"{where}vectors"
    if normalize:
        return unit_rows(given, what, dtype=np.float32)
    lengths = row_lengths(given, what)
    off = np.flatnonzero(np.abs(lengths - 1) > UNIT_TOLERANCE)
    if normalize is None and len(off):
        raise InputError(
            f"{where}vector {off[0]} has length {lengths[off[0]]:.4g} ({len(off)} rows are not of unit length): "
            "pass normalize=True to rescale them or normalize=False to keep them"
        )
    if normalize is None:
        return unit_rows(given, dtype=np.float32)
    check_scale(given, what, *_KEPT)
    return np.array(given, dtype=np.float32)
