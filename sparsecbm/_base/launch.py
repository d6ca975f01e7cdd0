"""What a launcher (accelerate, torchrun, mpirun) says through the environment, before any process group is joined."""

from __future__ import annotations

import os

_RANKS = ("RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK", "MV2_COMM_WORLD_RANK")
_WORLD_SIZES = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


def is_main_process() -> bool:
    """Whether this process writes and prints: always, but in a launch of several only the first."""
    return all(os.environ.get(name, "0") == "0" for name in _RANKS)


def is_one_of_several() -> bool:
    """Whether a launcher says that it started more than one process."""
    return any(os.environ.get(name, "1") != "1" for name in _WORLD_SIZES)


def started_fewer_than_asked() -> bool:
    """Whether this looks like ``accelerate launch --cpu --num_processes N``, which without MPI starts one process."""
    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true" and "MASTER_ADDR" in os.environ
    return asked and not any(name in os.environ for name in _WORLD_SIZES)
