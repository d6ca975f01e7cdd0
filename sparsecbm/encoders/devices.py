"""In which precision an encoder runs."""

from __future__ import annotations

import torch

from sparsecbm._base.errors import InputError, unknown

PRECISIONS: dict[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


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
