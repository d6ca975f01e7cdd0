"""``sparsecbm export``: a model as one graph, and a page that runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sparsecbm.cli.base import EncoderSpec, Model, command

if TYPE_CHECKING:
    from sparsecbm.runs import ExportResult


@command()
def export(
    model: Model,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A file that ends in .onnx or .pt2.")
    ] = None,
    web: Annotated[
        Path | None, typer.Option("--web", metavar="FOLDER", help="A folder for a page that runs it in a browser.")
    ] = None,
    encoder: EncoderSpec = None,
) -> Any:
    """Write a model and its encoder's image tower as one graph: a picture in; probabilities, concepts, ledger out.

    Names of classes and concepts, and how a picture is prepared, stand in the graph's metadata (sparsecbm). ONNX needs
    [bold]pip install "sparsecbm\\[export]"[/bold]; the page takes onnxruntime-web from npm once, and no network
    afterwards: serve its folder with [bold]python -m http.server[/bold].

    Example:  [bold]sparsecbm export sparsecbm-demo -o bird.onnx[/bold]
    """
    from sparsecbm import runs

    return runs.export_run(model, output, web=web, encoder=encoder)


def show_export(result: ExportResult) -> None:
    """Print where it lies, and how far from the model it is."""
    print(f"{result.path}: {result.bytes / 1e6:.2f} MB; differs from the model by {result.difference:.1e} at most")
    if result.path.is_dir():
        print(f"to look at it: python -m http.server --directory {result.path}")
