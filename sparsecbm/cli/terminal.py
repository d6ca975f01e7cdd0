"""What the commands show: tables and ledgers for people; machines take ``--json``."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from sparsecbm._base.errors import printable

if TYPE_CHECKING:
    from sparsecbm.explain import Ledger

_PIPED_WIDTH = 240
WORDS = "[dim]what the words mean: sparsecbm info --glossary[/dim]"


class _Console(Console):
    """A console on which no name from a file, a class or a concept can move the cursor or set the title."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text = segment.text
            safe = text if segment.control or text.isprintable() else printable(text, keep="\n\t")
            yield segment if safe == text else Segment(safe, segment.style)


def make_console() -> Console:
    """Return a console on what stdout is now."""
    # Made when used, so that it writes to whatever stdout is then. A pipe has no width: nothing is cut for it.
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return _Console(highlight=False, soft_wrap=True, width=_PIPED_WIDTH if piped else None)


def make_table(*columns: str, **options: Any) -> Table:
    """Return an empty table; a column whose name begins with ``>`` is set right."""
    table = Table(title_justify="left", box=None, pad_edge=False, **options)
    for column in columns:
        table.add_column(column.removeprefix(">"), justify="right" if column.startswith(">") else "left")
    return table


def print_seconds(console: Console, seconds: Mapping[str, float]) -> None:
    """Print what took how long."""
    console.print(f"[dim]{', '.join(f'{name} {value:.1f} s' for name, value in seconds.items())}[/dim]\n")


def print_files(console: Console, files: Mapping[str, Path]) -> None:
    """Print where files lie, and what they are."""
    for what, path in files.items():
        console.print(f"  {what:<14} {escape(str(path))}")


def print_notes(console: Console, notes: Iterable[str], kind: str = "note") -> None:
    """Print what a reader should know."""
    for line in notes:
        console.print(f"[yellow]{kind}[/yellow] {escape(line)}", soft_wrap=False)


def metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, note) of the headline metrics, leaving out what was not measured."""
    from sparsecbm.runs import headline

    return [(figure.label, figure.value, figure.note) for figure in headline(metrics)]


def show_metrics(console: Console, rows: Sequence[tuple[str, str, str]], title: str) -> None:
    """Print (name, value, note) rows."""
    table = Table(title=f"[bold]{title}[/bold]", title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def print_ledger(console: Console, ledger: Ledger, k: int) -> None:
    width = min(console.width, 100)
    head, *lines = ledger.to_text(k=k, width=width).split("\n")
    console.print(Text(head, style="bold"))
    for line in lines:
        text = Text(line)
        text.highlight_regex(r"[█▏▎▍▌▋▊▉]+$", "red" if " -" in line else "green")
        console.print(text)


def head(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def tail(text: str, limit: int) -> str:
    """Keep the end, which tells file names apart."""
    return text if len(text) <= limit else "…" + text[1 - limit :]


def print_skipped(console: Console, skipped: Sequence[tuple[str, str]]) -> None:
    for name, reason in skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(name)}: {escape(reason)}")
