"""What the commands show: tables and ledgers for people; machines take ``--json``."""

from __future__ import annotations

import json
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

from sparsecbm._errors import printable

if TYPE_CHECKING:
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.explain import Ledger
    from sparsecbm.runs import (
        BuildResult,
        CheckResult,
        EmbedResult,
        ExplainResult,
        FilterResult,
        InfoResult,
        PredictResult,
        ReportResult,
        SearchResult,
        TrainResult,
    )

_PIPED_WIDTH = 240


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


def metric_rows(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (name, value, note) of the headline metrics, leaving out what was not measured."""
    from sparsecbm.runs import headline

    return [(figure.label, figure.value, figure.note) for figure in headline(metrics)]


def show_training(result: TrainResult) -> None:
    """Print the metrics of a run and where its files lie."""
    console = make_console()
    metrics = result.metrics["test"]
    if metrics is not None:
        show_metrics(console, metric_rows(metrics), title=f"{escape(result.metrics['config'])}: test pictures")
        for line in metrics.get("warnings") or []:
            console.print(f"[yellow]note[/yellow] {escape(line)}")
    seconds = result.metrics["seconds"]
    console.print(f"[dim]{', '.join(f'{name} {value:.1f} s' for name, value in seconds.items())}[/dim]")
    console.print()
    for what, path in (
        ("model", result.model),
        ("metrics", result.output / "metrics.json"),
        ("configuration", result.output / "config.yaml"),
        ("report", result.report),
    ):
        console.print(f"  {what:<14} {escape(str(path))}")


def show_demo(result: TrainResult) -> None:
    """Print a finished training, one explained picture, and what to try next."""
    show_training(result)
    console = make_console()
    if result.example is not None:
        console.print("\n[bold]One picture, explained[/bold]")
        _ledger(console, result.example, k=8)
    folder = escape(str(result.output))
    console.print(f"\nOpen {escape(str(result.report))} in a browser, or try:")
    console.print(f"  sparsecbm evaluate {folder}")
    console.print(f"  sparsecbm explain {folder} YOUR_PICTURE.png")
    console.print("  sparsecbm train birds_gumbel --set model.max_active_concepts=4")


def show_embedding(result: EmbedResult) -> None:
    """Print what was embedded."""
    console = make_console()
    table = Table(title=f"{escape(result.encoder)}, {result.dim} dimensions", title_justify="left")
    for column, justify in (("split", "left"), ("pictures", "right"), ("skipped", "right"), ("seconds", "right")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for split, row in result.splits.items():
        table.add_row(split, f"{row['images']:,}", f"{row['skipped']:,}", f"{row['seconds']:.2f}")
    console.print(table)
    console.print(f"{result.concepts:,} concepts embedded; {result.seconds:.1f} s in all")


def show_predictions(result: PredictResult) -> None:
    """Print the classes of each picture."""
    console = make_console()
    # What must be read whole gets its room first; the runners-up take what is left of the line.
    labels = max(len("class"), *(len(made.label) for made in result.predictions))
    room = max(16, console.width - labels - 50)
    table = Table(box=None, pad_edge=False)
    for column, justify in (("picture", "left"), ("class", "left"), ("prob.", "right"), ("active", "right")):
        table.add_column(column, no_wrap=True, justify=justify)  # type: ignore[arg-type]
    table.add_column("then", no_wrap=True, style="dim")
    names = [_tail(made.source, room) for made in result.predictions]
    left = console.width - labels - max(map(len, ["picture", *names])) - 22
    for name, made in zip(names, result.predictions):
        rest = ", ".join(f"{label} {p:.1%}" for label, p in made.classes[1:])
        rest = rest if len(rest) <= left else rest[: max(0, left - 1)] + "…"
        first = f"[bold]{escape(made.label)}[/bold]"
        table.add_row(escape(name), first, f"{made.probability:.1%}", str(made.n_active), escape(rest))
    console.print(table)
    _skipped(console, result.skipped)


def show_ledgers(result: ExplainResult, k: int = 10, drawn: Sequence[Path] = ()) -> None:
    """Print the ledger of each picture."""
    console = make_console()
    for number, ledger in enumerate(result.shown):
        if number:
            console.print()
        _ledger(console, ledger, k)
    for path in drawn:
        console.print(f"[dim]drawn: {escape(str(path))}[/dim]")
    _skipped(console, result.skipped)


def show_report(result: ReportResult) -> None:
    """Print where the page lies."""
    make_console().print(f"{escape(str(result.path))}: {result.n_images:,} pictures, {result.bytes / 1e6:.2f} MB")


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


def show_concepts(concepts: ConceptSet, limit: int) -> None:
    """Print concept names, by group where there are groups."""
    console = make_console()
    groups = concepts.groups or (None,) * len(concepts.names)
    for name, group in list(zip(concepts.names, groups))[:limit]:
        console.print(escape(name) if group is None else f"[dim]{escape(str(group))}[/dim]  {escape(name)}")
    if len(concepts.names) > limit:
        console.print(f"[dim]and {len(concepts.names) - limit:,} more[/dim]")
    if concepts.provenance:
        console.print("\n[bold]Where they come from[/bold]")
        for key, value in concepts.provenance.items():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            console.print(f"  [dim]{escape(str(key))}[/dim]  {escape(_head(' '.join(shown.split()), 160))}")


def show_check(result: CheckResult) -> None:
    """Print what is odd about a concept file."""
    console = make_console()
    console.print(f"[bold]{escape(result.path)}[/bold]: {len(result.concepts):,} concepts")
    for group, count in result.groups.items():
        console.print(f"  [dim]{escape(group)}[/dim] {count:,}")
    for line in result.changes:
        console.print(f"  {escape(line)}")
    for name in result.long:
        console.print(f"  long ({len(name)} characters): {escape(name)}")
    for problem in result.problems:
        console.print(f"  {problem.kind}: {escape(problem.detail)}")
    words = {"class": "near a class", "mutual": "redundant", "activation": "never active"}
    for drop in result.seen.dropped if result.seen is not None else ():
        console.print(f"  {words.get(drop.filter, drop.filter)}: {escape(repr(drop.name))}, {escape(drop.reason)}")
    for line in result.seen.not_run if result.seen is not None else ():
        console.print(f"  [dim]{escape(line)}[/dim]")
    if not result.odd:
        console.print("  nothing odd")


def show_search(result: SearchResult, k: int = 6) -> None:
    """Print the comparison, two explained pictures, and where the page lies."""
    console = make_console()
    found = result.metrics
    console.print(
        f"[bold]{escape(found['config'])}[/bold]: {found['pictures']:,} pictures, {found['classes']:,} classes, "
        f"{found['concepts']:,} concepts"
    )
    table = Table(box=None, pad_edge=False)
    for column, justify in (("method", "left"), ("accuracy", "right"), ("seconds", "right"), ("uses", "left")):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in result.methods:
        shown = "–" if row.accuracy is None else f"{row.accuracy:.1%}"
        style = "bold" if row.main else None
        table.add_row(escape(row.name), shown, f"{row.seconds:.3f}", f"[dim]{escape(row.note)}[/dim]", style=style)
    console.print(table)
    right = [ledger for ledger in result.examples if ledger.truth == ledger.target]
    wrong = [ledger for ledger in result.examples if ledger.truth != ledger.target]
    for ledger in [*right[:1], *wrong[:1]]:
        console.print()
        _ledger(console, ledger, k)
    console.print(f"\npage: {escape(str(result.page))}")


def show_build(result: BuildResult) -> None:
    """Print what a build found and kept."""
    console = make_console()
    of = f" for {len(result.classes):,} classes" if result.classes else ""
    console.print(f"[bold]{len(result.concepts):,} concepts[/bold]{of}, of {result.found:,} found")
    for drop in result.report.dropped[:20] if result.report is not None else ():
        console.print(f"  dropped {escape(repr(drop.name))}: {escape(drop.reason)}")
    if result.report is not None and len(result.report.dropped) > 20:
        console.print(f"  [dim]and {len(result.report.dropped) - 20:,} more[/dim]")
    for line in result.report.not_run if result.report is not None else ():
        console.print(f"  [dim]{escape(line)}[/dim]")
    console.print(f"  [dim]such as[/dim] {escape(', '.join(result.concepts.names[:8]))}")
    console.print(f"written: {escape(str(result.output))}")


def show_filter(result: FilterResult) -> None:
    """Print what the filters kept and dropped."""
    console = make_console()
    summary, *rest = result.report.lines
    console.print(f"[bold]{escape(summary)}[/bold]")
    for line in rest:
        console.print(f"  {escape(line)}")
    if len(result.concepts) < len(result.report.kept):
        console.print(f"selected {len(result.concepts)} of these, which cover the classes best")
        console.print(f"  {escape(', '.join(result.concepts.names))}")
    if result.output is not None:
        console.print(f"written: {escape(str(result.output))}")


def show_metrics(console: Console, rows: Sequence[tuple[str, str, str]], title: str) -> None:
    """Print (name, value, note) rows."""
    table = Table(title=f"[bold]{title}[/bold]", title_justify="left", box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(justify="right", style="bold")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)


def _ledger(console: Console, ledger: Ledger, k: int) -> None:
    width = min(console.width, 100)
    head, *lines = ledger.to_text(k=k, width=width).split("\n")
    console.print(Text(head, style="bold"))
    for line in lines:
        text = Text(line)
        text.highlight_regex(r"[█▏▎▍▌▋▊▉]+$", "red" if " -" in line else "green")
        console.print(text)


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _tail(text: str, limit: int) -> str:
    """Keep the end, which tells file names apart."""
    return text if len(text) <= limit else "…" + text[1 - limit :]


def _skipped(console: Console, skipped: Sequence[tuple[str, str]]) -> None:
    for name, reason in skipped:
        console.print(f"[yellow]skipped[/yellow] {escape(name)}: {escape(reason)}")
