"""``sparsecbm edit``: suppress concepts in a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsecbm._base.errors import printable
from sparsecbm.cli.base import AsJson, Debug, Device, EncoderSpec, Model, _command, _print_json, app


@app.command()
@_command()
def edit(
    model: Model,
    suppress: Annotated[
        list[str] | None, typer.Option("--suppress", metavar="CONCEPT", help="Take this concept out; may be repeated.")
    ] = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", metavar="CLASS", help="Only for this class; may be repeated.")
    ] = None,
    undo: Annotated[int, typer.Option(min=0, help="Edits to take back first.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FOLDER", help="Folder for the edited model.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="Image spec to measure on; by default that of training.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    max_images: Annotated[int | None, typer.Option(min=1, help="At most so many pictures.")] = None,
    embeddings: Annotated[Path | None, typer.Option(metavar="FILE", help="Vectors made elsewhere.")] = None,
    measure: Annotated[bool, typer.Option("--measure/--no-measure", help="Measure before and after, or not.")] = True,
    encoder: EncoderSpec = None,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Suppress concepts in a model (a spurious cue), measure what it does, and keep the edit with the model.

    Without options it lists the edits the model carries. Every edit can be undone.

    Example:  [bold]sparsecbm edit sparsecbm-demo --suppress lake --suppress snow --output edited[/bold]
    """
    from sparsecbm import runs

    result = runs.edit_run(
        model,
        suppress=suppress or (),
        classes=class_ or (),
        undo=undo,
        output=output,
        images=images,
        split=split,
        max_images=max_images,
        embeddings=embeddings,
        measure=measure,
        encoder=encoder,
        device=device,
    )
    if as_json:
        _print_json(result.to_json())
        return
    if result.undone:
        print(f"{result.undone} edit{'s' if result.undone > 1 else ''} taken back")
    print(printable("\n".join([*result.lines, *result.notes, f"model: {result.model}"]), keep="\n"))
