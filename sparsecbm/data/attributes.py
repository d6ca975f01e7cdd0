"""Attributes that people have given to pictures: 0 not there, 1 there, a probability, or nothing where nobody knows.

A file (.csv) has a row a picture, named in the first column as the data set names it, and a column an attribute::

    file,four-legged,striped
    cat/0001.jpg,1,0
    cat/0002.jpg,,1
    zebra,1,1

A row that names a class states a rule: it holds for all pictures of the class, and no picture may contradict it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError, suggest
from sparsecbm._base.names import clean_name, group_names, match_names, name_list
from sparsecbm._base.texts import read_text

if TYPE_CHECKING:
    import pyarrow as pa

ATTRIBUTES = "attributes.csv"
"""In a folder of pictures: what is known of them."""

Table = tuple[tuple[str, ...], NDArray[np.float64]]
"""Names (A) and values (n, A), NaN where nothing is known."""


def read_attributes(
    path: str | Path,
    pictures: Sequence[str],
    labels: NDArray[np.int64] | None = None,
    class_names: Sequence[str] = (),
    what: str = "the data set",
    elsewhere: Callable[[str], bool] = lambda key: False,
) -> Table:
    """Read a file of attributes for these pictures.

    Parameters
    ----------
    path : str or Path
        ``.csv``, with commas, semicolons or tabs.
    pictures : sequence of str, length n
        Their names.
    labels, class_names : ndarray of shape (n,), sequence of str
        Their classes, for rows that name one.
    what : str
        Name of the data set, for messages.
    elsewhere : callable
        Whether a row that names none of them is about pictures of another split.

    Raises
    ------
    InputError
        If a row names no picture and no class, or one twice, a value is none of 0, 1, between or nothing, or a picture
        contradicts the row of its class.
    """
    head, rows = _rows(path)
    names = _names(head[1:], repr(str(path)))
    place = {name: i for i, name in enumerate(pictures)}
    keys = [row[0].strip().replace("\\", "/").removeprefix("./") for _, row in rows]
    others = [key for key in dict.fromkeys(keys) if key not in place and not elsewhere(key)]
    match = match_names(others, class_names)
    if match.missing:
        near = suggest(match.missing[0], pictures if len(pictures) < 10_000 else ())
        raise InputError(
            f"{str(path)!r}: {len(match.missing)} of {len(rows)} rows name no picture and no class of {what}: "
            f"{name_list(match.missing, 3)}{near}"
        )
    of_class = dict(zip(others, match.positions))
    values = np.full((len(pictures), len(names)), np.nan)
    rules = np.full((len(class_names), len(names)), np.nan)
    seen: set[str] = set()
    for key, (line, row) in zip(keys, rows):
        if key in seen:
            raise InputError(f"{str(path)!r}, line {line}: {key!r} is there twice")
        seen.add(key)
        found = [_value(cell, f"{str(path)!r}, line {line}: {name!r} of {key!r}") for name, cell in zip(names, row[1:])]
        number = of_class.get(key)
        if key in place:
            values[place[key]] = found
        elif number is not None:
            rules[number] = found
    if labels is None or not len(rules):
        return names, values
    ruled = np.where((labels >= 0)[:, None], rules[np.maximum(labels, 0)], np.nan)
    against = np.argwhere(np.abs(values - ruled) > 0)  # NaN, where either says nothing, is no difference
    if len(against):
        i, j = against[0]
        more = f" ({len(against)} such labels)" if len(against) > 1 else ""
        raise InputError(
            f"{str(path)!r}: {pictures[i]!r} says {names[j]!r} is {values[i, j]:g}, its class "
            f"{class_names[labels[i]]!r} says {ruled[i, j]:g}{more}: correct either"
        )
    return names, np.where(np.isnan(values), ruled, values)


def column_attributes(columns: Mapping[str, Sequence[pa.Array | pa.ChunkedArray]], what: str) -> Table:
    """Read columns of a table, each given as the parts of a data set hold it.

    A column of numbers or truth values is one attribute, of its own name; a column of structs has one for each field;
    one of lists of names says which are there, and that all others are not.

    Raises
    ------
    InputError
        If a column is of another type, or a value none of 0, 1, between or null.
    """
    import pyarrow.types as types

    made: dict[str, list[float]] = {}

    def put(name: str, cells: Sequence[object], column: str) -> None:
        of = f"{what}: {name!r} in column {column!r}, row"
        if name in made:
            raise InputError(f"{what}: {name!r} is an attribute twice")
        made[name] = [_value("" if cell is None else cell, f"{of} {i}") for i, cell in enumerate(cells)]

    for column, parts in columns.items():
        kind = parts[0].type
        cells = [cell for part in parts for cell in part.to_pylist()]
        if types.is_struct(kind):
            for name in dict.fromkeys(field.name for part in parts for field in part.type):
                put(name, [None if cell is None else cell.get(name) for cell in cells], column)
        elif types.is_list(kind) or types.is_large_list(kind):
            if not (types.is_string(kind.value_type) or types.is_large_string(kind.value_type)):
                raise InputError(
                    f"{what}: column {column!r} holds lists of {kind.value_type}, which do not say whose values they "
                    "are: expected lists of names, structs (name: 0 or 1), or a column an attribute"
                )
            known = [None if cell is None else set(cell) for cell in cells]
            for name in sorted(set().union(*(cell for cell in known if cell is not None))):
                put(name, [None if cell is None else name in cell for cell in known], column)
        elif types.is_boolean(kind) or types.is_integer(kind) or types.is_floating(kind):
            put(column, cells, column)
        else:
            raise InputError(f"{what}: column {column!r} holds {kind}: expected numbers, structs or lists of names")
    if not made:
        raise InputError(f"{what}: columns {name_list(list(columns))} hold no attribute")
    return _names(list(made), what), np.array(list(made.values()), dtype=np.float64).T


def _rows(path: str | Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    text = read_text(path, "the attributes")
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"{str(path)!r}, line {reader.line_num}: {error}") from error
    if not rows or len(rows[0][1]) < 2:
        raise InputError(f"{str(path)!r} has no attributes: expected a first line such as file,four-legged,striped")
    (_, head), *rest = rows
    for line, row in rest:
        if len(row) != len(head):
            raise InputError(f"{str(path)!r}, line {line}: {len(row)} cells under {len(head)} headings")
    return head, rest


def _names(found: Sequence[str], where: str) -> tuple[str, ...]:
    names = [clean_name(name, f"attribute {j} of {where}") for j, name in enumerate(found)]
    grouped = group_names(names)
    if len(grouped.names) < len(names):
        twice = next(name for j, name in enumerate(names) if grouped.positions.index(grouped.positions[j]) < j)
        raise InputError(f"{where}: {twice!r} is an attribute twice")
    return tuple(names)


def _value(cell: object, where: str) -> float:
    if isinstance(cell, str) and not cell.strip():
        return np.nan
    try:
        number = float(cell)  # type: ignore[arg-type]  # whatever a table holds
    except (TypeError, ValueError):
        number = -1.0
    if np.isnan(number):
        return np.nan
    if not 0 <= number <= 1:
        raise InputError(f"{where} is {cell!r}: expected 0, 1, a probability, or nothing where nobody knows")
    return number
