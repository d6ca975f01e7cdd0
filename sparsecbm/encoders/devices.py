"""Where an encoder runs and in which precision."""

from __future__ import annotations

import os

import torch

from sparsecbm._base.errors import InputError, unknown

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def resolve_device(device: str | torch.device = "auto") -> torch.device:
    """Return the device to use; ``"auto"`` is this process's GPU if there is one, else the CPU.

    Parameters
    ----------
    device : str or torch.device
        ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or a `torch.device`. Under ``accelerate launch``,
        ``"auto"`` is the GPU of the local rank, and the CPU with ``--cpu``.

    Raises
    ------
    InputError
        If the device does not exist on this machine.
    """
    if str(device) == "auto":
        if os.environ.get("ACCELERATE_USE_CPU", "").lower() in {"1", "true", "yes"}:
            return torch.device("cpu")
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise unknown("device", device, ("auto", "cpu", "cuda", "mps")) from error
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(device)!r} is not there: this machine offers {torch.cuda.device_count()} CUDA devices; "
            "use device='auto' or 'cpu'"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {str(device)!r} is not there: use device='auto' or 'cpu'")
    return chosen


def resolve_precision(precision: str, device: torch.device) -> str:
    """Return the precision of the forward pass; ``"auto"`` is float32 on a CPU and 16-bit autocast on a GPU.

    Parameters
    ----------
    precision : {"auto", "float32", "bfloat16", "float16"}
        Anything but float32 runs under autocast: weights and results stay float32.
    device : torch.device
        Where the encoder runs.

    Raises
    ------
    InputError
        If the precision is unknown, or is float16 on a CPU.
    """
    if precision == "auto":
        if device.type != "cuda":
            return "float32"
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    if precision not in PRECISIONS:
        raise unknown("precision", precision, ("auto", *PRECISIONS))
    if precision == "float16" and device.type == "cpu":
        raise InputError("precision 'float16' is not for a CPU: use 'auto', 'float32' or 'bfloat16'")
    return precision
