"""Imports run one way, heavy libraries stay in their rooms, and the package imports fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsecbm

ROOT = Path(sparsecbm.__file__).parent

# What each room may import of the package, the ground first: nothing imports a room that stands below it in this table.
ALLOWED: dict[str, set[str]] = {
    "_base": set(),
    "samplers": set(),
    "config": {"_base"},
    "data": {"_base"},
    "encoders": {"_base", "data"},
    "concepts": {"_base"},
    "embeddings": {"_base", "encoders", "data", "concepts"},
    "heads": {"_base"},
    "bottleneck": {"_base", "samplers"},
    "vae": {"_base", "samplers"},
    "dictionary": {"_base", "samplers", "bottleneck"},
    "explain": {"_base"},
    "evaluation": {"_base", "heads"},
    "estimators": {"_base", "encoders", "bottleneck", "heads", "dictionary", "explain", "evaluation"},
}
ALLOWED["inputs"] = set(ALLOWED) - {"samplers", "vae"}
ALLOWED["runs"] = set(ALLOWED) - {"samplers"}
ALLOWED["cli"] = {"_base", "config", "runs", "concepts", "explain"}
ALLOWED["__main__"] = {"cli"}

# Libraries that one room alone may import. accelerate: the embedding loop, and the one Accelerator of all training.
LIBRARY_ROOMS = {
    "open_clip": {"encoders"},
    "transformers": {"encoders"},
    "datasets": {"data"},
    "gradio": {"runs"},
    "accelerate": {"_base", "embeddings"},
}


def room_of(path: Path) -> str:
    part = path.relative_to(ROOT).parts[0]
    return part.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Absolute names a module imports anywhere, inside functions and for typing too; strings are not imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; the package imports by absolute name"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


MODULES = sorted(path for path in ROOT.rglob("*.py") if path.name != "__init__.py" or path.parent != ROOT)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    assert room in ALLOWED, f"{room} is a new room: give it a place in the order"
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "sparsecbm" and len(parts) > 1 and parts[1] != "__version__":
            assert parts[1] == room or parts[1] in ALLOWED[room], f"{path.relative_to(ROOT)} may not import {name}"
        elif parts[0] in LIBRARY_ROOMS:
            assert room in LIBRARY_ROOMS[parts[0]], f"{path.relative_to(ROOT)} may not import {parts[0]}"


def test_a_room_imports_only_rooms_below_it() -> None:
    order = list(ALLOWED)
    for room, allowed in ALLOWED.items():
        above = [other for other in allowed if order.index(other) >= order.index(room)]
        assert not above, f"{room} may import {above}, which stand above it"


def module_of(path: Path) -> str:
    return ".".join(("sparsecbm", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


def circles(arrows: dict[str, set[str]]) -> list[set[str]]:
    """Groups of files that reach each other (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in arrows[node]:
            if other not in index:
                visit(other)
            if other in stack:
                low[node] = min(low[node], low[other])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(group)

    for node in arrows:
        if node not in index:
            visit(node)
    return found


def test_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_files_import_each_other() -> None:
    """Inside a room too, and whether the import waits in a function or is for typing only."""
    modules = {module_of(path): path for path in MODULES}
    arrows: dict[str, set[str]] = {}
    for module, path in modules.items():
        named = imports(path)
        # `from package import name` is the file of that name where there is one, else the package's own.
        arrows[module] = {name if name in modules else name.rpartition(".")[0] for name in named} & set(modules)
        arrows[module].discard(module)
    assert [sorted(group) for group in circles(arrows)] == []


def test_import_loads_nothing_heavy() -> None:
    heavy = ["torch", "open_clip", "transformers", "datasets", "sklearn", "accelerate", "matplotlib"]
    code = f"import sys, sparsecbm; print([m for m in {heavy!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_no_pickle_and_no_trusted_code() -> None:
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle"):
                assert isinstance(node.value, ast.Constant)
                assert node.value.value is False, f"{path}: {node.arg}"
        assert not imports(path) & {"pickle", "joblib", "dill", "cloudpickle"}, path
        assert "yaml.load(" not in text, path
