"""Commands that look into a model and change it: ``app`` and ``edit``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sparsecbm._errors import printable
from sparsecbm.cli.commands import AsJson, Debug, Device, EncoderSpec, Model, _command, _print_json
from sparsecbm.cli.commands import app as root


@root.command("app")
@_command("the page is closed")
def app_command(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this computer alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    encoder: EncoderSpec = None,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Open an interactive page: drop a picture, read its ledger, move concepts, see the prediction change.

    Needs gradio: [bold]pip install "sparsecbm\\[app]"[/bold]. Nothing leaves the machine.

    Example:  [bold]sparsecbm app sparsecbm-demo[/bold]
    """
    from sparsecbm import runs

    def announce(url: str, warning: str) -> None:
        text = json.dumps({"url": url}) if as_json else f"{url}  (stop with Ctrl+C{warning})"
        print(text, flush=True)

    runs.app_run(model, host=host, port=port, encoder=encoder, device=device, announce=announce)


@root.command()
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
