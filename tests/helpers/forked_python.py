"""Ask the server of `forking_python` to run a Python; run with ``python -S``, it imports as little as it can."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys


def ask(address: str, arguments: list[str]) -> int:
    """Have the server run a Python with these arguments; return its exit status."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        socket.send_fds(connection, [b"0"], [0, 1, 2])
        connection.sendall(json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode())  # noqa: PTH109 - pathlib costs 20 ms
        connection.shutdown(socket.SHUT_WR)
        status = int(connection.makefile().read() or "70")
    if status < 0:
        if -status != signal.SIGKILL:
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


if __name__ == "__main__":
    sys.exit(ask(sys.argv[1], sys.argv[2:]))
