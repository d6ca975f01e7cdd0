"""The one Accelerator that training loops share, and the end of a launch of several processes."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from sparsecbm._base.devices import resolve_device
from sparsecbm._base.errors import InputError


def make_accelerator(
    device: str,
    *,
    mixed_precision: str = "no",
    gradient_accumulation_steps: int = 1,
    log_with: str | None = None,
    log_dir: str | Path | None = None,
) -> Any:
    """Return an Accelerator for `device` ("auto", "cpu", "cuda", "cuda:1", "mps").

    Raises
    ------
    InputError
        If the device is unknown or absent, or the precision is not for it.
    """
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState
    from accelerate.utils import patch_environment

    chosen = resolve_device(device)
    if mixed_precision == "fp16" and chosen.type == "cpu":  # Accelerate would train in float32 and say nothing
        raise InputError("mixed_precision='fp16' is not for a CPU: use 'no' or 'bf16'")
    # Each process of a launch has the device of its rank; one alone has that which was asked for, and Accelerate takes
    # the first GPU unless its environment names another.
    alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    named = {"ACCELERATE_TORCH_DEVICE": str(chosen)} if alone else {}
    # Accelerate keeps one process-wide state and refuses a second Accelerator with other settings.
    state = AcceleratorState._shared_state
    held = state.get("device")
    if state and (
        state.get("_mixed_precision") != mixed_precision
        or (held != chosen if alone else getattr(held, "type", "cpu") != chosen.type)
    ):
        AcceleratorState._reset_state(reset_partial_state=True)
    with patch_environment(**named):
        accelerator = Accelerator(
            # Started by torchrun on a machine without an accelerator, it must be told, or it sees one process.
            cpu=chosen.type == "cpu",
            mixed_precision=mixed_precision,
            gradient_accumulation_steps=gradient_accumulation_steps,
            log_with=log_with,
            project_dir=None if log_dir is None else str(log_dir),
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    if accelerator.num_processes > 1:
        leave_at_exit()
    return accelerator


def end_logs(accelerator: Any) -> None:
    """Close the trackers of an Accelerator. Its own `end_training` would also end the launch's process group."""
    for tracker in accelerator.trackers:
        tracker.finish()


@cache
def leave_at_exit() -> None:
    """Let this process leave the launch's process group before its interpreter ends.

    The group's threads drop tensors. One that asks for the interpreter's lock while that ends is killed in the middle
    of C++ code, which aborts the process ("terminate called without an active exception").
    """
    atexit.register(_leave)


def _leave() -> None:
    import torch.distributed as distributed

    # A process that ends by an error goes as it is: with collectives under way, leaving could wait for the others.
    if distributed.is_initialized() and not hasattr(sys, "last_value"):
        gc.collect()  # a wrapped model in a cycle would keep the group's threads after the group is destroyed
        distributed.destroy_process_group()
