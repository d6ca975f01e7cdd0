"""Parts by name: every variant of a kind is one file and one line, and a part from outside joins the same way."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from sparsecbm._base.errors import InputError, unknown

Part = TypeVar("Part")

PLUGINS = "SPARSECBM_PLUGINS"
"""Environment variable: importable modules, separated by commas, that register parts. Installed packages name theirs as
entry points of the group ``sparsecbm.plugins`` instead. Neither is ever taken from a file that someone else wrote."""

_loaded = False


def load_plugins() -> None:
    """Import what registers parts from outside, once a process.

    Raises
    ------
    InputError
        If a module that `SPARSECBM_PLUGINS` names cannot be imported.
    """
    global _loaded
    if _loaded:
        return
    _loaded = True
    for name in filter(None, map(str.strip, os.environ.get(PLUGINS, "").split(","))):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise InputError(
                f"{PLUGINS} names {name!r}, which cannot be imported ({error}): expected a module on PYTHONPATH"
            ) from error
    for point in entry_points(group="sparsecbm.plugins"):
        point.load()


class Registry(Mapping[str, Part], Generic[Part]):
    """The parts of one kind by name, imported when they are first used.

    Parameters
    ----------
    kind : str
        What an error calls a part, such as ``"loss"``.
    room : str
        Package below `sparsecbm` that holds the parts.
    parts : mapping of str to str
        Name -> ``"module:attribute"`` in that package.

    Examples
    --------
    >>> from sparsecbm._base.registry import Registry
    >>> fruits = Registry("fruit", "data", {})
    >>> fruits.register("plum", 7)
    7
    >>> fruits.find("plum")
    7
    """

    def __init__(self, kind: str, room: str, parts: Mapping[str, str]) -> None:
        self.kind = kind
        self._room = room
        self._homes = dict(parts)
        self._parts: dict[str, Part] = {}

    def register(self, name: str, part: Part) -> Part:
        """Add a part from outside the package, and return it.

        Raises
        ------
        InputError
            If the name is taken by another part.
        """
        if name in self._homes or self._parts.get(name, part) is not part:
            raise InputError(f"the {self.kind} {name!r} is registered already: choose another name")
        self._parts[name] = part
        return part

    def check(self, name: str) -> str:
        """Return a known name; a part of the package is not imported for it. Raises InputError otherwise."""
        if name not in self._homes and name not in self._parts:
            load_plugins()
            if name not in self._parts:
                raise unknown(self.kind, name, self)
        return name

    def find(self, name: str) -> Part:
        """Return the part called `name`; raises InputError, naming the nearest, where there is none."""
        self.check(name)
        if name not in self._parts:
            module, _, attribute = self._homes[name].partition(":")
            self._parts[name] = getattr(importlib.import_module(f"sparsecbm.{self._room}.{module}"), attribute)
        return self._parts[name]

    def make(self, name: str, *args: Any, **options: Any) -> Any:
        """Call the part called `name`; raises InputError, naming the nearest, for an option that it does not take."""
        part: Any = self.find(name)
        taken = inspect.signature(part).parameters
        for option in options:
            if option not in taken and not any(held.kind is held.VAR_KEYWORD for held in taken.values()):
                named = [key for key, held in taken.items() if held.kind is held.KEYWORD_ONLY]
                raise unknown(f"option of {self.kind} {name!r}", option, named)
        return part(*args, **options)

    def __getitem__(self, name: str) -> Part:
        if name not in self:
            raise KeyError(name)
        return self.find(name)

    def __contains__(self, name: object) -> bool:
        return name in self._homes or name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter([*self._homes, *(name for name in self._parts if name not in self._homes)])

    def __len__(self) -> int:
        return len({*self._homes, *self._parts})
