"""Which columns of a table hold the pictures and the labels, by type, name and what the hub's metadata says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.names import name_list

if TYPE_CHECKING:
    import pyarrow as pa

_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels")


def image_column(schema: pa.Schema, wanted: str | None, spec: str) -> str:
    """Name of the column of pictures.

    Raises
    ------
    InputError
        If there is none, or there are several and none is named like one.
    """

    def is_image(name: str) -> bool:
        kind = schema.field(name).type
        if _declared(schema, name).get("_type") == "Image":
            return True
        # Without the hub's metadata a picture is a bare struct {bytes, path}, or bare bytes.
        is_struct = str(kind).startswith("struct<")
        return _is_bytes(kind.field("bytes").type if is_struct and kind.get_field_index("bytes") >= 0 else kind)

    return _pick("image_column", "picture", list(filter(is_image, schema.names)), _IMAGE_NAMES, schema, wanted, spec)


def label_column(schema: pa.Schema, wanted: str | None, image: str, spec: str) -> str | None:
    """Name of the column of labels; None if no column could be one.

    Raises
    ------
    InputError
        If it is unclear which one it is.
    """
    import pyarrow.types as types

    def plain(name: str, *more: Callable[[Any], bool]) -> bool:
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        texts = (types.is_string, types.is_large_string, types.is_string_view)
        tests = (*texts, types.is_integer, types.is_boolean, types.is_decimal, *more)
        # The row numbers that pandas keeps in a column of its own are no labels.
        return name != image and not name.startswith("__index_level_") and any(test(kind) for test in tests)

    classes = [name for name in schema.names if class_list(schema, name) is not None]
    if wanted is not None:
        found = [name for name in schema.names if plain(name, types.is_floating, _is_bytes)]
        return _pick("label_column", "label", found, _LABEL_NAMES, schema, wanted, spec)
    if classes:
        return _pick("label_column", "label", classes, _LABEL_NAMES, schema, None, spec)
    # Without a list of classes a column is a label only if it says so; anything else may be an identifier.
    if named := [name for name in schema.names if name.lower() in _LABEL_NAMES and name != image]:
        return _pick("label_column", "label", named, _LABEL_NAMES, schema, None, spec)
    if candidates := list(filter(plain, schema.names)):
        raise InputError(
            f"{spec!r} has no column that is plainly the label: name one of {name_list(candidates)} by label_column"
        )
    return None


def class_list(schema: pa.Schema, name: str) -> list[str] | None:
    """Names of the classes that a column's numbers stand for, where the hub's metadata lists them."""
    declared = _declared(schema, name)
    names = declared.get("names")
    return names if declared.get("_type") == "ClassLabel" and isinstance(names, list) else None


def _declared(schema: pa.Schema, name: str) -> dict[str, Any]:
    """What the hub's metadata, written by anybody, says of a column."""
    try:
        declared = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][name]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return declared if isinstance(declared, dict) else {}


def _is_bytes(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind)


def _pick(
    option: str, what: str, found: list[str], usual: tuple[str, ...], schema: pa.Schema, wanted: str | None, spec: str
) -> str:
    """The wanted column, or the only one of its type, or the one of several with the usual name."""
    if wanted is not None:
        if wanted not in schema.names:
            raise unknown(f"{option} of {spec!r}", wanted, schema.names)
        if wanted not in found:
            raise InputError(
                f"{option}={wanted!r} of {spec!r} holds {schema.field(wanted).type}, not {what}s"
                + (f": candidates are {name_list(found)}" if found else "")
            )
        return wanted
    if len(found) == 1:
        return found[0]
    if len(named := [name for name in found if name.lower() in usual]) == 1:
        return named[0]
    if not found:
        columns = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise InputError(f"{spec!r} has no column of {what}s; its columns are {columns}")
    raise InputError(f"{spec!r} has several columns of {what}s: choose one of {name_list(found)} by {option}")
