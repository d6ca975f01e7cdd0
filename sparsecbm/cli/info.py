"""``sparsecbm info``: what is installed, and what can be chosen by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sparsecbm._base.errors import InputError
from sparsecbm.cli.base import command
from sparsecbm.cli.cache import show_cache_show
from sparsecbm.cli.terminal import make_console

if TYPE_CHECKING:
    from sparsecbm.runs import CacheResult, GlossaryResult, InfoResult, KeysResult


@command()
def info(
    key: Annotated[
        str, typer.Argument(metavar="[KEY]", help="With --config: a key, such as model.loss, or a section.")
    ] = "",
    config: Annotated[
        bool, typer.Option("--config", help="Say what the keys of a configuration mean instead.")
    ] = False,
    kind: Annotated[str, typer.Option(metavar="train|search|vae", help="With --config: for which command.")] = "train",
    cache: Annotated[bool, typer.Option("--cache", help="List the stored embeddings instead.")] = False,
    glossary: Annotated[bool, typer.Option("--glossary", help="Say what the words mean instead.")] = False,
) -> Any:
    """Show versions, devices, the cache folder, and what can be chosen by name.

    Example:  [bold]sparsecbm info --json[/bold]

    What a key of a configuration means:  [bold]sparsecbm info --config model.loss[/bold]
    """
    from sparsecbm import runs

    if key and not config:
        raise InputError(
            f"{key!r}: expected --config {key}, for a key; `sparsecbm concepts show` is for a file of concepts"
        )
    if config:
        return runs.keys_run(key, kind)

    return runs.cache_run() if cache else runs.glossary_run() if glossary else runs.info_run()


def show_info(result: InfoResult | CacheResult | GlossaryResult | KeysResult) -> None:
    """Print versions, devices and choices, the stored embeddings, or keys."""
    from sparsecbm.runs import CacheResult, GlossaryResult, KeysResult

    if isinstance(result, KeysResult):
        console = make_console()
        for row in result.rows:
            console.print(
                f"[bold]{escape(row['key'])}[/bold]  [dim]{escape(row['type'])}; {escape(row['default'])}[/dim]"
            )
            if row["meaning"]:
                console.print(f"    {escape(row['meaning'])}")
        return

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
