"""State in one safetensors file: tensors by flattened name, everything else as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from sparsecbm._errors import StoredFileError
from sparsecbm._files import atomic_path

FILE_NAME = "training.safetensors"


def _flatten(prefix: str, value: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(value, torch.Tensor):
        tensors[prefix] = value.detach().cpu().contiguous().clone()
        return {"tensor": prefix}
    if isinstance(value, dict):
        return {"dict": [[key, _flatten(f"{prefix}/{key}", item, tensors)] for key, item in value.items()]}
    if isinstance(value, (list, tuple)):
        return {"list": [_flatten(f"{prefix}/{i}", item, tensors) for i, item in enumerate(value)]}
    return {"value": value}


def _rebuild(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    ((kind, content),) = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: _rebuild(item, tensors) for key, item in content}
    if kind == "list":
        return [_rebuild(item, tensors) for item in content]
    return content


def save_state(folder: str | Path, state: dict[str, Any]) -> None:
    """Write a nested state of dicts, lists, tensors and JSON values; beside first, then renamed.

    Raises
    ------
    StoredFileError
        If the folder cannot be written.
    """
    from safetensors.torch import save_file

    tensors: dict[str, torch.Tensor] = {}
    tree = _flatten("state", state, tensors)
    with atomic_path(Path(folder) / FILE_NAME) as temporary:
        save_file(tensors, temporary, metadata={"tree": json.dumps(tree)})


def load_state(folder: str | Path) -> dict[str, Any] | None:
    """Read what `save_state` wrote; None if there is no checkpoint.

    Raises
    ------
    StoredFileError
        If the file is damaged or not a checkpoint.
    """
    from safetensors import safe_open

    path = Path(folder) / FILE_NAME
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
            f"checkpoint {str(path)!r} is damaged or foreign ({reason}); delete it to start training afresh"
        ) from error
