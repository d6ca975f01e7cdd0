"""What every key of a configuration means, from where it is written: the schema, and the docstrings of estimators.

Nothing heavy is imported: an estimator's docstring is read from its file.
"""

from __future__ import annotations

import ast
import inspect
import re
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from sparsecbm.config import schema

_FILES = {
    schema.ModelConfig: ("estimators/sparse_cbm.py", "SparseCBMClassifier"),
    schema.MatrixSearchConfig: ("estimators/concept_matrix_search.py", "ConceptMatrixSearch"),
    schema.DecomposerConfig: ("estimators/sparse_decomposer.py", "SparseDecomposer"),
    schema.VaeModelConfig: ("vae/model.py", "DiscreteVAE"),
    schema.VaeTrainingConfig: ("vae/training.py", "TrainingOptions"),
}
"""Sections whose keys are parameters, and the class that says what they mean."""


@dataclass(frozen=True)
class Key:
    """One key: its place, its type and default in words, and what it means."""

    key: str
    type: str
    default: str
    meaning: str


def documented_keys(kind: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a configuration in the order of the schema, each section's after it."""
    meanings = _parameters(*_FILES[kind]) if kind in _FILES else {}
    for name, field in kind.model_fields.items():
        section = _section(field.annotation)
        words = field.description or (inspect.getdoc(section) if section else meanings.get(name)) or ""
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
        return f"{origin.__name__}[{', '.join(_typed(kind) for kind in inner)}]"
    bounds = [
        f"{sign} {getattr(held, name)}" for held in metadata for name, sign in _SIGNS.items() if hasattr(held, name)
    ]
    return " ".join(["null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation)), *bounds])


def _parameters(file: str, name: str) -> dict[str, str]:
    """Descriptions in the numpydoc section Parameters of a class."""
    tree = ast.parse((Path(__file__).parents[1] / file).read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    text = re.search(
        r"(?:Parameters|Attributes)\n-+\n(.*?)(?:\n\n\w+\n-+\n|\Z)", ast.get_docstring(found) or "", re.DOTALL
    )
    meanings: dict[str, str] = {}
    names: list[str] = []
    for line in text[1].splitlines() if text else ():
        if line[:1].strip():
            names = [part.strip().lstrip("*") for part in line.partition(" : ")[0].split(",")]
        else:
            for each in names:
                meanings[each] = f"{meanings.get(each, '')} {line.strip()}".strip()
    return meanings
