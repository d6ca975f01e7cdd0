"""YAML in, a checked configuration out, one clear line for every mistake."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from sparsecbm._base.errors import InputError, suggest, unknown
from sparsecbm._base.formats import CONFIG_STEPS, brought_up, current
from sparsecbm._base.texts import dump_yaml, parse_yaml, read_text
from sparsecbm.config.schema import CONCEPT_SOURCES, RunConfig, SearchConfig, VaeConfig, _Section

MAX_CONFIG_BYTES = 1 << 20
"""A config is a page of text; anything larger is a mistake or an attack."""


KINDS: dict[str, type[_Section]] = {"train": RunConfig, "search": SearchConfig, "vae": VaeConfig}
"""Commands that take a configuration; a file of the package belongs to the one its name begins with, else to train."""


AnyConfig = TypeVar("AnyConfig", bound=_Section)


def load_config(
    source: str | Path,
    overrides: Sequence[str] = (),
    kind: type[AnyConfig] = RunConfig,  # type: ignore[assignment]  # mypy knows no default of a generic parameter
) -> AnyConfig:
    """Read a configuration.

    Parameters
    ----------
    source : str or Path
        Path of a YAML file, or the name of one that comes with the package (see `builtin_configs`).
    overrides : sequence of str
        ``"section.key=value"`` each, the value in YAML; they win over the file. Relative paths in the file are taken
        from the file's folder, those in overrides from the current folder.
    kind : {RunConfig, SearchConfig, VaeConfig}
        What it configures.

    Returns
    -------
    RunConfig, SearchConfig or VaeConfig
        Checked values.

    Raises
    ------
    InputError
        If the file is missing, too large, not plain YAML, or holds an unknown key or a bad value; the message names the
        key with its path and the nearest known one.
    """
    path = find_config(source, next(name for name, held in KINDS.items() if held is kind))
    values = _anchor_paths(read_yaml(path), path.parent)
    return build_config(values, overrides, kind, what=str(source), name=path.stem)


def build_config(
    values: Mapping[str, Any],
    overrides: Sequence[str] = (),
    kind: type[AnyConfig] = RunConfig,  # type: ignore[assignment]  # as in `load_config`
    *,
    what: str = "config",
    name: str | None = None,
) -> AnyConfig:
    """Check a configuration given as a mapping; see `load_config`.

    Examples
    --------
    >>> build_config({"model": {"loss": "l1"}}, ["seed=3"]).seed
    3
    >>> build_config({"model": {"prior": "rbm"}}, ["objective.samples=5"], VaeConfig).objective.samples
    5
    >>> build_config({"model": {"los": "l1"}})
    Traceback (most recent call last):
        ...
    sparsecbm._base.errors.InputError: config: unknown key 'model.los'; did you mean 'model.loss'?
    """
    merged = brought_up({"format_version": 1, **_copy(values)}, CONFIG_STEPS, what)
    merged = merged if name is None else {"name": name, **merged}
    for override in overrides:
        _override(merged, override)
    try:
        return kind.model_validate(merged)
    except ValidationError as error:
        raise InputError(f"{what}: {_one_line(error, kind)}") from None


def builtin_configs(kind: str = "train") -> dict[str, Path]:
    """Return the configurations that come with the package for one command, by name.

    Parameters
    ----------
    kind : {"train", "search", "vae"}
    """
    found = {path.stem: path for folder in _config_folders() for path in sorted(folder.glob("*.yaml"))}
    return {name: path for name, path in found.items() if _kind(name) == kind}


def _kind(name: str) -> str:
    prefix = name.partition("_")[0]
    return prefix if prefix in KINDS and "_" in name else "train"


def find_config(source: str | Path, kind: str = "train") -> Path:
    """Return the path of a configuration given as a path or as a built-in name.

    Raises
    ------
    InputError
        If there is no such file or name, or the name is of a configuration for another command.
    """
    path = Path(source)
    if path.is_file():
        return path
    if path.is_dir():
        raise InputError(f"config {str(source)!r} is a folder: expected a YAML file")
    known = builtin_configs(kind)
    if str(source) in known:
        return known[str(source)]
    other = _kind(str(source))
    if other != kind and str(source) in builtin_configs(other):
        raise InputError(f"config {str(source)!r} is for `sparsecbm {other}`, not for `sparsecbm {kind}`")
    if len(path.parts) == 1 and not path.suffix:
        raise unknown("config", str(source), known)
    raise InputError(f"config file {str(source)!r} not found{suggest(path.stem, known)}")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read one YAML mapping: plain data only, at most `MAX_CONFIG_BYTES`, no anchors, no key twice.

    Raises
    ------
    InputError
        If the file breaks one of these rules, naming the line.
    """
    path = Path(path)
    try:
        values = parse_yaml(read_text(path, "config", MAX_CONFIG_BYTES))
    except InputError as error:
        raise type(error)(str(error) if repr(str(path)) in str(error) else f"{str(path)!r}, {error}") from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise InputError(f"{str(path)!r}: expected keys and values (a YAML mapping), got {type(values).__name__}")
    return values


def dump_config(config: RunConfig | SearchConfig | VaeConfig) -> str:
    """Return the configuration as YAML that `load_config` reads back from any folder; relative paths are from here."""
    values = _anchor_paths(config.model_dump(mode="json"), Path.cwd())
    return dump_yaml({"format_version": current(CONFIG_STEPS), **values})


def _config_folders() -> Iterator[Path]:
    """Folder of the installed package, then that of a checkout."""
    here = Path(__file__).resolve().parents[1]
    for folder in (here.parent / "configs", here / "_configs"):
        # A site-packages/configs of some other package is not ours: a checkout has a pyproject beside it.
        if folder.is_dir() and (folder.name == "_configs" or (here.parent / "pyproject.toml").is_file()):
            yield folder


_PATHS = {
    ("concepts", "file"): "",
    ("embeddings", "path"): "",
    ("embeddings", "concepts"): "",
    ("embeddings", "classes"): "",
    ("embeddings", "concept_labels"): "",
    ("classes", "descriptions"): "",
    ("data", "folder"): "",
    ("images", "spec"): "folder:|parquet:",
    ("data", "images"): "folder:|parquet:",
    ("encoder", "spec"): "open_clip:local-dir:|transformers:(?=[.~])",
    ("images", "concept_labels"): r"(?i)(?=.*\.csv$)",
    ("images", "class_labels"): r"(?i)(?=.*\.csv$)",
}
"""Keys that may hold a path, and the pattern of what stands before it; what does not match is no path: OWNER/MODEL of a
hub, columns of a data set."""


def _anchor_paths(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Make the file's relative paths independent of the current folder."""
    values = _copy(values)
    for (section, key), before in _PATHS.items():
        held = values.get(section)
        if not isinstance(held, dict) or not isinstance(given := held.get(key), str):
            continue
        if found := re.match(before, given):
            path = given[found.end() :] if found[0] else given.strip()
            if path:
                held[key] = found[0] + os.path.normpath(Path(folder, Path(path).expanduser()).absolute())
    return values


def _copy(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in values.items()}


def _override(values: dict[str, Any], text: str) -> None:
    key, equals, raw = text.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {text!r}: expected key=value, such as --set model.loss=l1")
    try:
        value = parse_yaml(raw)
    except InputError as error:
        raise InputError(f"--set {text!r}: {error}; quote the value") from error
    held = values
    for part in parts[:-1]:
        nested = held.get(part)
        if nested is None:
            nested = held[part] = {}
        if not isinstance(nested, dict):
            raise InputError(f"--set {text!r}: {part!r} is a value, not a section")
        held = nested
    if parts[0] == "concepts" and len(parts) == 2 and parts[1] in CONCEPT_SOURCES:
        for other in CONCEPT_SOURCES:  # naming one source replaces the file's
            held.pop(other, None)
    held[parts[-1]] = value


def _one_line(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first mistake in one line: which key, which value, what was expected."""
    # Unknown keys first: a misspelt key often causes the others.
    problems = sorted(error.errors(include_url=False), key=lambda problem: problem["type"] != "extra_forbidden")
    problem, more = problems[0], len(problems) - 1
    place = ".".join(str(part) for part in problem["loc"] if part != "[key]")
    tail = f" (and {more} more problem{'s' if more > 1 else ''})" if more else ""
    value = problem["input"]
    if problem["type"] == "extra_forbidden":
        parents = [str(part) for part in problem["loc"][:-1]]
        known = _keys(model, parents)
        prefix = ".".join([*parents, ""]) if parents else ""
        near = suggest(str(problem["loc"][-1]), known)
        if not near:  # the key may belong to another section
            near = suggest(str(problem["loc"][-1]), [path.rsplit(".", 1)[-1] for path in _all_keys(model)])
            if near:
                leaf = near.split("'")[1]
                path = next(path for path in _all_keys(model) if path.rsplit(".", 1)[-1] == leaf)
                return f"unknown key {place!r}; did you mean {path!r}?{tail}"
            return f"unknown key {place!r}: expected one of {', '.join(prefix + key for key in known)}{tail}"
        return f"unknown key {place!r}{near.replace(chr(39), chr(39) + prefix, 1)}{tail}"
    if problem["type"] == "literal_error":
        expected = str(problem.get("ctx", {})["expected"]).replace(" or ", ",")
        allowed = [choice.strip("' ") for choice in expected.split(",")]
        return f"unknown {place} {value!r}: expected one of {', '.join(allowed)}{suggest(str(value), allowed)}{tail}"
    if problem["type"] in ("model_type", "dict_type"):
        return f"{place}={value!r}: expected a section (keys and values){tail}"
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if problem["type"] == "value_error":
        return f"{place}: {message}{tail}"
    shown = repr(value) if len(repr(value)) <= 60 else repr(value)[:57] + "..."
    return f"{place}={shown}: {message}{tail}"


def _keys(model: type[BaseModel], parents: Sequence[str]) -> list[str]:
    for part in parents:
        nested = _section(model, part)
        if nested is None:
            return []
        model = nested
    return list(model.model_fields)


def _section(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    kinds = (model.model_fields[key].annotation,) if key in model.model_fields else ()
    kinds = (*kinds, *(arg for kind in kinds for arg in getattr(kind, "__args__", ())))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for key in model.model_fields:
        yield prefix + key
        nested = _section(model, key)
        if nested is not None:
            yield from _all_keys(nested, f"{prefix}{key}.")
