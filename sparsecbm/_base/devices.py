"""Where things run: one reading of a device's name for encoders, training and inference."""

from __future__ import annotations

import os

import torch

from sparsecbm._base.errors import InputError, unknown


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
        If the device is of another kind, or does not exist on this machine.
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
    if chosen.type not in ("cpu", "cuda", "mps"):  # "meta" has no numbers; others nobody has tried
        raise unknown("device", device, ("auto", "cpu", "cuda", "mps"))
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(device)!r} is not there: this machine offers {torch.cuda.device_count()} CUDA devices; "
            "use device='auto' or 'cpu'"
        )
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device {str(device)!r} is not there: use device='auto' or 'cpu'")
    return chosen


def inference_device(device: str | torch.device) -> torch.device:
    """Return where a fitted model computes: the device it was told, else the CPU, where it predicts the same.

    A model that learned on a GPU is used on machines without one; and units are sums in float64, which MPS has not.
    """
    try:
        chosen = resolve_device(device)
    except InputError:
        return torch.device("cpu")
    return torch.device("cpu") if chosen.type == "mps" else chosen
