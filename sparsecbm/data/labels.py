"""Columns of labels, as tables hold them, to class numbers and one list of class names for a whole data set.

Each split, file or shard may number or spell the classes in its own way. They are read side by side and matched by
name, so that a class has one number everywhere, whichever part lacks it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import clean_name, group_names, match_names, name_list

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class LabelColumn:
    """Labels of one part of a data set.

    Attributes
    ----------
    values : pyarrow.Array or ChunkedArray
        Names (text, bytes), whole numbers of any numeric type, or booleans; dictionaries and nulls allowed.
    where : str
        Which part, for messages, such as ``"split 'test'"``.
    class_names : sequence of str, optional
        What the numbers 0..K-1 stand for.
    """

    values: pa.Array | pa.ChunkedArray
    where: str
    class_names: Sequence[str] | None = None


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of a whole data set.

    Attributes
    ----------
    numbers : ndarray of int64, shape (n,)
        Index into `class_names`; -1 where the data set keeps it secret.
    class_names : tuple of str
    named : bool
        Whether the columns name their classes; else the names are the numbers that the columns hold.
    notes : tuple of str
        What people should know: spellings that were taken together.
    """

    numbers: np.ndarray
    class_names: tuple[str, ...]
    named: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class _Coded:
    """A column as codes into its distinct values, which are clean names or whole numbers; code -1 for no label."""

    codes: np.ndarray
    values: list[Any]
    texts: bool
    listed: tuple[str, ...] | None
    where: str


def gather_labels(columns: Sequence[LabelColumn], what: str, row_name: Callable[[int], str] = str) -> Labels:
    """Read the labels of all parts of a data set together.

    Names are matched by form (see `sparsecbm._base.names`) and sorted, unless a part lists its classes: then the order
    is that of the first list, followed by what other parts add. Plain numbers beside one such list index it.

    Parameters
    ----------
    columns : sequence of LabelColumn
        In the order of the rows; training first.
    what : str
        Name of the data set, for messages.
    row_name : callable
        Name of a row of the data set, for messages.

    Raises
    ------
    InputError
        If a column holds anything but names or whole numbers, a row of a labelled part has no label, a number is
        outside the list of names, or some parts hold names and others numbers without any.

    Examples
    --------
    >>> import pyarrow as pa
    >>> train = LabelColumn(pa.array([0, 1, 2]), "train", ["ant", "bee", "cat"])
    >>> test = LabelColumn(pa.array([0, 1]), "test", ["Cat", "ant"])
    >>> gather_labels([train, test], "'pets'").numbers.tolist()
    [0, 1, 2, 2, 0]
    """
    parts, start = [], 0
    for column in columns:
        parts.append(_code(column, what, row_name, start))
        start += len(column.values)
    lists = list(dict.fromkeys(part.listed for part in parts if part.listed is not None))
    texts = [part for part in parts if part.texts]
    plain = [p for p in parts if not p.texts and p.listed is None and any(value >= 0 for value in p.values)]
    if plain and (texts or len(lists) > 1):
        named = next(part for part in parts if part.texts or part.listed is not None)
        raise InputError(
            f"{what}: labels of {plain[0].where} are numbers such as {max(plain[0].values)}, those of "
            f"{named.where} names: expected names in all parts, or numbers in all"
        )
    if not texts and not lists:
        numbers = sorted({value for part in plain for value in part.values if value >= 0})
        of_number = {value: k for k, value in enumerate(numbers)}
        return Labels(_joined(parts, [of_number] * len(parts)), tuple(map(str, numbers)), False)
    classes: list[str] = []
    of_list = {names: dict(enumerate(_place(names, classes))) for names in lists}
    # A part may spell one class in several ways, but what a list names exactly is another class.
    known = set(classes)
    spelled = [name for part in texts for name in part.values if name not in known]
    grouped = group_names(spelled)
    notes = (f"{what}: {grouped.line('class names')}",) if grouped.merged else ()
    order = sorted(grouped.names)
    placed = dict(zip(order, _place(order, classes)))
    of_text = {name: k for k, name in enumerate(classes)}
    of_text |= {name: placed[grouped.names[i]] for name, i in zip(spelled, grouped.positions)}
    tables: list[dict[Any, int]] = []
    for start, part in zip(np.cumsum([0, *(len(part.codes) for part in parts)]), parts):
        if part.texts:
            tables.append(of_text)
            continue
        names = part.listed or (lists[0] if lists else ())
        tables.append(of_list.get(names, {}))
        if wrong := [value for value in part.values if value >= len(names)]:
            row = int(start) + int(np.flatnonzero(part.codes == part.values.index(wrong[0]))[0])
            raise InputError(
                f"label {wrong[0]} of picture {row_name(row)!r} of {what} is out of range: "
                f"expected 0..{len(names) - 1} for {len(names)} classes"
            )
    return Labels(_joined(parts, tables), tuple(classes), True, notes)


def untrained(labels: np.ndarray, train: np.ndarray, class_names: Sequence[str], what: str) -> tuple[str, ...]:
    """Say in a line which classes have pictures, but none in training; nothing where there are no such classes.

    Parameters
    ----------
    labels : ndarray of int, shape (n,)
        Of the whole data set; negative where unknown.
    train : ndarray of int
        Those of training.
    class_names : sequence of str
    what : str
        Name of the data set.
    """
    lacking = np.setdiff1d(labels[labels >= 0], train).tolist() if (train >= 0).any() else []
    names = name_list([class_names[k] for k in lacking])
    return (f"{what}: classes with pictures in other splits but none in training: {names}",) if lacking else ()


def _place(names: Sequence[str], classes: list[str]) -> list[int]:
    """Number of each of a part's names, which are different, in the list of classes; new ones are added at the end."""
    found = match_names(names, classes)
    new = iter(range(len(classes), len(classes) + len(found.missing)))
    classes += found.missing
    return [next(new) if position is None else position for position in found.positions]


def _joined(parts: Sequence[_Coded], tables: Sequence[dict[Any, int]]) -> np.ndarray:
    """Class numbers of all rows; -1 for no label and for the negative numbers that stand for a secret one."""
    joined = [
        np.array([table.get(v, -1) for v in part.values] + [-1])[part.codes] for part, table in zip(parts, tables)
    ]
    return np.concatenate([np.empty(0), *joined]).astype(np.int64)


def _code(column: LabelColumn, what: str, row_name: Callable[[int], str], start: int) -> _Coded:
    import pyarrow as pa

    where = f"{what}: label in {column.where}"
    array = _simple(column.values)
    kind, types = array.type, pa.types
    texts = types.is_boolean(kind) or types.is_large_string(kind) or types.is_large_binary(kind)
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)
    if not texts and not numbers:
        raise InputError(f"{where} is of type {column.values.type}: expected names or whole numbers")
    encoded = array.dictionary_encode()
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    values = encoded.dictionary.to_pylist()
    if types.is_boolean(kind):
        values = [str(value) for value in values]
    elif texts:
        padded = types.is_fixed_size_binary(column.values.type)
        values = [clean_name(value.rstrip(b"\0") if padded else value, where) for value in values]
    else:
        # NaN is what pandas writes for a missing number.
        values = [None if value is None or value != value else _whole(value, where) for value in values]
    distinct = list(dict.fromkeys(value for value in values if value is not None))
    code = {value: i for i, value in enumerate(distinct)} | {None: -1}
    codes = np.array([code[value] for value in values] + [-1])[codes]
    missing = np.flatnonzero(codes == -1)
    if 0 < len(missing) < len(codes):
        row = row_name(start + int(missing[0]))
        raise InputError(f"picture {row!r} of {what} has no label ({len(missing)} such pictures)")
    if column.class_names is None:
        return _Coded(codes, distinct, texts, None, column.where)
    given = list(column.class_names)
    listed = tuple(clean_name(name, f"{what}: class {k} of {column.where}") for k, name in enumerate(given))
    place: dict[str, int] = {}
    for k, name in enumerate(listed):
        # Spelled alike, two classes may share a name: ImageNet has two called "missile".
        if given[first := place.setdefault(name, k)] != given[k]:
            raise InputError(
                f"{what}: classes {first} and {k} of {column.where}, {given[first]!r} and {given[k]!r}, have one name: "
                "expected a name each"
            )
    if texts and not (found := match_names(distinct, listed)).complete:
        raise InputError(f"{where}: {found.line('names')} in the list of its {len(listed)} class names")
    return _Coded(codes, distinct, texts, listed, column.where)


def _simple(values: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One array without dictionaries, views and extensions; texts and bytes as the large types."""
    import pyarrow as pa
    import pyarrow.compute as compute

    types = pa.types
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)
    if isinstance(values, pa.ExtensionArray):
        return _simple(values.storage)
    if types.is_dictionary(values.type):
        return _simple(values.dictionary_decode())
    if types.is_run_end_encoded(values.type):
        return _simple(compute.run_end_decode(values))
    if types.is_string(values.type) or types.is_string_view(values.type):
        return values.cast(pa.large_string())
    if types.is_binary(values.type) or types.is_binary_view(values.type) or types.is_fixed_size_binary(values.type):
        return values.cast(pa.large_binary())
    return values.cast(pa.float32()) if types.is_float16(values.type) else values


def _whole(value: Any, where: str) -> int:
    try:
        if (number := int(value)) == value:
            return number
    except (OverflowError, ValueError):  # infinity
        pass
    raise InputError(f"{where} is {value}: expected names or whole numbers")
