"""``sparsecbm predict``, ``explain`` and ``report``: a model at work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from sparsecbm.cli.base import (
    AsJson,
    Debug,
    Device,
    EncoderSpec,
    Images,
    Model,
    OnError,
    _command,
    _print_json,
    _say,
    app,
)
from sparsecbm.cli.terminal import _ledger, _skipped, _tail, make_console

if TYPE_CHECKING:
    from sparsecbm.runs import (
        ExplainResult,
        PredictResult,
        ReportResult,
    )


@app.command()
@_command()
def predict(
    model: Model,
    images: Images,
    top: Annotated[int, typer.Option(min=1, help="Classes shown for each picture.")] = 3,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Say what is in pictures.

    Example:  [bold]sparsecbm predict sparsecbm-demo bird.png photos/[/bold]
    """
    from sparsecbm import runs

    result = runs.predict_run(model, images, top=top, encoder=encoder, on_error=on_error, device=device)
    _say(result, as_json, show_predictions)


@app.command()
@_command()
def explain(
    model: Model,
    images: Images,
    target: Annotated[str | None, typer.Option("--class", help="Explain this class, not the predicted one.")] = None,
    against: Annotated[str | None, typer.Option(help="Explain the score difference to this class.")] = None,
    top: Annotated[int, typer.Option(min=1, help="Concepts named for each picture.")] = 10,
    plot: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Also draw each ledger into this folder.")] = None,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Show why pictures got their class: bias plus one signed contribution a concept, adding up to the score.

    Example:  [bold]sparsecbm explain sparsecbm-demo bird.png --against "Farrow jay"[/bold]
    """
    from sparsecbm import runs

    result = runs.explain_run(
        model, images, target=target, against=against, encoder=encoder, on_error=on_error, device=device
    )
    drawn = runs.plot_ledgers(result, plot, k=top) if plot is not None else []
    if as_json:
        _print_json(result.to_json(k=top))
    else:
        show_ledgers(result, k=top, drawn=drawn)


@app.command()
@_command()
def report(
    model: Model,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="HTML file to write.")] = None,
    images: Annotated[str | None, typer.Option(help="Image spec; by default the one it was trained on.")] = None,
    split: Annotated[str, typer.Option(help="Split to report on.")] = "test",
    max_images: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    embeddings: Annotated[Path | None, typer.Option(metavar="FILE", help="Vectors made elsewhere.")] = None,
    examples: Annotated[int, typer.Option(min=0, max=200, help="Pictures explained.")] = 12,
    training: Annotated[
        bool, typer.Option("--training/--no-training", help="Compare with the training pictures, to find cues.")
    ] = True,
    encoder: EncoderSpec = None,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write one self-contained HTML page about a model: metrics, explained pictures, cues, classes, concepts.

    Example:  [bold]sparsecbm report sparsecbm-demo --examples 40[/bold]
    """
    from sparsecbm import runs

    result = runs.report_run(
        model,
        output=output,
        images=images,
        split=split,
        max_images=max_images,
        embeddings=embeddings,
        examples=examples,
        training=training,
        encoder=encoder,
        device=device,
    )
    _say(result, as_json, show_report)


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
