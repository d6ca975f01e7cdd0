"""One progress bar for everything that may take more than two seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TypeVar

from sparsecbm._base.launch import is_main_process

T = TypeVar("T")


class ProgressBar:
    """A rich progress bar on stderr that appears only once the work has lasted longer than `delay` seconds.

    Parameters
    ----------
    description : str
        What is being done, in a few words.
    total : int
        Number of steps.
    enabled : bool or None
        None shows it only on a terminal and only in the main process of an Accelerate launch.
    delay : float
        Seconds before the bar appears.
    """

    def __init__(self, description: str, total: int, enabled: bool | None = None, delay: float = 1.0) -> None:
        if enabled is None:
            enabled = sys.stderr.isatty() and is_main_process()
        self.description, self.total, self.enabled, self.delay = description, total, enabled, delay
        self._done = 0
        self._start = time.monotonic()
        self._bar = None
        self._task = None
        self._note = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, steps: int = 1, note: str = "") -> None:
        """Advance by `steps`; `note` (a loss, a rate) stands behind the bar."""
        self._done += steps
        self._note = note
        if not self.enabled:
            return
        if self._bar is None and time.monotonic() - self._start >= self.delay:
            self._open()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=self._note)

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(self.description, total=self.total, note="")
        self._bar.start()


def track(items: Iterable[T], description: str, total: int | None = None, enabled: bool | None = None) -> Iterator[T]:
    """Yield from `items` under a `ProgressBar`."""
    size = len(items) if total is None else total  # type: ignore[arg-type]
    with ProgressBar(description, size, enabled) as bar:
        for item in items:
            yield item
            bar.update()
