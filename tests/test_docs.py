"""Every example in README and in docstrings runs, and every command README names exists."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import sparsecbm

README = Path(__file__).parents[1] / "README.md"
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(sparsecbm.__path__, "sparsecbm.") if "__main__" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_readme_python_runs(tmp_path: Path) -> None:
    examples = blocks("python")
    assert examples
    for example in examples:
        environment = {**os.environ, "PYTHONPATH": str(README.parent)}
        subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True, env=environment)


def test_readme_commands_exist() -> None:
    from typer.main import get_command

    from sparsecbm.cli.base import app

    commands = set(get_command(app).commands)
    named = {
        match
        for block in blocks("bash")
        for match in re.findall(r"(?:^|&& |-m )sparsecbm ([a-z]+)", block, flags=re.MULTILINE)
    }
    assert "demo" in named
    assert named <= commands


def test_readme_names_files_that_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"(?:scripts|configs|notebooks|sparsecbm)/[\w./-]+\.\w+", text):
        assert (README.parent / path).exists(), path
    assert "pip install . && sparsecbm demo" in text
    assert 'pip install -e ".[test]" && pytest' in text
