"""Concept files.

``.txt``
    One name a line. A comment begins with ``#`` at the start of a line; comments of the form ``# key: value`` above the
    first name are the provenance.
``.json``, ``.yaml``, ``.yml``
    A list of names; or a mapping of class name to its names (relevance); or a mapping with any of the keys ``names``,
    ``groups`` (group: names), ``relevance`` (class: names, or class: {name: weight}), ``class_names`` and
    ``provenance``. Without ``names`` the concepts are those of the groups, in order.

``.safetensors``
    Concepts found in data: ``vectors`` (M, d) and, in the header, a mapping as above under ``concepts``.

Names are normalised and repetitions dropped on reading; ``ConceptSet.report`` says what changed. In YAML they are words
as they are written, also ``no``, ``1e3`` and ``2001-01-01``. Files are UTF-8, or begin with the mark of UTF-16.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.files import atomic_write, write_json, write_text
from sparsecbm._base.names import check_name, same_name_key
from sparsecbm._base.texts import NO_TEXT, dump_yaml, parse_yaml, read_text
from sparsecbm._base.untrusted import regular_file

_KEYS = ("names", "groups", "relevance", "class_names", "provenance")
_SUFFIXES = (".txt", ".json", ".yaml", ".yml", ".safetensors")
_HEADER = re.compile(r"#\s*([A-Za-z][\w ]*):\s+(.*\S)\s*")


def read_concepts(path: str | Path) -> dict[str, Any]:
    """Read a concept file as arguments of `ConceptSet.clean`: names, and what else it holds."""
    path = Path(path).expanduser()
    suffix = _suffix(path)
    if suffix == ".safetensors":
        return _from_safetensors(path)
    text = read_text(path, "concept file")
    if not text.strip():
        raise InputError(f"concept file {str(path)!r} is empty: expected one concept name a line, or a list")
    with named(path):
        if suffix == ".txt":
            return _from_lines(text)
        return _from_tree(_parse_json(text) if suffix == ".json" else _parse_yaml(text))


@contextlib.contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Begin what is wrong inside with the name of the concept file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"concept file {str(Path(path).expanduser())!r}: {error}") from error


def write_concepts(path: str | Path, concepts: Mapping[str, Any]) -> None:
    """Write a concept file; `concepts` has the attributes of a `ConceptSet` by name. See `ConceptSet.save`."""
    path = Path(path).expanduser()
    suffix = _suffix(path)
    if suffix == ".safetensors":
        from safetensors.numpy import save

        held = {} if concepts["vectors"] is None else {"vectors": concepts["vectors"]}
        note = json.dumps(_to_tree({**concepts, "vectors": None}), ensure_ascii=False)
        atomic_write(path, lambda handle: handle.write(save(held, metadata={"concepts": note})))
    elif suffix == ".txt":
        write_text(path, _to_lines(concepts, path))
    elif suffix == ".json":
        write_json(path, _to_tree(concepts))
    else:
        write_text(path, dump_yaml(_to_tree(concepts)))


def _suffix(path: Path) -> str:
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            f"concept file {str(path)!r} has the unknown type {path.suffix!r}: expected .txt, .json, .yaml or "
            ".safetensors"
        )
    return path.suffix.lower()


def _from_safetensors(path: Path) -> dict[str, Any]:
    """What `write_concepts` wrote; nothing in it is trusted."""
    from safetensors import SafetensorError, safe_open

    with named(path):
        try:
            with safe_open(regular_file(path), framework="np") as file:
                note = (file.metadata() or {}).get("concepts", "")
                vectors = file.get_tensor("vectors") if "vectors" in file.keys() else None  # noqa: SIM118 - no dict
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"it is no safetensors file ({' '.join(str(error).split())[:200]})") from error
        return {**_from_tree(_parse_json(note)), "vectors": vectors}


def _from_lines(text: str) -> dict[str, Any]:
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
    return {"names": names, "provenance": provenance}


def _to_lines(concepts: Mapping[str, Any], path: Path) -> str:
    names, provenance = list(concepts["names"]), concepts["provenance"]
    lost = [what for what in ("groups", "relevance", "vectors") if concepts.get(what) is not None]
    if lost:
        better = ".safetensors" if "vectors" in lost else ".json or .yaml"
        raise InputError(f"{str(path)!r} cannot hold {' and '.join(lost)}: save as {better}, which can")
    if odd := [name for name in names if name.startswith("#")]:
        raise InputError(f"{str(path)!r} cannot hold {odd[0]!r}, a comment in a .txt file: save as .json or .yaml")
    header = [f"# {key}: {value}" for key, value in provenance.items()]
    text = "\n".join([*header, *names]) + "\n"
    # Provenance that is no short text, or has a line break in it, would come back as something else.
    if _from_lines(text) != {"names": names, "provenance": provenance} or NO_TEXT.search(text):
        raise InputError(f"{str(path)!r} cannot hold the provenance {provenance}: save as .json or .yaml, which can")
    return text


def _from_tree(tree: object) -> dict[str, Any]:
    if isinstance(tree, list):
        return {"names": tree}
    if not isinstance(tree, dict):
        raise InputError(f"it holds {tree!r}: expected a list of names or a mapping")
    if "names" in tree or "groups" in tree:
        return _from_mapping(tree)
    if not tree or not all(isinstance(names, list) for names in tree.values()):
        odd = next((key for key in tree if key not in _KEYS), None)
        if odd is not None and isinstance(odd, str) and not isinstance(tree[odd], list):
            raise unknown("key", odd, _KEYS)
        raise InputError("it has neither 'names' nor 'groups': expected one of them, or a list of names for each class")
    return {"names": _distinct(tree), "relevance": tree}


def _from_mapping(tree: dict[Any, Any]) -> dict[str, Any]:
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
    rest = {"relevance": relevance, "class_names": class_names, "provenance": tree.get("provenance")}
    return {"names": names, "groups": groups, **rest}


def _distinct(by_class: Mapping[str, list[Any]]) -> list[Any]:
    """Names of all classes in order of first appearance: that classes share a concept is no repetition to report."""
    seen: dict[str, Any] = {}
    for where, names in by_class.items():
        for name in names:
            seen.setdefault(same_name_key(check_name(name, f"a concept of class {where!r}")), name)
    return list(seen.values())


def _to_tree(concepts: Mapping[str, Any]) -> dict[str, Any]:
    names, groups, relevance = concepts["names"], concepts["groups"], concepts["relevance"]
    if concepts.get("vectors") is not None:
        raise InputError("vectors cannot be saved as text: save as .safetensors, which can")
    tree: dict[str, Any] = {"provenance": concepts["provenance"]} if concepts["provenance"] else {}
    tree["names"] = list(names)
    if groups is not None:
        members: dict[str, list[str]] = {}
        for name, group in zip(names, groups):
            if group is not None:
                members.setdefault(group, []).append(name)
        tree["groups"] = members
    if relevance is not None:
        if concepts["class_names"] is None:
            raise InputError("relevance without class names cannot be saved: give class_names")
        tree["relevance"] = {label: _row(names, row) for label, row in zip(concepts["class_names"], relevance)}
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


def _parse_yaml(text: str) -> object:
    tree = parse_yaml(text, as_written=True)
    if not isinstance(tree, dict) or not {"names", "groups"} & set(tree):
        return tree
    tree = {key: None if value in ("", "~", "null") else value for key, value in tree.items()}
    if tree.get("provenance") is not None:
        tree["provenance"] = parse_yaml(text)["provenance"]
    if isinstance(tree.get("relevance"), dict):
        tree["relevance"] = {label: _numbers(names) for label, names in tree["relevance"].items()}
    return tree


def _numbers(weights: object) -> object:
    """Weights of names as numbers; what is none is refused by `ConceptSet`, in its words."""
    if not isinstance(weights, dict):
        return weights
    numbers = dict(weights)
    for name, weight in weights.items():
        with contextlib.suppress(TypeError, ValueError):
            numbers[name] = float(weight)
    return numbers
