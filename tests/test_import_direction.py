"""Imports run one way, heavy libraries stay in their rooms, and the package imports fast."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sparsecbm

ROOT = Path(sparsecbm.__file__).parent

# What each room may import of the package. Rooms not named here may not be imported by anyone but `cli`.
BASE = {"_accelerator", "_checkpoint", "_errors", "_files", "_launch", "_progress", "_threads", "_untrusted"}
ALLOWED: dict[str, set[str]] = {
    "_accelerator": {"_errors"},
    "_checkpoint": {"_errors", "_files"},
    "_errors": set(),
    "_files": {"_errors", "_untrusted"},
    "_launch": set(),
    "_progress": {"_launch"},
    "_threads": set(),
    "_untrusted": {"_errors"},
    "samplers": set(),
    "encoders": BASE,
    "data": BASE,
    "concepts": BASE,
    "embeddings": BASE | {"encoders", "data", "concepts"},
    "heads": BASE,
    "bottleneck": BASE | {"samplers"},
    "vae": BASE | {"samplers"},
    "explain": BASE,
    "estimators": BASE | {"bottleneck", "heads", "explain"},
    "evaluation": BASE | {"heads"},
    "config": BASE,
    "runs": BASE
    | {
        "config",
        "vae",
        "encoders",
        "data",
        "concepts",
        "embeddings",
        "bottleneck",
        "heads",
        "estimators",
        "evaluation",
        "explain",
    },
}
ALLOWED["cli"] = set(ALLOWED) | {"cli"}
ALLOWED["__main__"] = {"cli"}

# Libraries that one room alone may import. accelerate: the embedding loop, and the one Accelerator of all training.
LIBRARY_ROOMS = {
    "open_clip": {"encoders"},
    "transformers": {"encoders"},
    "datasets": {"data"},
    "gradio": {"runs"},
    "accelerate": {"_accelerator", "embeddings"},
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


def test_the_order_has_no_cycle() -> None:
    order: list[str] = []
    left = {room: set(allowed) - {room} for room, allowed in ALLOWED.items()}
    while left:
        ready = sorted(room for room, needs in left.items() if not needs & set(left))
        assert ready, f"cycle among {sorted(left)}"
        order += ready
        for room in ready:
            del left[room]
    assert order.index("samplers") < order.index("bottleneck") < order.index("estimators") < order.index("cli")


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
