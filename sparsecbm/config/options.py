"""Options that a class or function of the package declares, read from the text of its file.

Its signature (types, defaults) and its docstring (meanings) are where an option is written; the
configuration takes them from there. The file is read, not imported: a wrong key is reported before torch is loaded.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import GenericAlias, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

from sparsecbm._base import parameters
from sparsecbm._base.registry import Registry

_PACKAGE = Path(__file__).parents[1]

Section = TypeVar("Section", bound=BaseModel)


class OneOf:
    """A pydantic annotation: the name of a part of a registry, or one of a few more words."""

    def __init__(self, parts: Registry[Any], *more: str) -> None:
        self.parts, self.more = parts, more

    def _check(self, name: str) -> str:
        return name if name in self.more else self.parts.check(name)

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], CoreSchema]) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Callable[[Any], Any]) -> Any:
        return {**handler(schema), "enum": [*self.more, *self.parts]}


def declared(where: str, leave: tuple[str, ...] = (), **parts: OneOf) -> Callable[[type[Section]], type[Section]]:
    """Return a decorator that gives a section of the configuration the options that a class or function declares.

    Parameters
    ----------
    where : str
        ``"FILE:NAME"``, the file without its ending, below the package. Options are the keyword-only parameters of a
        function or of a class's ``__init__``, or the fields of a dataclass, of types that YAML can hold
        (`sparsecbm._base.parameters`).
    leave : tuple of str
        Parameters that are no options: they come from elsewhere in a run.
    **parts : OneOf
        Options that name a part.
    """
    meanings = parameter_meanings(where)
    fields: dict[str, Any] = {}
    for key, annotation, default in _parameters(_declaration(where)):
        if key in leave:
            continue
        try:
            hint = Annotated[str, parts[key]] if key in parts else _lenient(_value(annotation))
        except NameError:  # an array or the like: no option
            continue
        fields[key] = (hint, Field(default=_value(default), description=meanings.get(key)))

    def complete(section: type[Section]) -> type[Section]:
        made = create_model(section.__name__, __base__=section, __module__=section.__module__, **fields)
        made.__doc__ = section.__doc__
        return made

    return complete


def _declaration(where: str) -> ast.ClassDef | ast.FunctionDef:
    file, _, name = where.partition(":")
    tree = ast.parse((_PACKAGE / f"{file}.py").read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    return next(node for node in tree.body if isinstance(node, kinds) and node.name == name)


def _parameters(found: ast.ClassDef | ast.FunctionDef) -> Iterator[tuple[str, ast.expr, ast.expr]]:
    for node in [found] if isinstance(found, ast.FunctionDef) else found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.annotation, node.value
        elif isinstance(node, ast.FunctionDef) and (node is found or node.name == "__init__"):
            for argument, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
                if argument.annotation is not None and default is not None:
                    yield argument.arg, argument.annotation, default


def _value(node: ast.expr) -> Any:
    """Evaluate an expression of the package's own source in the names of `parameters`."""
    known = {**vars(parameters), "field": lambda default_factory: default_factory()}
    return eval(compile(ast.Expression(node), "<signature>", "eval"), known)


def _lenient(hint: Any) -> Any:
    """The same type as YAML may hold it: ``1e-3`` is a text there, and a list stands for a tuple."""
    if get_origin(hint) is Literal:
        return hint
    if get_origin(hint) is Annotated:
        inner, *rest = get_args(hint)
        limits = [limit for part in rest for limit in (part.metadata if isinstance(part, FieldInfo) else [part])]
        kept = tuple(limit for limit in limits if not hasattr(limit, "strict") and getattr(limit, "lt", 0) != 2**63)
        return Annotated[(_lenient(inner), *kept)] if kept else _lenient(inner)  # type: ignore[return-value]  # built at run time
    if get_origin(hint) is tuple:
        return GenericAlias(tuple, tuple(map(_lenient, get_args(hint))))
    if get_origin(hint) in (Union, UnionType):
        return functools.reduce(operator.or_, map(_lenient, get_args(hint)))
    return hint


def parameter_meanings(where: str) -> dict[str, str]:
    """Return the text of each parameter in the numpydoc docstring of a class or function, given as in `declared`."""
    doc = ast.get_docstring(_declaration(where)) or ""
    section = re.search(r"^(?:Parameters|Attributes)\n-+\n(.*?)(?=^\S[^\n]*\n-+$|\Z)", doc, re.MULTILINE | re.DOTALL)
    entries = re.findall(r"^(\S[^\n]*?) : [^\n]*\n((?:[ ]+[^\n]*\n?|\n)*)", section[1] if section else "", re.MULTILINE)
    return {name.strip(): inspect.cleandoc(text) for names, text in entries for name in names.split(",")}
