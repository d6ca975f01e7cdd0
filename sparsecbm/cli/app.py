"""``sparsecbm app``: an interactive page."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from sparsecbm.cli.base import AsJson, Device, EncoderSpec, Model, command


@command("the page is closed", name="app")
def app_command(
    model: Model,
    host: Annotated[str, typer.Option(help="Address to listen on; the default is this computer alone.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    encoder: EncoderSpec = None,
    device: Device = "auto",
    as_json: AsJson = False,
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
