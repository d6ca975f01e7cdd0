"""The interactive page: drop a picture, read its ledger, move concepts, see the prediction change.

gradio (``pip install "sparsecbm[app]"``) makes the page (`app_page`). The server listens on this computer only unless
told otherwise, lets in what its own page sends (`app_guard`), and the page's policy lets nothing be fetched from
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sparsecbm._base.errors import InputError
from sparsecbm.runs.app_guard import Guard, is_loopback
from sparsecbm.runs.app_page import STYLE, build_page, import_gradio
from sparsecbm.runs.app_session import Session, open_session

MAX_UPLOAD = "10mb"


def build_server(session: Session, host: str = "127.0.0.1") -> Guard:
    """Return the page as an ASGI application that lets in what its own page sends; see `Guard`.

    What a browser sends names no file but those that were uploaded, and no address.
    """
    gr = import_gradio()
    from fastapi import FastAPI

    # System fonts: gradio's own themes may ask a font service.
    theme = gr.themes.Base(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    page = build_page(session)
    # gradio checks that a file named by the browser was uploaded only once the page is launched; mounted, it never is,
    # and would hand out any file of this computer.
    page.has_launched = True
    mounted = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        page,
        path="/",
        theme=theme,
        css=STYLE,
        max_file_size=MAX_UPLOAD,
        footer_links=[],
        ssr_mode=False,
        show_error=True,
        pwa=False,
        enable_monitoring=False,
        mcp_server=False,
    )
    return Guard(mounted, host)


def app_run(
    model: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    encoder: str | None = None,
    device: str = "auto",
    announce: Callable[[str, str], None] | None = None,
) -> None:
    """Serve the interactive page of a saved model until interrupted.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    host : str
        Address to listen on; the default is this computer alone.
    port : int
        1 to 65535.
    encoder : str, optional
        Where the encoder lies now.
    device : str
        See `load_encoder`.
    announce : callable, optional
        Told the address of the page, once it is about to be there, and a warning if it is open to others.

    Raises
    ------
    InputError
        If gradio is not installed, or the address cannot be had.
    """
    if not 0 < port < 65536:
        raise InputError(f"port={port!r}: expected 1 to 65535")
    import_gradio()
    _check_free(host, port)
    server = build_server(open_session(model, encoder, device), host)
    import uvicorn

    if announce is not None:
        warning = "" if is_loopback(host) else "; whoever can reach this address can use it"
        announce(f"http://{host}:{port}/", warning)
    uvicorn.run(server, host=host, port=port, log_level="warning")


def _check_free(host: str, port: int) -> None:
    import socket

    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family, socket.SOCK_STREAM) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tried.bind((host, port))
    except OSError as error:
        raise InputError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another --host or --port"
        ) from error
