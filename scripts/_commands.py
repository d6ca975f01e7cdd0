"""The command line in forked children of one process that has everything heavy loaded: cheap to start and to kill.

A child runs ``sparsecbm.cli.main`` with its arguments, in a folder of its own, with its output in files. It can be sent
SIGKILL, or SIGINT as by Ctrl-C, at a moment, or send it to itself just before its n-th change of a file or folder, so
that the short phases of writing are hit as often as one likes.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import hashlib
import importlib
import json
import math
import os
import pkgutil
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHANGES = frozenset(
    ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.utime", "os.link", "os.symlink", "os.truncate")
)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


_HEAVY = (
    "accelerate", "datasets", "jinja2", "matplotlib.pyplot", "open_clip", "scipy.cluster", "scipy.stats",
    "sklearn.linear_model", "torch._dynamo", "transformers",
)  # fmt: skip


def preload() -> None:
    """Load the package, and what it loads late: nothing is computed here, where it could leave threads to a child."""
    import sparsecbm

    os.environ.setdefault("MPLBACKEND", "Agg")
    found = (module.name for module in pkgutil.walk_packages(sparsecbm.__path__, "sparsecbm."))
    for name in (*_HEAVY, *(name for name in found if "__main__" not in name)):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # the children's collections would copy every page
    atexit.register(gc.unfreeze)


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes
    ----------
    status : int
        Exit status; negative: the signal that ended it.
    seconds : float
        From fork to end.
    changes : int or None
        Changes of files and folders; None if it was killed.
    output, errors : str
        What it printed.
    late : bool
        Whether it was killed because it took longer than the limit.
    """

    status: int
    seconds: float
    changes: int | None
    output: str
    errors: str
    late: bool = False

    @property
    def killed(self) -> bool:
        """Whether SIGKILL or Ctrl-C ended it."""
        return self.status in (-signal.SIGKILL, -signal.SIGINT, 130)

    @property
    def clear(self) -> bool:
        """Whether it ended well, or with one line of error and no traceback."""
        lines = [line for line in self.errors.splitlines() if line.strip() and not line.startswith("warning: ")]
        if self.status == 0 or self.killed:
            return "Traceback" not in self.errors and len(lines) <= (self.status == 130)
        told = bool(lines) and lines[-1].startswith("error: ") and not lines[-1].startswith("error: internal")
        return self.status == 2 and told and "Traceback" not in self.errors


class Command:
    """A command that has been started in a child.

    Parameters
    ----------
    arguments : sequence of str
        Without the leading ``sparsecbm``.
    folder : Path
        Where it runs.
    environment : mapping
        Variables beside those of this process.
    kill_at_change : int, optional
        Send `kill` to itself before this change of a file or folder, counted from 1.
    kill : signal.Signals
        SIGKILL, or SIGINT.
    before : callable, optional
        Called in the child first, to give up rights or to set limits.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str] | None = None,
        *,
        kill_at_change: int | None = None,
        kill: signal.Signals = signal.SIGKILL,
        before: Callable[[], None] | None = None,
    ) -> None:
        self.kill = kill
        folder.mkdir(parents=True, exist_ok=True)
        self._files = [tempfile.TemporaryFile() for _ in range(3)]  # noqa: SIM115 - closed when read
        self.start = time.perf_counter()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._child(arguments, folder, environment or {}, kill_at_change, before)

    def wait(self, kill_after: float | None = None, again_after: float = math.inf, limit: float = 1800.0) -> Outcome:
        """Wait for the end; send the signal `kill_after` seconds from the start, and again so many seconds later.

        What takes longer than `limit` seconds is sent SIGKILL.
        """
        end = self.start + limit
        moment = math.inf if kill_after is None else self.start + kill_after
        late = False
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            now = time.perf_counter()
            if pid:
                break
            if now >= end:
                late = True
                os.kill(self.pid, signal.SIGKILL)
                _, status = os.waitpid(self.pid, 0)
                break
            if now >= moment:
                os.kill(self.pid, self.kill)
                moment, again_after = now + again_after, math.inf
            time.sleep(max(0.0, min(moment - now, 0.005)))
        seconds = time.perf_counter() - self.start
        output, errors, changes = (self._read(file) for file in self._files)
        code = os.waitstatus_to_exitcode(status)
        return Outcome(code, seconds, int(changes) if changes else None, output, errors, late)

    @staticmethod
    def _read(file: Any) -> str:
        with file:
            file.seek(0)
            return file.read().decode("utf-8", "replace")

    def _child(
        self,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        kill_at_change: int | None,
        before: Callable[[], None] | None,
    ) -> None:
        code, count = 70, 0
        signal.signal(signal.SIGINT, signal.SIG_IGN)

        def hook(event: str, details: tuple[Any, ...]) -> None:
            nonlocal count
            if event in _CHANGES or (event == "open" and isinstance(details[2], int) and details[2] & _WRITING):
                count += 1
                if count == kill_at_change:
                    os.kill(os.getpid(), self.kill)

        try:
            os.chdir(folder)
            os.environ.update(environment)
            for number, file in enumerate(self._files[:2], start=1):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
            if before is not None:
                before()
            from sparsecbm.cli import main

            sys.addaudithook(hook)
            # What is no part of the command is deaf to Ctrl-C.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            try:
                main(list(arguments))
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                signal.signal(signal.SIGINT, signal.SIG_IGN)
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            made = count
            sys.stdout.flush()
            sys.stderr.flush()
            os.write(self._files[2].fileno(), str(made).encode())
            os._exit(code)


_TIMES = frozenset(("seconds", "made", "used"))
# A search's page shows the seconds that each method took.
_SECONDS = re.compile(rb'(?<=<dt>Seconds</dt><dd class="value">)[\d.]+|(?<=<td class="number">)[\d.]+(?=</td>)')


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in _TIMES}
    if isinstance(value, list):
        return [_timeless(item) for item in value]
    return value


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by relative path, without what a clock measured."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_dir():
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            data = json.dumps(_timeless(json.loads(data))).encode()
        elif path.name == "search.html":
            data = _SECONDS.sub(b"", data)
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found
