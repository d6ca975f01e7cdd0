"""How many threads PyTorch's CPU kernels take."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def single_threaded_kernels() -> Iterator[int]:
    """Give torch's CPU kernels one thread each; yield how many they had.

    On small matrices several threads only wait for each other, and the result of a kernel that does not split its sums
    does not depend on how many there are.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)
