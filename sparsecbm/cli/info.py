"""``sparsecbm info``: what is installed, and what can be chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import command
from sparsecbm.cli.cache import show_cache_show
from sparsecbm.cli.terminal import make_console

if TYPE_CHECKING:
    from sparsecbm.runs import CacheResult, GlossaryResult, InfoResult


@command()
def info(
    cache: Annotated[bool, typer.Option("--cache", help="List the stored embeddings instead.")] = False,
    glossary: Annotated[bool, typer.Option("--glossary", help="Say what the words mean instead.")] = False,
) -> Any:
    """Show versions, devices, the cache folder, and what can be chosen by name.

    Example:  [bold]sparsecbm info --json[/bold]
    """
    from sparsecbm import runs

    return runs.cache_run() if cache else runs.glossary_run() if glossary else runs.info_run()


def show_info(result: InfoResult | CacheResult | GlossaryResult) -> None:
    """Print versions, devices and choices, or the stored embeddings."""
    from sparsecbm.runs import CacheResult, GlossaryResult

    if isinstance(result, CacheResult):
        show_cache_show(result)
        return
    console = make_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    if isinstance(result, GlossaryResult):
        for word, meaning in result.words.items():
            table.add_row(word, meaning)
        console.print(table)
        return
    for name, version in result.versions.items():
        table.add_row(name, version)
    table.add_row("devices", ", ".join(result.devices))
    table.add_row("cache", f"{escape(result.cache)} ({result.cache_bytes / 1e6:.1f} MB)")
    table.add_row("configs", ", ".join(result.configs))
    for name, choices in result.choices.items():
        table.add_row(name, escape(", ".join(choices)))
    console.print(table)
