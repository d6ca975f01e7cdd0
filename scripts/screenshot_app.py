"""Open the interactive page in headless Chromium, drop a picture, move a concept, and take pictures of it.

Says whether the page asked for anything beyond its own server. Needs the app extra, Chromium and tornado.

Run: python scripts/screenshot_app.py sparsecbm-demo PICTURE.png --output screenshots/
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
import threading
import time
from pathlib import Path

import screenshot_report as browser_of

from sparsecbm.runs.app import build_server
from sparsecbm.runs.app_session import open_session


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


async def wait_for(page: browser_of.Page, condition: str, seconds: float = 30.0) -> None:
    """Wait until a JavaScript condition holds."""
    end = time.monotonic() + seconds
    while not await page.evaluate(f"Boolean({condition})"):
        if time.monotonic() > end:
            raise TimeoutError(f"the page never came to {condition}")
        await asyncio.sleep(0.1)


async def visit(url: str, picture: Path, output: Path) -> int:
    """Use the page as a reader would; returns the number of requests to other servers."""
    async with browser_of.browser() as page:
        await page.view(1280, "light")
        await page.open(url)
        await wait_for(page, "document.querySelector('input[type=file]')")
        node = (await page.call("DOM.getDocument"))["root"]["nodeId"]
        field = (await page.call("DOM.querySelector", nodeId=node, selector="input[type=file]"))["nodeId"]
        await page.call("DOM.setFileInputFiles", nodeId=field, files=[str(picture.resolve())])
        await wait_for(page, "document.querySelector('.scbm-ledger')")
        await asyncio.sleep(1.0)
        await page.photograph(output / "app-picture.png")
        before = await page.evaluate("document.querySelector('.scbm-fragment').textContent")
        # The first slider to zero: what the largest contribution was worth.
        await page.evaluate(
            "(() => { const slider = document.querySelector('input[type=range]'); slider.value = slider.min;"
            "for (const kind of ['input', 'change']) slider.dispatchEvent(new Event(kind, {bubbles: true})); })()"
        )
        await asyncio.sleep(1.5)
        await page.evaluate(
            "[...document.querySelectorAll('button')].find((b) => b.textContent.includes('Smallest')).click()"
        )
        await asyncio.sleep(1.5)
        after = await page.evaluate("document.querySelector('.scbm-fragment').textContent")
        await page.photograph(output / "app-edited.png")
        await page.view(390, "dark")
        await asyncio.sleep(0.5)
        await page.photograph(output / "app-phone.png")
        outside = [one for one in page.requests if not one.startswith((url, "data:", "blob:", "about:"))]
        print(f"prediction changed on the page: {before != after}")
        print(f"requests to other servers: {outside or 'none'}")
        print(f"console: {page.console or 'empty'}")
        return len(outside) + (before == after)


def main() -> None:
    """Serve, visit, stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--output", type=Path, default=Path("screenshots"))
    options = parser.parse_args()
    import uvicorn

    port = free_port()
    configuration = uvicorn.Config(build_server(open_session(options.model)), port=port, log_level="warning")
    server = uvicorn.Server(configuration)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    try:
        sys.exit(asyncio.run(visit(f"http://127.0.0.1:{port}/", options.picture, options.output)))
    finally:
        server.should_exit = True
        thread.join(10)


if __name__ == "__main__":
    main()
