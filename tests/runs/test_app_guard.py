"""The guard of the interactive page's server, which needs neither gradio nor a network to be tried."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from sparsecbm.runs.app_guard import MAX_MESSAGE, POLICY, Guard, names_address

JOIN = "/gradio_api/queue/join"
FILE = b'{"data": [{"path": "http://127.0.0.1:1/x", "meta": {"_type": "gradio.FileData"}}]}'


class Page:
    """Stands for gradio: keeps what it was sent, and answers 200."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.length = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        self.heard.append(message["body"])
        self.length = dict(scope["headers"]).get(b"content-length", b"").decode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Security-Policy", b"none")]})
        await send({"type": "http.response.body", "body": b"page"})


def ask(
    path: str = "/",
    body: bytes = b"",
    *,
    method: str = "GET",
    headers: Sequence[tuple[str, str]] = (),
    host: str = "127.0.0.1:7860",
    listens: str = "127.0.0.1",
    query: bytes = b"",
    page: Page | None = None,
) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer; the body is sent in two parts."""
    pairs = [("Host", host), *headers]
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": query,
        "headers": [(name.encode(), value.encode()) for name, value in pairs],
    }
    half = len(body) // 2
    parts = [
        {"type": "http.request", "body": body[:half], "more_body": True},
        {"type": "http.request", "body": body[half:], "more_body": False},
    ]
    if not body:
        parts = parts[1:]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Guard(page or Page(), listens)(scope, receive, send))
    return sent[0]["status"], {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}


def post(body: bytes, kind: str | None = "application/json", path: str = JOIN, **options: Any) -> int:
    headers = [] if kind is None else [("Content-Type", kind)]
    return ask(path, body, method="POST", headers=headers, **options)[0]


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/JSON",
        "Application/Json; charset=utf-8",
        "text/plain",
        "multipart/form-data",
        None,
    ],
)
def test_messages_are_looked_at_whatever_they_say_they_are(kind: str | None) -> None:
    assert post(FILE, kind) == 403
    assert post(b" " * (MAX_MESSAGE + 1), kind) == 413
    assert post(b"[" * 10**5, kind) == 403
    assert post(b'{"data": [1, "a"]}', kind) == 200
    assert post(b"", kind) == 200


def test_what_was_read_is_what_is_handed_on() -> None:
    """Repeated keys, UTF-16 and numbers beyond JSON mean one thing to one reader and another to the next."""
    page = Page()
    assert post(b'{"path": "http://a", "path": "b.png"}', page=page) == 200
    assert post('{"data": ["\u00e9"]}'.encode("utf-16"), page=page) == 200
    assert [json.loads(body) for body in page.heard] == [{"path": "b.png"}, {"data": ["\u00e9"]}]
    assert page.length == str(len(page.heard[-1]))
    assert post(b'{"data": [1e999]}') == 403


def test_forms_are_left_to_the_upload_alone() -> None:
    page = Page()
    assert post(b"--x no json", "Multipart/Form-Data; boundary=x", "/gradio_api/upload", page=page) == 200
    assert page.heard == [b"--x n"]  # not read by the guard: the page gets the parts as they come
    assert post(b"--x no json", "multipart/form-data; boundary=x") == 403


def test_on_this_computer_only_its_own_names_are_let_in() -> None:
    for host in ("127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860"):
        assert ask(host=host)[0] == 200, host
    for host in ("birds.example.org", "birds.example.org:7860", "127.0.0.1.example.org", "", "localhost@example.org:1"):
        assert ask(host=host)[0] == 403, host
    assert ask(host="[::1")[0] == 400
    assert ask(headers=[("Host", "127.0.0.1:7860")])[0] == 400  # twice
    assert ask(host="birds.example.org", listens="0.0.0.0")[0] == 200
    assert ask(host="127.1.2.3:7860", listens="127.1.2.3")[0] == 200


@pytest.mark.parametrize("listens", ["127.0.0.1", "0.0.0.0"])
def test_other_pages_are_refused(listens: str) -> None:
    def from_(*headers: tuple[str, str], method: str = "GET") -> int:
        return ask(headers=headers, method=method, listens=listens)[0]

    assert from_(("Origin", "http://127.0.0.1:7860")) == 200
    for origin in ("https://example.org", "http://127.0.0.1:9", "http://localhost:7860", "null", "http://[", ""):
        assert from_(("Origin", origin), method="POST") in (400, 403), origin
    assert from_(("Sec-Fetch-Site", "same-origin"), ("Sec-Fetch-Mode", "cors")) == 200
    assert from_(("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")) == 403
    assert from_(("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate")) == 200  # a link to the page


def test_odd_paths_are_a_bad_request() -> None:
    assert ask("/gradio_api/file=/tmp/a\0b")[0] == 400
    assert ask(query=b"upload_id=a%00b")[0] == 400
    assert ask("/gradio_api/file=" + "a" * 300)[0] == 400
    assert ask("/gradio_api/file=http://127.0.0.1:1/x")[0] == 403
    assert ask("/gradio_api/file=/tmp/" + "a/" * 300)[0] == 200


def test_the_policy_stands_on_every_answer_once() -> None:
    for status, headers in (ask(), ask(host="example.org")):
        assert status in (200, 403)
        assert headers["content-security-policy"] == POLICY
        assert headers["x-content-type-options"] == "nosniff"


def test_a_foreign_websocket_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"example.org")]}
    asyncio.run(Guard(Page(), "127.0.0.1")(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_messages_name_no_address() -> None:
    message = {"data": [{"path": "/tmp/gradio/a.png", "url": "http://127.0.0.1:7860/file=a.png"}, 3, None]}
    assert not names_address(message)
    assert names_address({"data": [[{"path": "https://example.org/a.png"}]]})
    assert names_address({"data": [[{"path": "/tmp/gradio/a\0.png"}]]})
