"""Every line of the table of parts leads to a part, and parts from outside join and are refused by the same rules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sparsecbm._base import parts
from sparsecbm._base.errors import InputError
from sparsecbm._base.registry import Registry

TABLES = {name: table for name, table in vars(parts).items() if isinstance(table, Registry)}


@pytest.mark.parametrize(("table", "name"), [(table, name) for table in TABLES for name in TABLES[table]])
def test_every_line_leads_to_a_part(table: str, name: str) -> None:
    assert callable(TABLES[table].find(name))
    assert TABLES[table][name] is TABLES[table].find(name)


def test_a_part_from_outside_joins() -> None:
    table: Registry[object] = Registry("toy", "data", {"birds": "birds:BirdImages"})
    part = object()
    assert table.register("mine", part) is part
    assert table.register("mine", part) is part  # a module that is imported twice
    assert list(table) == ["birds", "mine"]
    assert "mine" in table
    assert table["mine"] is part
    assert len(table) == 2
    with pytest.raises(InputError, match="'mine' is registered already"):
        table.register("mine", object())
    with pytest.raises(InputError, match="'birds' is registered already"):
        table.register("birds", part)


def test_an_unknown_name_is_said_with_the_nearest() -> None:
    with pytest.raises(InputError, match=r"unknown loss 'gumble'.*did you mean 'gumbel'\?"):
        parts.LOSSES.find("gumble")
    with pytest.raises(KeyError):
        parts.LOSSES["gumble"]


def test_tables_are_read_without_torch() -> None:
    code = "import sys; from sparsecbm._base.parts import LOSSES; LOSSES.check('l1'); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


@pytest.mark.parametrize("content", ["", "raise ImportError('no such thing')"])
def test_modules_named_by_the_user_are_imported_once_asked_for(tmp_path: Path, content: str) -> None:
    register = "from sparsecbm._base.parts import LOSSES\nLOSSES.register('mine', len)\n"
    (tmp_path / "plugin_for_test.py").write_text(content + "\n" + register)
    code = "from sparsecbm._base.parts import LOSSES; print(LOSSES.find('mine') is len)"
    environment = {
        "PYTHONPATH": f"{tmp_path}:{Path(parts.__file__).parents[2]}",
        "SPARSECBM_PLUGINS": "plugin_for_test",
    }
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    if content:
        assert "SPARSECBM_PLUGINS names 'plugin_for_test', which cannot be imported" in result.stderr
    else:
        assert result.stdout.strip() == "True", result.stderr
