"""``sparsecbm init``: a configuration to begin with, from a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm.cli.base import Force, command
from sparsecbm.cli.terminal import make_console, make_table, print_notes

if TYPE_CHECKING:
    from sparsecbm.runs import InitResult


@command()
def init(
    images: Annotated[str, typer.Argument(metavar="PICTURES", help="Folder with a folder a class, or an image spec.")],
    concepts: Annotated[Path, typer.Option(metavar="FILE", help="File of your words, written or yet to write.")] = Path(
        "words.txt"
    ),
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="YAML file to write.")] = None,
    force: Force = False,
) -> Any:
    """Look through a folder of pictures and write a configuration for it, every line explained.

    Example:  [bold]sparsecbm init photographs --concepts words.txt -o museum.yaml[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    return runs.init_run(**options)


def show_init(result: InitResult) -> None:
    """Print the classes, the encoders to choose from, and what comes next."""
    console = make_console()
    total = sum(result.classes.values())
    table = make_table("class", ">pictures", title=f"{total:,} pictures of {len(result.classes):,} classes")
    for name, count in list(result.classes.items())[:30]:
        table.add_row(escape(name), f"{count:,}")
    console.print(table)
    if len(result.classes) > 30:
        console.print(f"[dim]and {len(result.classes) - 30:,} more classes[/dim]")
    table = make_table("", "encoder", ">download", ">memory", ">dimensions", title=escape(result.machine))
    for made in result.encoders:
        mark = "*" if made.spec == result.encoder else ""
        table.add_row(mark, escape(made.spec), f"{made.download:.1f} GB", f"{made.memory:.1f} GB", str(made.dim))
    console.print(table)
    print_notes(console, result.notes)
    console.print(f"written: {escape(str(result.path))}; * is what it takes. Look it through, then:")
    console.print(f"  sparsecbm train {escape(str(result.path))}")
