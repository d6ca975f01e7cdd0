"""A stand-in for the Hugging Face Hub on the loopback: what real clients ask of it, with its headers and its refusals.

Files from `LARGE` bytes on are kept elsewhere, as large files of the Hub are: the answer names their hash and size, and
redirects to another path that knows ranges. `Hub.refuse` and `Hub.drop_after` make it fail as networks and servers do.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = 4096
GOOD, EXPIRED = "hf_good", "hf_expired"


@dataclass
class Repository:
    """Files of one repository, by path; `gated` and `private` as on the Hub."""

    files: dict[str, bytes] = field(default_factory=dict)
    private: bool = False
    gated: bool = False

    @property
    def commit(self) -> str:
        """What a commit's hash does: another for other files."""
        held = [[path, hashlib.sha1(data).hexdigest()] for path, data in sorted(self.files.items())]
        return hashlib.sha1(json.dumps(held).encode()).hexdigest()


class Hub:
    """The stand-in: repositories by (kind, name), kind one of "models", "datasets"; counts what was asked."""

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.uploaded: dict[str, bytes] = {}
        self.refuse: list[tuple[int, str]] = []  # (status, pattern of the path), each for one request
        self.drop_after: int | None = None  # bytes of a large file after which the connection goes, once
        self.requests: list[tuple[str, str, str]] = []  # method, path, range
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        # Another host, as the Hub's storage is: clients look at the answer's headers, not behind it.
        self.elsewhere = f"http://localhost:{self.server.server_port}/elsewhere"
        self.connections: list[socket.socket] = []
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, kind: str, name: str, files: dict[str, bytes], **options: Any) -> Repository:
        """Make a repository."""
        return self.repositories.setdefault((kind, name), Repository(dict(files), **options))

    def close(self) -> None:
        """No network any more: also for connections that are open."""
        self.server.shutdown()
        self.server.server_close()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *_: Any) -> None:
        pass

    # -- answers -------------------------------------------------------------------------------------------------------

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str = "", message: str = "") -> None:
        told = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        body = json.dumps({"error": message}).encode()
        self._send(status, body, {name: value for name, value in told.items() if value})

    # -- who asks, and for what ----------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _repository(self, kind: str, name: str) -> Repository | None:
        """The repository, or None once the refusal is sent, as the Hub words it."""
        found, token = self.hub.repositories.get((kind, name)), self._token()
        if token == EXPIRED:
            self._error(401, message="Invalid credentials in Authorization header")
        elif found is None or (found.private and token != GOOD):
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
        else:
            return found
        return None

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), parse_qs(parts.query)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        for number, (status, pattern) in enumerate(self.hub.refuse):
            if re.search(pattern, path):
                del self.hub.refuse[number]
                self._body()
                return self._error(status, message="the stand-in was told to")
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                return answer(self, query, **match.groupdict())
        self._body()
        return self._error(404, message=f"the stand-in knows no {self.command} {path}")

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    # -- what the Hub does ---------------------------------------------------------------------------------------------

    def info(self, _query: Any, kind: str, name: str, revision: str | None = None) -> None:
        if found := self._repository(kind, name):
            if revision not in (None, "main", found.commit):
                return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            siblings = [{"rfilename": path, "size": len(data)} for path, data in sorted(found.files.items())]
            listed = {"id": name, "sha": found.commit, "siblings": siblings, "tags": [], "private": found.private}
            self._json({**listed, "gated": "manual" if found.gated else False, "disabled": False})

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        large = {"lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}}
        oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        return {"type": "file", "path": path, "size": len(data), "oid": oid, **(large if len(data) >= LARGE else {})}

    def tree(self, query: Any, kind: str, name: str, revision: str, inside: str | None) -> None:
        if found := self._repository(kind, name):
            inside = (inside or "").strip("/")
            prefix = f"{inside}/" if inside else ""
            held = {path: data for path, data in sorted(found.files.items()) if path.startswith(prefix)}
            if inside and not held:
                return self._error(404, "EntryNotFound", f"{inside} does not exist on {revision!r}")
            recursive = query.get("recursive", ["False"])[0].lower() == "true"
            below = [path[len(prefix) :] for path in held]
            folders = {prefix + path.split("/")[0] for path in below if "/" in path}
            rows = [{"type": "directory", "path": folder, "size": 0, "oid": "0" * 40} for folder in sorted(folders)]
            rows += [self._entry(p, d) for p, d in held.items() if recursive or "/" not in p[len(prefix) :]]
            self._json(rows)

    def paths(self, _query: Any, kind: str, name: str, revision: str) -> None:
        asked = self._body()
        if found := self._repository(kind, name):
            text = asked.decode()
            wanted = json.loads(text)["paths"] if text.startswith("{") else parse_qs(text).get("paths", [])
            rows = []
            for path in wanted if isinstance(wanted, list) else [wanted]:
                if path in found.files:
                    rows.append(self._entry(path, found.files[path]))
                elif any(held.startswith(f"{path}/") for held in found.files):
                    rows.append({"type": "directory", "path": path, "size": 0, "oid": "0" * 40})
            self._json(rows)

    def resolve(self, _query: Any, name: str, revision: str, path: str, prefix: str | None = None) -> None:
        found = self._repository("datasets" if prefix else "models", name)
        if found is None:
            return None
        if found.gated and self._token() != GOOD:
            return self._error(403 if self._token() else 401, "GatedRepo", f"Access to {name} is restricted")
        if revision not in ("main", found.commit):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        told = {"X-Repo-Commit": found.commit, "Accept-Ranges": "bytes"}
        if path not in found.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = found.files[path]
        if len(data) < LARGE:
            etag = hashlib.sha1(data).hexdigest()
            if self.headers.get("If-None-Match") == f'"{etag}"':
                return self._send(304, b"", told)
            return self._send(200, data, {**told, "ETag": f'"{etag}"'})
        digest = hashlib.sha256(data).hexdigest()
        self.hub.uploaded[digest] = data
        large = {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(data))}
        return self._send(302, b"", {**told, **large, "Location": f"{self.hub.elsewhere}/{digest}"})

    def elsewhere(self, _query: Any, digest: str) -> None:
        if self.command == "PUT":
            self.hub.uploaded[digest] = self._body()
            return self._send(200)
        data = self.hub.uploaded.get(digest)
        if data is None:
            return self._error(404, message="no such object")
        start = 0
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, end = int(match[1]), int(match[2] or len(data) - 1)
            told = {"Content-Range": f"bytes {start}-{end}/{len(data)}", "ETag": f'"{digest}"'}
            part, status = data[start : end + 1], 206
        else:
            told, part, status = {"ETag": f'"{digest}"'}, data, 200
        if self.hub.drop_after is not None and len(part) > self.hub.drop_after and self.command == "GET":
            cut, self.hub.drop_after = self.hub.drop_after, None
            self.send_response(status)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part[:cut])
            self.wfile.flush()
            self.close_connection = True
            return None
        return self._send(status, part, told)

    def who(self, _query: Any) -> None:
        if self._token() != GOOD:
            return self._error(401, message="Invalid credentials in Authorization header")
        return self._json({"type": "user", "name": "ann", "orgs": [], "auth": {"type": "access_token"}})

    def card(self, _query: Any) -> None:
        self._body()
        self._json({"errors": [], "warnings": []})

    def create(self, _query: Any) -> None:
        asked = json.loads(self._body())
        if self._token() != GOOD:
            return self._error(401, message="Invalid credentials in Authorization header")
        kind = f"{asked.get('type') or 'model'}s"
        name = "/".join(filter(None, (asked.get("organization") or "ann", asked["name"])))
        if (kind, name) in self.hub.repositories:
            return self._json({"error": "You already created this repo", "url": f"{self.hub.url}/{name}"}, 409)
        self.hub.add(kind, name, {}, private=bool(asked.get("private")))
        prefix = "" if kind == "models" else f"{kind}/"
        return self._json({"url": f"{self.hub.url}/{prefix}{name}", "name": name, "id": name})

    def preupload(self, _query: Any, kind: str, name: str, revision: str) -> None:
        asked = json.loads(self._body())
        if self._token() != GOOD:
            return self._error(403, message="this token may not write")
        if self._repository(kind, name):
            rows = [
                {"path": f["path"], "uploadMode": "lfs" if f["size"] >= LARGE else "regular", "shouldIgnore": False}
                for f in asked["files"]
            ]
            return self._json({"files": rows})
        return None

    def batch(self, _query: Any, name: str, prefix: str | None = None) -> None:
        rows = []
        for wanted in json.loads(self._body())["objects"]:
            action = {"upload": {"href": f"{self.hub.elsewhere}/{wanted['oid']}", "header": {}}}
            rows.append({**wanted, **({} if wanted["oid"] in self.hub.uploaded else {"actions": action})})
        self._json({"transfer": "basic", "objects": rows})

    def commit(self, _query: Any, kind: str, name: str, revision: str) -> None:
        lines = [json.loads(line) for line in self._body().splitlines() if line.strip()]
        found = self._repository(kind, name)
        if found is None:
            return None
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                found.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                found.files[value["path"]] = self.hub.uploaded[value["oid"]]
        address = f"{self.hub.url}/{'' if kind == 'models' else kind + '/'}{name}/commit/{found.commit}"
        return self._json({"success": True, "commitOid": found.commit, "commitUrl": address})


_NAME, _KIND = r"(?P<name>[\w.-]+/[\w.-]+)", r"(?P<kind>models|datasets)"
_ROUTES: list[tuple[str, Any]] = [
    (r"/api/whoami-v2", _Handler.who),
    (r"/api/repos/create", _Handler.create),
    (r"/api/validate-yaml", _Handler.card),
    (rf"/api/{_KIND}/{_NAME}/preupload/(?P<revision>.+)", _Handler.preupload),
    (rf"/api/{_KIND}/{_NAME}/commit/(?P<revision>.+)", _Handler.commit),
    (rf"/api/{_KIND}/{_NAME}/paths-info/(?P<revision>[^/]+)", _Handler.paths),
    (rf"/api/{_KIND}/{_NAME}/tree/(?P<revision>[^/]+)(?P<inside>/.*)?", _Handler.tree),
    (rf"/api/{_KIND}/{_NAME}/revision/(?P<revision>.+)", _Handler.info),
    (rf"/api/{_KIND}/{_NAME}", _Handler.info),
    (rf"/(?P<prefix>datasets/)?{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (rf"/(?P<prefix>datasets/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
    (r"/elsewhere/(?P<digest>[0-9a-f]+)", _Handler.elsewhere),
]
