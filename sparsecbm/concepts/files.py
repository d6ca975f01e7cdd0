"""Concept files.

``.txt``
    One name a line. A comment begins with ``#`` at the start of a line; comments of the form ``# key: value`` above the
    first name are the provenance.
``.json``, ``.yaml``, ``.yml``
    A list of names; or a mapping of class name to its names (relevance); or a mapping with any of the keys ``names``,
    ``groups`` (group: names), ``relevance`` (class: names, or class: {name: weight}), ``class_names`` and
    ``provenance``. Without ``names`` the concepts are those of the groups, in order.

Names are normalised and repetitions dropped on reading; ``ConceptSet.report`` says what changed. Files are UTF-8.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecbm._base import files as _files
from sparsecbm._base import untrusted as _untrusted
from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.names import check_name, same_name_key
from sparsecbm.concepts.concept_set import ConceptSet

if TYPE_CHECKING:
    import yaml

_KEYS = ("names", "groups", "relevance", "class_names", "provenance")
_MAX_DEPTH = 20
_SUFFIXES = (".txt", ".json", ".yaml", ".yml")
_HEADER = re.compile(r"#\s*([A-Za-z][\w ]*):\s+(.*\S)\s*")


def read_concepts(path: str | Path) -> ConceptSet:
    """Read a concept file; see `ConceptSet.from_file`."""
    path = Path(path).expanduser()
    suffix = _suffix(path)
    text = _read_text(path)
    if not text.strip():
        raise InputError(f"concept file {str(path)!r} is empty: expected one concept name a line, or a list")
    try:
        if suffix == ".txt":
            return _from_lines(text)
        return _from_tree(_parse_json(text) if suffix == ".json" else _parse_yaml(text))
    except InputError as error:
        raise InputError(f"concept file {str(path)!r}: {error}") from error


def write_concepts(concepts: ConceptSet, path: str | Path) -> None:
    """Write a concept file; see `ConceptSet.save`."""
    path = Path(path).expanduser()
    suffix = _suffix(path)
    if suffix == ".txt":
        _files.write_text(path, _to_lines(concepts, path))
    elif suffix == ".json":
        _files.write_json(path, _to_tree(concepts))
    else:
        _files.write_text(path, _dump_yaml(_to_tree(concepts)))


def _suffix(path: Path) -> str:
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"concept file {str(path)!r} has the unknown type {path.suffix!r}: expected .txt, .json or .yaml"
        )
    return path.suffix.lower()


def _read_text(path: Path) -> str:
    try:
        data = _untrusted.read_bytes(path)
    except InputError as error:
        raise InputError(str(error).replace("cannot read", "cannot read concept file", 1)) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"concept file {str(path)!r} is not UTF-8 text (byte 0x{data[error.start]:02x} in line {line}): "
            "save it in the encoding UTF-8"
        ) from error


def _from_lines(text: str) -> ConceptSet:
    names: list[str] = []
    provenance: dict[str, str] = {}
    # Not str.splitlines, which also breaks at characters that belong to the blanks inside a name.
    for line in re.split(r"\r\n|\r|\n", text.rstrip()):
        if not line.lstrip().startswith("#"):
            names.append(line)
        elif (entry := _HEADER.fullmatch(line.strip())) and not any(name.strip() for name in names):
            provenance[entry[1]] = entry[2]
    if not any(name.strip() for name in names):
        raise InputError("there are only comments in it: expected one concept name a line")
    return ConceptSet.clean(names, provenance=provenance)


def _to_lines(concepts: ConceptSet, path: Path) -> str:
    lost = [what for what in ("groups", "relevance") if getattr(concepts, what) is not None]
    if lost:
        raise InputError(f"{str(path)!r} cannot hold {' and '.join(lost)}: save as .json or .yaml, which can")
    if odd := [name for name in concepts.names if name.startswith("#")]:
        raise InputError(f"{str(path)!r} cannot hold {odd[0]!r}, a comment in a .txt file: save as .json or .yaml")
    header = [f"# {key}: {value}" for key, value in concepts.provenance.items()]
    text = "\n".join([*header, *concepts.names]) + "\n"
    if _from_lines(text) != concepts:  # provenance that is no short text, or with a line break in it
        raise InputError(
            f"{str(path)!r} cannot hold the provenance {concepts.provenance}: save as .json or .yaml, which can"
        )
    return text


def _from_tree(tree: object) -> ConceptSet:
    if isinstance(tree, list):
        return ConceptSet.clean(tree)
    if not isinstance(tree, dict):
        raise InputError(f"it holds {tree!r}: expected a list of names or a mapping")
    if "names" in tree or "groups" in tree:
        return _from_mapping(tree)
    if not tree or not all(isinstance(names, list) for names in tree.values()):
        odd = next((key for key in tree if key not in _KEYS), None)
        if odd is not None and isinstance(odd, str) and not isinstance(tree[odd], list):
            raise unknown("key", odd, _KEYS)
        raise InputError("it has neither 'names' nor 'groups': expected one of them, or a list of names for each class")
    return ConceptSet.clean(_distinct(tree), relevance=tree)


def _from_mapping(tree: dict[Any, Any]) -> ConceptSet:
    for key in tree:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS)
    groups = tree.get("groups")
    if groups is not None and not (isinstance(groups, dict) and all(isinstance(v, list) for v in groups.values())):
        raise InputError("'groups' is not a mapping of group to a list of names")
    names = tree.get("names")
    if names is None:
        names = [name for members in (groups or {}).values() for name in members]
    if not isinstance(names, list):
        raise InputError(f"'names' is {names!r}: expected a list")
    relevance, class_names = tree.get("relevance"), tree.get("class_names")
    if relevance is not None and not isinstance(relevance, dict):
        raise InputError("'relevance' is not a mapping of class to names")
    if class_names is not None and not isinstance(class_names, list):
        raise InputError(f"'class_names' is {class_names!r}: expected a list")
    options = {"groups": groups, "relevance": relevance, "class_names": class_names}
    return ConceptSet.clean(names, **options, provenance=tree.get("provenance"))


def _distinct(by_class: Mapping[str, list[Any]]) -> list[Any]:
    """Names of all classes in order of first appearance: that classes share a concept is no repetition to report."""
    seen: dict[str, Any] = {}
    for where, names in by_class.items():
        for name in names:
            seen.setdefault(same_name_key(check_name(name, f"a concept of class {where!r}")), name)
    return list(seen.values())


def _to_tree(concepts: ConceptSet) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    if concepts.provenance:
        tree["provenance"] = concepts.provenance
    tree["names"] = list(concepts.names)
    if concepts.groups is not None:
        members: dict[str, list[str]] = {}
        for name, group in zip(concepts.names, concepts.groups):
            if group is not None:
                members.setdefault(group, []).append(name)
        tree["groups"] = members
    if concepts.relevance is not None:
        if concepts.class_names is None:
            raise InputError("relevance without class names cannot be saved: give class_names")
        tree["relevance"] = {
            label: _row(concepts.names, row) for label, row in zip(concepts.class_names, concepts.relevance)
        }
    return tree


def _row(names: tuple[str, ...], weights: Any) -> list[str] | dict[str, float]:
    if set(weights.tolist()) <= {0.0, 1.0}:
        return [name for name, weight in zip(names, weights) if weight]
    return {name: float(weight) for name, weight in zip(names, weights) if weight}


def _parse_json(text: str) -> object:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        tree = dict(pairs)
        if len(tree) < len(pairs):
            keys = [key for key, _ in pairs]
            raise InputError(f"key {next(key for key in keys if keys.count(key) > 1)!r} is there twice: merge the two")
        return tree

    try:
        return json.loads(text, object_pairs_hook=unique)
    # JSONDecodeError, or a number of too many digits.
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"it is not valid JSON ({error})") from error


def _dump_yaml(tree: dict[str, Any]) -> str:
    import yaml

    text = yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, width=10_000)
    # Unescaped, PyYAML does not read every character back as it wrote it (U+0085 becomes a blank).
    return text if yaml.safe_load(text) == tree else yaml.safe_dump(tree, sort_keys=False)


def _parse_yaml(text: str) -> object:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader, but a repeated key is an error and not a silent loss."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            for position, key in enumerate(keys):
                if key in keys[:position]:
                    raise InputError(f"key {key!r} is there twice: merge the two")
            return super().construct_mapping(node, deep)

    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # Aliases of aliases unfold to more names than memory holds.
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"line {event.start_mark.line + 1}: YAML aliases are not allowed, write the names out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # PyYAML takes a minute for 20,000 brackets
                raise InputError(f"line {event.start_mark.line + 1}: nested more than {_MAX_DEPTH} levels deep")
        return Loader(text).get_single_data()  # what yaml.safe_load does with its own loader
    # PyYAML's constructors raise ValueError for a date like 2001-13-45, TypeError and AttributeError for odd tags.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"it is not valid YAML ({' '.join(str(error).split())[:300]})") from error
