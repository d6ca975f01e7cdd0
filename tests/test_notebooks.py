"""Every notebook runs from top to bottom within a minute, and keeps its outputs."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))
HUB = "hub"
"""Tag of cells that need the network: they skip themselves, saying how to run them."""


def code_cells(name: str) -> list:
    return [cell for cell in nbformat.read(FOLDER / name, as_version=4).cells if cell.cell_type == "code"]


def source(cell) -> str:
    """The cell as Python: line magics, which set up the display, are left out."""
    return "\n".join("" if line.startswith("%") else line for line in cell.source.splitlines())


def run_cell(cell, names: dict[str, object], number: int) -> None:
    """Run a cell as IPython does, and show the value of its last expression as a notebook would."""
    from IPython.core.formatters import DisplayFormatter

    where = f"<cell {number}>"
    tree = ast.parse(source(cell), where)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, where, "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), where, "eval"), names)
        if value is not None:
            assert DisplayFormatter().format(value)[0]["text/plain"]


# In the tests' own process: a kernel a notebook would spend more time on imports than the notebook takes.
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import matplotlib.pyplot as plt
    from IPython.display import display

    monkeypatch.chdir(tmp_path)  # a notebook needs no other file of the repository
    monkeypatch.delenv("SPARSECBM_HUB", raising=False)
    names: dict[str, object] = {"__name__": "__main__", "display": display}
    with plt.rc_context():
        try:
            for number, cell in enumerate(code_cells(name)):
                run_cell(cell, names, number)
        finally:
            plt.close("all")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_keeps_its_outputs(name: str) -> None:
    cells = code_cells(name)
    run = [cell for cell in cells if HUB not in cell.metadata.get("tags", [])]
    assert sum(bool(cell.outputs) for cell in run) >= len(run) / 2
    for cell in cells:
        compile(source(cell), name, "exec")
        for output in cell.outputs:
            assert output.output_type != "error"
    assert all(not cell.outputs for cell in cells if HUB in cell.metadata.get("tags", []))
