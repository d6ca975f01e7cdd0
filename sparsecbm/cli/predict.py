"""``sparsecbm predict``, ``explain`` and ``report``: a model at work."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from rich.markup import escape

from sparsecbm.cli.base import (
    Device,
    EncoderSpec,
    ImageSpec,
    MaxImages,
    Model,
    OnError,
    Pictures,
    Split,
    Vectors,
    command,
)
from sparsecbm.cli.terminal import head, make_console, make_table, print_ledger, print_skipped, tail

if TYPE_CHECKING:
    from rich.console import Console

    from sparsecbm.runs import ExplainResult, PredictResult, ReportResult, TableResult


@command()
def predict(
    model: Model,
    images: Pictures,
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each picture.")] = 3,
    min_probability: Annotated[
        float, typer.Option(min=0, max=1, help="Withhold a class that is less probable than this.")
    ] = 0.0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write a table: .csv or .parquet. Resumes when stopped."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a table that is there.")] = False,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
) -> Any:
    """Say what is in pictures; a class that no active concept speaks for is "no evidence".

    Example:  [bold]sparsecbm predict sparsecbm-demo photos/ -o species.csv[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    if output is not None:
        return runs.predict_table(**options)
    del options["output"], options["force"]
    return runs.predict_run(**options)


@command()
def explain(
    model: Model,
    images: Pictures,
    target: Annotated[str | None, typer.Option("--class", help="Explain this class, not the predicted one.")] = None,
    against: Annotated[str | None, typer.Option(help="Explain the score difference to this class.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Concepts named for each picture.")] = 10,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw each ledger into this folder.")] = None,
    maps: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also draw into this folder where each concept is seen.")
    ] = None,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
) -> Any:
    """Show why pictures got their class: bias plus one signed contribution a concept, adding up to the score.

    Example:  [bold]sparsecbm explain sparsecbm-demo bird.png --against "Farrow jay"[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    return runs.explain_run(**options)


@command()
def report(
    model: Model,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")] = None,
    examples: Annotated[int, typer.Option(min=0, max=200, help="Pictures explained.")] = 12,
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Compare with the training pictures, to find cues.")
    ] = True,
    images: ImageSpec = None,
    split: Split = "test",
    max_images: MaxImages = None,
    embeddings: Vectors = None,
    encoder: EncoderSpec = None,
    device: Device = "auto",
) -> Any:
    """Write one self-contained HTML page about a model: metrics, explained pictures, cues, classes, concepts.

    Example:  [bold]sparsecbm report sparsecbm-demo --examples 40[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    return runs.report_run(**options)


def show_predict(result: PredictResult | TableResult, output: Path | None) -> None:
    """Print the classes of each picture, or what was written."""
    console = make_console()
    if output is not None:
        _show_table(console, cast("TableResult", result))
    else:
        _show_predictions(console, cast("PredictResult", result))
    print_skipped(console, result.skipped[:20])
    if len(result.skipped) > 20:
        console.print(f"[yellow]skipped[/yellow] {len(result.skipped) - 20:,} more")


def _show_table(console: Console, result: TableResult) -> None:
    counts = [*result.classes.items()]
    more = f", and {len(counts) - 5} more" if len(counts) > 5 else ""
    console.print(f"{escape(str(result.path))}: {result.n_images:,} pictures")
    if counts:
        console.print(escape("  " + ", ".join(f"{name} {count:,}" for name, count in counts[:5]) + more))
    for note, count in result.notes.items():
        console.print(f"  [yellow]{note}[/yellow] {count:,}")


def _show_predictions(console: Console, result: PredictResult) -> None:
    # What must be read whole gets its room first; the runners-up take what is left of the line.
    found = [made.note or head(", ".join(made.said), 48) for made in result.predictions]
    labels = max(map(len, ["class", *found]))
    room = max(16, console.width - labels - 50)
    table = make_table("picture", "class", ">prob.", ">active", "then")
    for column in table.columns:
        column.no_wrap = True
    table.columns[-1].style = "dim"
    names = [tail(made.source, room) for made in result.predictions]
    left = console.width - labels - max(map(len, ["picture", *names])) - 22
    for name, label, made in zip(names, found, result.predictions):
        rest = ", ".join(f"{other} {p:.1%}" for other, p in made.classes[0 if made.note else len(made.said) :])
        rest = rest if len(rest) <= left else rest[: max(0, left - 1)] + "…"
        first = f"[yellow]{made.note}[/yellow]" if made.note else f"[bold]{escape(label)}[/bold]"
        table.add_row(escape(name), first, f"{made.probability:.1%}", str(made.n_active), escape(rest))
    console.print(table)


def show_explain(result: ExplainResult) -> None:
    """Print the ledger of each picture."""
    console = make_console()
    for number, ledger in enumerate(result.shown):
        if number:
            console.print()
        print_ledger(console, ledger, result.top)
    for path in result.drawn:
        console.print(f"[dim]drawn: {escape(str(path))}[/dim]")
    print_skipped(console, result.skipped)


def show_report(result: ReportResult) -> None:
    """Print where the page lies."""
    make_console().print(f"{escape(str(result.path))}: {result.n_images:,} pictures, {result.bytes / 1e6:.2f} MB")
