"""``sparsecbm cache``: show and prune the stored embeddings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import add_group, command
from sparsecbm.cli.terminal import make_console, make_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparsecbm.runs import CacheResult, PruneResult

cache_app = add_group("cache", "Look at and prune the stored embeddings.")


@command(name="show", group=cache_app)
def cache_show() -> Any:
    """Show what is stored: encoder, source, rows, size, age, last use.

    Example:  [bold]sparsecbm cache show --json[/bold]
    """
    from sparsecbm import runs

    return runs.cache_run()


@command("what was removed so far is gone; the rest is whole", name="prune", group=cache_app)
def cache_prune(
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Remove what was not used for so long, such as 30d, 12h, 2w.")
    ] = None,
    max_size: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Then remove the least recently used down to so much, such as 5GB; 0: all."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> Any:
    """Remove stored embeddings by age and size; what a process is writing stays.

    Example:  [bold]sparsecbm cache prune --older-than 30d --max-size 5GB --dry-run[/bold]
    """
    from sparsecbm import runs

    return runs.prune_run(older_than, max_size, dry_run=dry_run)


def show_cache_show(result: CacheResult) -> None:
    """Print the list of entries."""
    console = make_console()
    console.print(f"[dim]{escape(result.folder)}[/dim]")
    if result.entries:
        console.print(_table(result.entries))
    console.print(f"{len(result.entries)} entries, {_size(result.bytes)}")


def show_cache_prune(result: PruneResult) -> None:
    """Print what was removed."""
    report, console = result.report, make_console()
    console.print(f"[dim]{escape(result.folder)}[/dim]")
    if report.removed:
        console.print(_table(report.removed))
    done = "would be removed" if report.dry_run else "removed"
    kept = sum(entry.bytes for entry in report.kept)
    console.print(
        f"{len(report.removed)} entries {done}, {_size(report.freed_bytes)}; {len(report.kept)} kept, {_size(kept)}"
    )
    for entry in report.busy:
        console.print(f"[yellow]kept[/yellow] {entry.key[:12]}: a process is writing it")


def _table(entries: Sequence) -> Table:
    table = make_table("entry", "of", "encoder", ">rows", ">dim", ">size", ">age", ">last used")
    for column in table.columns:
        column.no_wrap = column.header != "of"
    now = time.time()
    for entry in entries:
        what = " ".join(word for word in (entry.kind, entry.source) if word) or entry.state
        cells = [
            entry.key[:12],
            what,
            entry.encoder or "",
            "" if entry.rows is None else f"{entry.rows:,}",
            "" if entry.dim is None else str(entry.dim),
            _size(entry.bytes),
            _age(now - entry.made),
            _age(now - entry.used),
        ]
        table.add_row(*map(escape, cells))
    return table


def _size(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
