"""What every key of a configuration means: what the schema says, and what it takes from docstrings."""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from sparsecbm.config.options import OneOf


@dataclass(frozen=True)
class Key:
    """One key: its place, its type and default in words, and what it means."""

    key: str
    type: str
    default: str
    meaning: str


def documented_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a configuration in the order of the schema, each section's after it."""
    for name, field in kind.model_fields.items():
        section = _section(field.annotation)
        words = field.description or (inspect.getdoc(section) if section else None) or ""
        default = "required" if field.is_required() else f"default {_shown(field.default)}"
        yield Key(
            prefix + name,
            "section" if section else _typed(field.annotation, field.metadata),
            default,
            " ".join(words.split()),
        )
        if section is not None:
            yield from documented_keys(section, f"{prefix}{name}.")


def _section(annotation: Any) -> type[BaseModel] | None:
    kinds = (annotation, *get_args(annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _shown(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "as below"
    if isinstance(value, tuple):
        return str(list(value))
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _typed(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in words: ``int >= 1 or null``."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _typed(inner[0], [part for held in inner[1:] for part in getattr(held, "metadata", (held,))])
    if origin is Literal:
        return "|".join(map(str, inner))
    if origin in (Union, types.UnionType):
        return " or ".join(_typed(kind) for kind in inner)
    if origin is not None:
        name = "list" if origin is tuple else origin.__name__  # YAML has no tuples
        return f"{name}[{', '.join(_typed(kind) for kind in inner if kind is not ...)}]"
    parts = next((held for held in metadata if isinstance(held, OneOf)), None)
    if parts is not None:
        return "|".join([*parts.more, *parts.parts])
    bounds = [
        f"{sign} {getattr(held, name)}" for held in metadata for name, sign in _SIGNS.items() if hasattr(held, name)
    ]
    return " ".join(["null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation)), *bounds])
