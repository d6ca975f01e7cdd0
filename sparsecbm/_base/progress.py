"""One progress bar for everything that may take more than two seconds."""

from __future__ import annotations

import sys
import threading

from tqdm import tqdm

from sparsecbm._base.launch import is_main_process


class ProgressBar(tqdm):
    """A progress bar on stderr that appears only once the work has lasted longer than `delay` seconds.

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

    monitor_interval = 0  # no thread of its own

    def __init__(self, description: str, total: int, enabled: bool | int | None = None, delay: float = 1.0) -> None:
        if enabled is None:
            enabled = sys.stderr.isatty() and is_main_process()
        self.enabled = enabled
        shown = {"leave": False, "dynamic_ncols": True, "file": sys.stderr}
        super().__init__(desc=description, total=total, disable=not enabled, delay=delay, **shown)

    def update(self, n: float | None = 1, note: str = "") -> bool | None:
        """Advance by `n` steps; `note` (a loss, a rate) stands behind the bar."""
        if note and self.enabled:
            self.set_postfix_str(note, refresh=False)
        return super().update(n)


ProgressBar.set_lock(threading.RLock())
