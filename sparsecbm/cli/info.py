"""``sparsecbm info``: what is installed, and what can be chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import AsJson, Debug, _command, _say, app
from sparsecbm.cli.cache import print_cache
from sparsecbm.cli.terminal import make_console

if TYPE_CHECKING:
    from sparsecbm.runs import InfoResult


@app.command()
@_command()
def info(
    cache: Annotated[bool, typer.Option("--cache", help="List the stored embeddings instead.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show versions, devices, the cache folder, and what can be chosen by name.

    Example:  [bold]sparsecbm info --json[/bold]
    """
    from sparsecbm import runs

    if cache:
        print_cache(runs.cache_run(), as_json)
        return
    result = runs.info_run()
    _say(result, as_json, show_info)


def show_info(result: InfoResult) -> None:
    """Print versions, devices and choices."""
    console = make_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, version in result.versions.items():
        table.add_row(name, version)
    table.add_row("devices", ", ".join(result.devices))
    table.add_row("cache", f"{escape(result.cache)} ({result.cache_bytes / 1e6:.1f} MB)")
    table.add_row("configs", ", ".join(result.configs))
    for name, choices in result.choices.items():
        table.add_row(name, escape(", ".join(choices)))
    console.print(table)
