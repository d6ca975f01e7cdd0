"""``sparsecbm edit``: suppress concepts in a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecbm._base.errors import printable
from sparsecbm.cli.base import Device, EncoderSpec, ImageSpec, MaxImages, Model, Output, Split, Vectors, command

if TYPE_CHECKING:
    from sparsecbm.runs import EditResult


@command()
def edit(
    model: Model,
    suppress: Annotated[
        list[str] | None, typer.Option("--suppress", metavar="CONCEPT", help="Take this concept out; may be repeated.")
    ] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="Only for this class; may be repeated.")
    ] = None,
    undo: Annotated[int, typer.Option(min=0, help="Edits to take back first.")] = 0,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure before and after, or not.")] = True,
    output: Output = None,
    images: ImageSpec = None,
    split: Split = "test",
    max_images: MaxImages = None,
    embeddings: Vectors = None,
    encoder: EncoderSpec = None,
    device: Device = "auto",
) -> Any:
    """Suppress concepts in a model (a spurious cue), measure what it does, and keep the edit with the model.

    Without options it lists the edits the model carries. Every edit can be undone.

    Example:  [bold]sparsecbm edit sparsecbm-demo --suppress lake --suppress snow --output edited[/bold]
    """
    options = dict(locals())
    from sparsecbm import runs

    options |= {"suppress": suppress or (), "classes": options.pop("class_") or ()}
    return runs.edit_run(**options)


def show_edit(result: EditResult) -> None:
    """Print the edits that stand."""
    if result.undone:
        print(f"{result.undone} edit{'s' if result.undone > 1 else ''} taken back")
    print(printable("\n".join([*result.lines, *result.notes, f"model: {result.model}"]), keep="\n"))
