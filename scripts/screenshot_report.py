"""Photograph a report (or any local page) in headless Chromium: desktop and phone width, light and dark, and on paper.

Says whether the page asked for anything outside itself and what it wrote to the console, and fails if it did either.
Needs Chromium and tornado (which comes with the test extra).

Run: python scripts/screenshot_report.py sparsecbm-demo/report.html --output screenshots/
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

WIDTHS = {"desktop": 1280, "phone": 390}
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


def find_chromium() -> str | None:
    """Path of Chromium or Chrome, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab, driven over the DevTools protocol; remembers every request and every word on the console."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._number = 0
        self._waiting: dict[int, asyncio.Future] = {}
        self.requests: list[str] = []
        self.console: list[str] = []
        self._loaded = asyncio.Event()
        self._reader = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        while (text := await self._socket.read_message()) is not None:
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
                continue
            kind, held = message["method"], message.get("params", {})
            if kind == "Network.requestWillBeSent":
                self.requests.append(held["request"]["url"])
            elif kind == "Log.entryAdded":
                self.console.append(f"{held['entry']['level']}: {held['entry']['text']}")
            elif kind == "Runtime.consoleAPICalled":
                self.console.append(f"{held['type']}: {[one.get('value') for one in held['args']]}")
            elif kind == "Runtime.exceptionThrown":
                details = held["exceptionDetails"]
                self.console.append(f"exception: {details.get('exception', {}).get('description', details['text'])}")
            elif kind == "Page.loadEventFired":
                self._loaded.set()

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol."""
        self._number += 1
        self._waiting[self._number] = future = asyncio.get_running_loop().create_future()
        await self._socket.write_message(json.dumps({"id": self._number, "method": method, "params": parameters}))
        answer = await asyncio.wait_for(future, 600)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        for domain in ("Page", "Network", "Log", "Runtime"):
            await self.call(f"{domain}.enable")
        self._loaded.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 600)

    async def evaluate(self, script: str) -> Any:
        """Run JavaScript in the page and return its value."""
        answer = await self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"]["description"])
        return answer["result"].get("value")

    async def view(self, width: int, theme: str = "light", medium: str = "screen") -> None:
        """Set width, colour scheme and medium."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 600
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self.call("Emulation.setEmulatedMedia", media=medium, features=features)

    async def photograph(self, path: Path, limit: int = 12_000) -> None:
        """Write a picture of the whole page, or of its first `limit` pixels."""
        size = (await self.call("Page.getLayoutMetrics"))["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], limit), "scale": 1}
        shot = await self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    @property
    def outside(self) -> list[str]:
        """Requests beyond the page itself and data it carries."""
        return [url for url in self.requests[1:] if not url.startswith(("data:", "about:"))]


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """Start Chromium with one empty tab and an empty profile; stop it at the end.

    Raises
    ------
    FileNotFoundError
        If there is no Chromium.
    """
    from tornado.websocket import websocket_connect

    found = find_chromium()
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(NAMES)} is installed")
    root = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    # Its helper processes may write there for a moment after it has ended.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [found, "--headless", *root, "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        command += ["--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        try:
            port = await asyncio.to_thread(_port, process)
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=600) as answer:
                tabs = json.load(answer)
            url = next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")
            socket = await websocket_connect(url, max_message_size=1 << 28)
            page = Page(socket)
            yield page
            page._reader.cancel()
            socket.close()
        finally:
            process.terminate()
            process.wait(600)
            process.stderr.close()


def _port(process: subprocess.Popen) -> int:
    seen = []
    for line in process.stderr:
        seen.append(line)
        if match := re.search(r"DevTools listening on ws://127\.0\.0\.1:(\d+)/", line):
            return int(match[1])
    raise RuntimeError(f"Chromium did not start: {''.join(seen)[-400:]}")


async def photograph(source: Path, output: Path) -> int:
    """Take all pictures; returns the number of complaints."""
    async with browser() as page:
        await page.open(source.resolve().as_uri())
        for name, width in WIDTHS.items():
            for theme in ("light", "dark"):
                await page.view(width, theme)
                await page.photograph(output / f"{source.stem}-{name}-{theme}.png")
                overflow = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if overflow > 0:
                    page.console.append(f"warning: {name} page is {overflow} px wider than the window")
        await page.view(800, "light", "print")
        await page.photograph(output / f"{source.stem}-print.png", limit=4000)
        print(f"{source}: {source.stat().st_size / 1e6:.2f} MB, pictures in {output}")
        print(f"requests beyond the page: {page.outside or 'none'}")
        print(f"console: {page.console or 'empty'}")
        return len(page.outside) + len(page.console)


def main() -> None:
    """Photograph one page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("--output", type=Path, default=Path("screenshots"))
    options = parser.parse_args()
    sys.exit(1 if asyncio.run(photograph(options.page, options.output)) else 0)


if __name__ == "__main__":
    main()
