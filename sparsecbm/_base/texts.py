"""Text and YAML from anywhere: what a file says is read as it was written, or refused in one line."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.untrusted import MAX_TEXT_BYTES, read_bytes

if TYPE_CHECKING:
    import yaml

_MAX_DEPTH = 20
# UTF-32 before UTF-16, whose mark begins alike.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What no text holds, but what UTF-16 without a mark is full of when it is read as UTF-8.
NO_TEXT = re.compile("[\x00-\x08\x0e-\x1b]")

# The core schema of YAML 1.2, in which `no`, `010`, `12:30` and `2001-01-01` are words.
_CORE = {
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), "tTfF"),
    "int": (re.compile(r"[-+]?(?:0|[1-9][0-9]*)"), "-+0123456789"),
    "float": (
        re.compile(
            r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        "-+0123456789.",
    ),
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""]),
}


def read_text(path: str | Path, what: str = "", limit: int = MAX_TEXT_BYTES) -> str:
    """Read text in UTF-8, or in UTF-16 or UTF-32 that begins with their mark.

    Messages say "cannot read WHAT PATH".

    Raises
    ------
    InputError
        If it is text of another encoding, or no text.
    StoredFileError
        If the file cannot be read or is larger than `limit` bytes.
    """
    name = f"{what} {str(path)!r}" if what else repr(str(path))
    try:
        data = read_bytes(path, limit)
    except StoredFileError as error:
        raise StoredFileError(str(error).replace(repr(str(path)), name, 1)) from error
    encoding = next((encoding for mark, encoding in _MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
        odd = NO_TEXT.search(text)
        found = odd and f"character 0x{ord(odd[0]):02x} in line {text.count(chr(10), 0, odd.start()) + 1}"
    except UnicodeDecodeError as error:
        found = f"byte 0x{data[error.start]:02x} in line {data.count(bytes([10]), 0, error.start) + 1}"
    if found:
        hint = "; it may be UTF-16 without a mark" if b"\0" in data or found.startswith("character") else ""
        raise InputError(f"{name} is not UTF-8 text ({found}{hint}): save it in the encoding UTF-8")
    return text


def parse_yaml(text: str, *, as_written: bool = False) -> Any:
    """Parse plain YAML: no aliases, no key twice, at most 20 levels deep; words such as ``no`` and ``010`` stay words.

    Parameters
    ----------
    text : str
    as_written : bool
        Every value without quotes is text too, as it stands there: ``1e3``, ``null``, ``true``.

    Raises
    ------
    InputError
        If the text breaks one of these rules; the line does not name the file.
    """
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            # A few nested aliases can expand to gigabytes.
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"line {event.start_mark.line + 1}: YAML aliases are not allowed, write it out")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_DEPTH:  # PyYAML takes a minute for 20,000 brackets
                raise InputError(f"line {event.start_mark.line + 1}: nested more than {_MAX_DEPTH} levels deep")
        loader = _loader(as_written)(text)
        node = loader.get_single_node()
        for key in _repeated_keys(node):
            raise InputError(f"line {key.start_mark.line + 1}: key {key.value!r} is there twice; keep one")
        return None if node is None else loader.construct_document(node)
    # PyYAML's constructors raise ValueError for odd numbers, TypeError and AttributeError for odd tags.
    except (yaml.YAMLError, RecursionError, ValueError, TypeError, AttributeError, LookupError) as error:
        if isinstance(error, InputError):
            raise
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or " ".join(str(error).split())[:200] or type(error).__name__
        place = "" if mark is None else f", line {mark.line + 1} column {mark.column + 1}"
        raise InputError(f"it is not valid YAML: {problem}{place}") from error


def dump_yaml(tree: Any) -> str:
    """Write YAML that `parse_yaml`, and readers of YAML 1.1, read back as it was."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Quotes a text that either version would take for something else."""

    _resolve(Dumper)
    text = yaml.dump(tree, Dumper=Dumper, allow_unicode=True, sort_keys=False, width=10_000)
    # Unescaped, PyYAML does not read every character back as it wrote it (U+0085 becomes a blank).
    return text if parse_yaml(text) == tree else yaml.dump(tree, Dumper=Dumper, sort_keys=False)


def _loader(as_written: bool) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """The safe loader with YAML 1.2's idea of which words are not words."""

        yaml_implicit_resolvers: dict[str, list[Any]] = {}

    if not as_written:
        _resolve(Loader)
    return Loader


def _resolve(to: Any) -> None:
    for name, (pattern, first) in _CORE.items():
        to.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"(?:{pattern.pattern})$"), list(first))


def _repeated_keys(node: yaml.Node | None) -> Iterator[yaml.ScalarNode]:
    import yaml

    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    yield key
                seen.add(key.value)
            yield from _repeated_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for child in node.value:
            yield from _repeated_keys(child)
