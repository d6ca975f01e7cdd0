"""What a job keeps while it works, so that the same job, killed at any point, goes on from there to the same bits.

A state is one safetensors file: tensors and arrays by flattened name, everything else as JSON in its header.
`Resumable` keeps the state of a training loop, `Steps` the results of a job's finished steps.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.files import atomic_path

if TYPE_CHECKING:
    import torch

FILE_NAME = "training.safetensors"
STEP_SUFFIX = ".step.safetensors"

_FORMAT = 2
_BLOCK = 2**24


def fingerprint(*parts: Any) -> str:
    """SHA-256 of arrays (also sparse ones), tensors and JSON values, in their order.

    Examples
    --------
    >>> fingerprint(np.zeros(3), "a") == fingerprint(np.zeros((3, 1)), "a")
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        if hasattr(part, "indptr"):
            part = fingerprint(list(part.shape), part.data, part.indices, part.indptr)
        elif hasattr(part, "detach"):
            part = part.detach().cpu().numpy()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype.str}{part.shape};".encode())
            # In blocks, so that a memory-mapped array is never copied whole.
            rows = max(1, _BLOCK // max(1, part[:1].nbytes)) if part.ndim else 1
            for start in range(0, len(part) if part.ndim else 1, rows):
                digest.update(np.ascontiguousarray(part[start : start + rows] if part.ndim else part).data)
        else:
            digest.update(json.dumps(part, sort_keys=True).encode() + b";")
    return digest.hexdigest()


def _flatten(prefix: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {"tensor": prefix}
    if isinstance(value, np.ndarray):
        tensors[prefix] = torch.from_numpy(np.array(value, order="C"))
        return {"array": prefix}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(f"{prefix}/{key}", item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flatten(f"{prefix}/{i}", item, tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _rebuild(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {key: _rebuild(item, tensors) for key, item in content}
    if kind == "list":
        return [_rebuild(item, tensors) for item in content]
    return content


def save_state(folder: str | Path, state: dict[str, Any], name: str = FILE_NAME) -> None:
    """Write a nested state of dicts, lists, tensors, arrays and JSON values; beside first, then renamed.

    Raises
    ------
    StoredFileError
        If the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten("state", state, tensors)
    with atomic_path(Path(folder) / name) as temporary:
        save_file(tensors, temporary, metadata={"tree": json.dumps(tree)})


def load_state(folder: str | Path, name: str = FILE_NAME) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if there is no such file.

    Raises
    ------
    StoredFileError
        If the file is damaged or not a checkpoint.
    """
    from safetensors import safe_open

    path = Path(folder) / name
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
            return _rebuild(json.loads(stored.metadata()["tree"]), tensors)
    # SafetensorError, or whatever a foreign tree of JSON makes of `_rebuild`.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoredFileError(
            f"checkpoint {str(path)!r} is damaged or foreign ({reason}); delete it to start afresh"
        ) from error


@contextlib.contextmanager
def interrupted_between_steps() -> Iterator[Callable[[], bool]]:
    """Let a first Ctrl-C wait for a loop to end its step; a second one ends the step at once.

    Yields
    ------
    callable
        Whether Ctrl-C was pressed: the loop's word to stop, and to keep what it has.

    Raises
    ------
    KeyboardInterrupt
        At the end, where one was held back.

    Notes
    -----
    Nothing is held back outside the main thread, nor where the caller handles SIGINT in a way of its own.
    """
    pressed = False

    def press(number: int, frame: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    held = threading.current_thread() is threading.main_thread()
    held = held and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    try:
        if held:
            signal.signal(signal.SIGINT, press)
        yield lambda: pressed
    finally:
        if held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if pressed:
        raise KeyboardInterrupt


class Resumable:
    """A training loop that keeps its module, optimizer, generator and counters, and resumes them exactly.

    Attributes
    ----------
    checkpoint_dir : path or None
        None keeps nothing.
    accelerator, optimizer, generator
        The loop's own.
    """

    checkpoint_dir: str | Path | None
    accelerator: Any
    optimizer: Any
    generator: torch.Generator
    #: Names of the loop's other attributes that change from step to step.
    _counters: ClassVar[tuple[str, ...]] = ()

    def _whole_steps(self) -> contextlib.AbstractContextManager[Callable[[], bool]]:
        """`interrupted_between_steps`; several processes stop at once, since they would not hear it at one step."""
        alone = self.accelerator.num_processes == 1
        return interrupted_between_steps() if alone else contextlib.nullcontext(lambda: False)

    def _save(self, job: str, module: torch.nn.Module) -> None:
        """Keep the state after a whole step, in the first process."""
        if self.checkpoint_dir is None or not self.accelerator.is_main_process:
            return
        state = {
            "format": _FORMAT,
            "job": job,
            "module": dict(module.state_dict()),
            "optimizer": self.optimizer.state_dict()["state"],
            "generator": self.generator.get_state(),
            "counters": {name: getattr(self, name) for name in self._counters},
        }
        save_state(self.checkpoint_dir, state)

    def _resume(self, job: str, module: torch.nn.Module) -> None:
        """Take over the state that the same job kept, if there is one."""
        if self.checkpoint_dir is None:
            return
        state = load_state(self.checkpoint_dir)
        self.accelerator.wait_for_everyone()
        if state is None or (state.get("format"), state.get("job")) != (_FORMAT, job):
            return
        module.load_state_dict(state["module"])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state["optimizer"], "param_groups": groups})
        self.generator.set_state(state["generator"])
        for name in self._counters:
            setattr(self, name, state["counters"][name])


class Steps:
    """Results of a job's finished steps, a file each: the same job begins again with the first unfinished one.

    Parameters
    ----------
    folder : path or None
        Where to keep them; None keeps nothing.
    *job
        Everything that all the results depend on, for `fingerprint`.
    """

    def __init__(self, folder: str | Path | None, *job: Any) -> None:
        self.folder = folder
        self._job = None if folder is None else fingerprint(_FORMAT, *job)

    def result(self, name: str, make: Callable[[], dict[str, Any]], *depends: Any) -> dict[str, Any]:
        """Result of `make`: arrays and JSON values, kept under `name` until what they depend on changes."""
        if self.folder is None:
            return make()
        job, file = fingerprint(self._job, *depends), name + STEP_SUFFIX
        state = load_state(self.folder, file)
        if state is None or state.get("job") != job:
            state = {"job": job, "result": make()}
            save_state(self.folder, state, file)
        return state["result"]
