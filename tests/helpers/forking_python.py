"""A Python that is ready in a twentieth of a second: a fork of one that has loaded all that it needs.

`Server` keeps that process; an executable ``python`` in its folder, and ``sparsecbm``, run ``-c CODE``, ``-m MODULE``
or a file in a child of it, with their own arguments, folder, environment and streams.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType


def _run(arguments: list[str], folder: str, environment: dict[str, str]) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))
    kind, rest = arguments[0], arguments[1:]
    if kind == "-c":
        main = sys.modules["__main__"] = ModuleType("__main__")
        sys.argv, sys.path[:0] = ["-c", *rest[1:]], [""]
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif kind == "-m":
        sys.argv, sys.path[:0] = rest, [folder]
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[:0] = arguments, [str(Path(kind).parent)]
        runpy.run_path(kind, run_name="__main__")


def _child(arguments: list[str], folder: str, environment: dict[str, str], streams: list[int]) -> None:
    code = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        sys.stdin = os.fdopen(0, closefd=False)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", encoding="utf-8", closefd=False) for n in (1, 2))
        _run(arguments, folder, environment)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if code and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve(listening: int) -> None:
    """Until the pipe on standard input closes: with the process that started this one."""
    loaded = False
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(fileno=listening) as listener:
        while True:
            ready, _, _ = select.select([listener, 0], [], [])
            if 0 in ready:
                return
            if not loaded:
                sys.path.append(str(Path(__file__).parents[2] / "scripts"))
                from _commands import preload

                preload()
                loaded = True
            connection, _ = listener.accept()
            if os.fork() == 0:
                # This child stays to tell how its own child ended.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                _, streams, _, _ = socket.recv_fds(connection, 1, 3)
                request = json.loads(connection.makefile().read())
                pid = os.fork()
                if pid == 0:
                    _child(*request, streams)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                connection.sendall(str(status).encode())
                os._exit(0)
            connection.close()
            with suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


class Server:
    """A loaded process, and a folder with the executables ``python`` and ``sparsecbm`` that ask it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="py")
        folder = Path(self._folder.name)
        self.bin = folder / "bin"
        self.bin.mkdir()
        forks = hasattr(os, "fork") and hasattr(socket, "AF_UNIX")
        words = [sys.executable]
        if forks:
            words += ["-S", str(Path(__file__).with_name("forked_python.py")), str(folder / "socket")]
        python = "exec " + shlex.join(words)
        for name, more in (("python", ""), ("sparsecbm", " -m sparsecbm")):
            (self.bin / name).write_text(f'#!/bin/sh\n{python}{more} "$@"\n')
            (self.bin / name).chmod(0o755)
        self._process: subprocess.Popen | None = None
        if forks:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(folder / "socket"))
                listener.listen()
                number = listener.fileno()
                command = [sys.executable, __file__, str(number)]
                self._process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[number])

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait()
        self._folder.cleanup()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
