"""The processes of an Accelerate launch that embed together."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from sparsecbm._base.accelerator import leave_at_exit
from sparsecbm._base.errors import InputError
from sparsecbm._base.launch import is_one_of_several, started_fewer_than_asked

T = TypeVar("T")


@dataclass(frozen=True)
class Processes:
    """This process among those started together.

    Attributes
    ----------
    count, index : int
        Number of processes and this one's place among them.
    state : accelerate.PartialState or None
        None for a process on its own.
    """

    count: int = 1
    index: int = 0
    state: Any = None

    @classmethod
    def current(cls) -> Processes:
        """Join the process group of the launcher, if there is one."""
        import torch.distributed as distributed

        joined = distributed.is_available() and distributed.is_initialized()
        if not joined and not is_one_of_several():
            if started_fewer_than_asked():
                warnings.warn(
                    "`accelerate launch --cpu` started one process: on CPU it starts several only with "
                    "--mpirun_hostfile; or use `ACCELERATE_USE_CPU=true accelerate launch --multi_gpu "
                    "--num_processes N`",
                    stacklevel=2,
                )
            # Without a launcher PartialState would settle this process's device for good.
            return cls()
        import torch
        from accelerate import PartialState
        from accelerate.utils import parse_flag_from_env

        # Started by torchrun on a machine without a GPU, PartialState must be told, or it sees one process.
        state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available())
        if state.num_processes == 1:
            return cls()
        leave_at_exit()
        return cls(state.num_processes, state.process_index, state)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that decides and assembles."""
        return self.index == 0

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Wait at the end until every process is here; an `InputError` of one is raised in all of them."""
        failure: InputError | None = None
        try:
            yield
        except InputError as error:
            failure = error
        failures = [failure]
        if self.state is not None:
            from accelerate.utils import gather_object

            failures = gather_object(failures)
        for failure in failures:
            if failure is not None:
                raise failure

    def from_main(self, value: T) -> T:
        """Return the main process's value in every process."""
        if self.state is None:
            return value
        from accelerate.utils import broadcast_object_list

        box = [value]
        broadcast_object_list(box)
        return box[0]
