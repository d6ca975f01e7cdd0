"""Checks of arguments that several modules of this room share; each raises a one-line ValueError."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


def check_betas(betas: torch.Tensor | Sequence[float]) -> torch.Tensor:
    """Return inverse temperatures as float64 after checking that they rise strictly from 0 to 1."""
    values = torch.as_tensor(betas, dtype=torch.float64).cpu()
    if values.dim() != 1 or values.numel() < 2:
        raise ValueError(f"betas must be a vector of at least two values, got shape {tuple(values.shape)}")
    if values[0] != 0 or values[-1] != 1:
        raise ValueError(f"betas must rise from 0 to 1, got {values[0].item():g} to {values[-1].item():g}")
    steps = values.diff()
    if not (steps > 0).all():
        at = int((~(steps > 0)).nonzero()[0])
        raise ValueError(
            f"betas must rise strictly from 0 to 1, got {values[at].item():g} then {values[at + 1].item():g}"
            f" at positions {at} and {at + 1}; torch.linspace(0, 1, steps) does"
        )
    return values


def check_count(name: str, value: int, least: int = 1) -> int:
    """Return `value` after checking that it is an integer of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return value


def check_positive(name: str, value: float) -> float:
    """Return `value` as a float after checking that it is finite and above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be finite and above 0, got {value}")
    return float(value)
