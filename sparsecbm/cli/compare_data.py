"""``sparsecbm compare-data``: have the concepts moved since training?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsecbm.cli.base import Device, EncoderSpec, Model, OnError, Split, Vectors, command
from sparsecbm.cli.terminal import make_console, make_table, print_skipped

if TYPE_CHECKING:
    from sparsecbm.runs import CompareDataResult


@command(name="compare-data")
def compare_data(
    model: Model,
    images: Annotated[
        str | None, typer.Option("--images", metavar="NEW", help="Folder or file of pictures, or an image spec.")
    ] = None,
    split: Split = "test",
    embeddings: Vectors = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also draw the largest effects (.png, .svg, .pdf).")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Concepts shown.")] = 15,
    encoder: EncoderSpec = None,
    on_error: OnError = "raise",
    device: Device = "auto",
) -> Any:
    """Compare new pictures, with or without labels, with those of training: which concepts are seen more, or less?

    Example:  [bold]sparsecbm compare-data sparsecbm-demo --images photos/[/bold]
    """
    options = dict(locals())
    del options["top"]
    from sparsecbm import runs

    return runs.compare_data_run(**options)


def show_compare_data(result: CompareDataResult, top: int) -> None:
    """Print what moved, the largest effects first."""
    console = make_console()
    drifted = {row.concept for row in result.drifted}
    console.print(
        f"[bold]{len(drifted)} of {len(result.concepts):,} concepts moved[/bold] (effect of at least 0.2, and beyond "
        f"chance among so many); {result.n_now:,} pictures now, {result.n_before:,} then; "
        f"{result.active_now:.1f} concepts active in a picture now, {result.active_before:.1f} then"
    )
    table = make_table("concept", ">active then", ">now", ">h", ">score, sd", ">p (all)", "")
    for row in result.concepts[:top]:
        moved = "[yellow]moved[/yellow]" if row.concept in drifted else ""
        numbers = (f"{row.share_before:.1%}", f"{row.share_now:.1%}", f"{row.usage:+.2f}", f"{row.score:+.2f}")
        table.add_row(escape(row.concept), *numbers, f"{row.p:.2g}", moved)
    console.print(table)
    console.print("[dim]another mix of classes moves concepts, too, and need not hurt[/dim]")
    if result.plot is not None:
        console.print(f"drawn: {escape(str(result.plot))}")
    print_skipped(console, result.skipped)
