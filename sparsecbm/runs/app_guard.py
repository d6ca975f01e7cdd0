"""What the server of the interactive page lets in: its own page's requests, which name no address and no odd path.

A page that the user happens to have open elsewhere can send requests to this computer as well. It cannot forge the
headers by which a browser tells: ``Host`` (a name of its own that points here, "DNS rebinding"), ``Origin`` and
``Sec-Fetch-Site`` (any other page).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_MESSAGE = 16 * 2**20
"""Bytes of one message of the page, which may hold a picture as text."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; frame-src 'none'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_NAME = 255  # bytes that file systems take


class Guard:
    """ASGI application that answers what it refuses itself and hands on the rest, with the policy on every answer.

    Parameters
    ----------
    app : ASGI application
    host : str
        The address it listens on. On this computer's own, only requests to its own names are let in.
    """

    def __init__(self, app: Any, host: str) -> None:
        self.app = app
        self._names = {*_LOOPBACK, host.lower()} if is_loopback(host) else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        refused = self._refused(scope)
        if scope["type"] == "websocket":
            await (_close(send) if refused else self.app(scope, receive, send))
            return

        async def with_policy(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                ours = {name for name, _ in _HEADERS}
                kept = [pair for pair in message.get("headers", ()) if pair[0].lower() not in ours]
                message = {**message, "headers": [*kept, *_HEADERS]}
            await send(message)

        if not refused and scope["method"] not in ("GET", "HEAD", "OPTIONS") and not _is_upload(scope):
            refused, body = await _message(receive)
            # What was read is what is handed on: two readers may differ over repeated keys and encodings.
            headers = [pair for pair in scope["headers"] if pair[0].lower() != b"content-length"]
            scope = {**scope, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
            receive = _replayed(body, receive)
        if refused:
            await with_policy(
                {"type": "http.response.start", "status": refused, "headers": [(b"content-length", b"0")]}
            )
            await send({"type": "http.response.body", "body": b""})
        else:
            await self.app(scope, receive, with_policy)

    def _refused(self, scope: Scope) -> int:
        """Status of a refusal by what a request's head says; 0 for none."""
        hosts, origins = list(_header(scope, "host")), list(_header(scope, "origin"))
        if len(hosts) != 1 or len(origins) > 1:
            return 400
        try:
            name, origin = urlsplit(f"//{hosts[0]}").hostname, urlsplit(origins[0]).netloc if origins else hosts[0]
        except ValueError:
            return 400
        if origin.removesuffix(":80") != hosts[0].removesuffix(":80"):
            return 403
        if self._names is not None and name not in self._names:
            return 403
        site, mode = ("".join(_header(scope, f"sec-fetch-{name}")) for name in ("site", "mode"))
        if site not in ("", "same-origin", "none") and mode != "navigate":
            return 403
        path = scope["path"]
        odd = "\0" in path or b"\0" in unquote_to_bytes(scope.get("query_string", b""))
        if odd or any(len(part.encode("utf-8", "replace")) > _LONGEST_NAME for part in path.split("/")):
            return 400
        return 403 if "://" in path else 0


def is_loopback(host: str) -> bool:
    """Whether an address is this computer's own, which no other can reach."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def names_address(value: Any) -> bool:
    """Whether what a browser sent names a file by an address, which gradio would fetch, or by what can be no path."""
    if isinstance(value, dict):
        path = value.get("path")
        return (isinstance(path, str) and ("://" in path or "\0" in path)) or any(map(names_address, value.values()))
    return isinstance(value, list) and any(map(names_address, value))


def _header(scope: Scope, name: str) -> Iterator[str]:
    """Values of a header, in small letters: host names, origins and media types are the same in any."""
    return (value.decode("latin-1").strip().lower() for key, value in scope["headers"] if key.lower() == name.encode())


def _is_upload(scope: Scope) -> bool:
    """Whether it is a form with files, which gradio bounds itself; all else that is sent is JSON."""
    kinds = [value.split(";")[0].strip() for value in _header(scope, "content-type")]
    return kinds == ["multipart/form-data"] and scope["path"].endswith("/upload")


async def _message(receive: Receive) -> tuple[int, bytes]:
    """Status of a refusal, or 0, and the message of a page as it was understood."""
    body = bytearray()
    more = True
    while more:
        part = await receive()
        body += part.get("body", b"")
        more = part.get("more_body", False)
        if len(body) > MAX_MESSAGE:
            return 413, b""
    if not body:
        return 0, b""
    try:
        message = json.loads(body)
        return (403, b"") if names_address(message) else (0, json.dumps(message, allow_nan=False).encode())
    except (ValueError, RecursionError):
        return 403, b""


def _replayed(body: bytes, receive: Receive) -> Receive:
    told = False

    async def replay() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})
