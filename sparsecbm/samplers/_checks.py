"""Checks of arguments that several modules of this room share; each raises a one-line ValueError.

Values are looked at only where they can be: not while a graph is traced (torch.compile, torch.export), nor inside
``torch.func.vmap``. There samplers carry NaN on to their result instead.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from typing import Any

import torch

Shape = int | Sequence[int]


class NotFiniteError(ValueError, ArithmeticError):
    """A value that is NaN or infinite where a number is needed; to whoever made it by arithmetic, an overflow."""


def transformed() -> bool:
    """Whether operations are traced, or a function transform or forward-mode differentiation is under way.

    Samplers then compose plain operations, out of place: PyTorch knows how to trace, batch and differentiate those.
    """
    return (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()
        or torch._C._are_functorch_transforms_active()
        or torch.autograd.forward_ad._current_level >= 0
    )


def readable(values: torch.Tensor) -> bool:
    """Whether values can be looked at: nothing is traced, nor batched by a transform."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    while torch._C._functorch.is_functorch_wrapped_tensor(values):
        if torch._C._functorch.is_batchedtensor(values):
            return False
        values = torch._C._functorch.get_unwrapped(values)
    return True


def first_bad(values: torch.Tensor, ok: torch.Tensor) -> float | None:
    """The first value that is not ok, None where all are or none can be looked at."""
    if not readable(ok) or bool(ok.all()):
        return None
    return values.detach()[~ok].reshape(-1)[0].item()


def check_floating(name: str, values: Any) -> torch.Tensor:
    """Return `values` after checking that they are a floating-point tensor."""
    if not isinstance(values, torch.Tensor):
        raise ValueError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    if not values.is_floating_point():
        raise ValueError(f"{name} must be floating-point, got a tensor of {values.dtype}")
    return values


def check_finite(name: str, values: torch.Tensor, advice: str = "") -> torch.Tensor:
    """Return `values` after checking that they are floating-point and finite."""
    bad = first_bad(check_floating(name, values), values.isfinite())
    if bad is not None:
        raise NotFiniteError(f"{name} must be finite, got {bad}{advice}")
    return values


def check_logits(logits: torch.Tensor) -> torch.Tensor:
    """Return `logits` after checking that they are floating-point and finite."""
    return check_finite("logits", logits, "; a large negative logit (such as -1e4) excludes an entry")


def check_probs(probs: torch.Tensor, below_one: bool) -> torch.Tensor:
    """Return `probs` after checking that they are finite, above 0 and, where asked, below 1."""
    check_floating("probs", probs)
    if below_one:
        bad = first_bad(probs, (probs > 0) & (probs < 1))
        rule = "lie strictly between 0 and 1, got {}; pass logits (such as 1e4) for near-certainty"
    else:
        bad = first_bad(probs, (probs > 0) & probs.isfinite())
        rule = "be finite and above 0, got {}; pass logits (such as -1e4) for near-impossibility"
    if bad is not None:
        raise ValueError("probs must " + rule.format(bad))
    return probs


def check_temperature(temperature: torch.Tensor | float, dtype: torch.dtype) -> None:
    """Check that a temperature, or each of many, is positive, and neither it nor its inverse overflows `dtype`."""
    if isinstance(temperature, torch.Tensor):
        values = temperature.to(torch.promote_types(temperature.dtype, torch.float32))
    else:
        values = torch.tensor(check_number("temperature", temperature), dtype=torch.float64)
    largest = torch.finfo(dtype).max
    bad = first_bad(values, (values > 0) & (values <= largest))
    if bad is not None:
        raise ValueError(f"temperature must be finite and above 0, got {bad}")
    bad = first_bad(values, values >= 1 / largest)
    if bad is not None:
        raise ValueError(f"temperature must be at least {1 / largest:.1e}, or its inverse overflows {dtype}, got {bad}")


def check_number(name: str, value: Any) -> float:
    """Return a real number, or a tensor of one element without gradient, as a float."""
    if isinstance(value, torch.Tensor) and value.requires_grad:
        raise ValueError(f"{name} must be a number: no gradient reaches it here, got a tensor that requires one")
    try:
        if isinstance(value, (bool, str)):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"{name} must be a number, got {value!r}") from None


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


def integer(value: Any) -> int | None:
    """`value` as an integer (Python's, NumPy's, a tensor's), None if it is none; true and false are none."""
    if isinstance(value, (int, torch.SymInt)):
        return None if isinstance(value, bool) else value  # type: ignore[return-value]
    if getattr(value, "dtype", None) == torch.bool:
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_count(name: str, value: Any, least: int = 1) -> int:
    """Return `value` as an int after checking that it is an integer of at least `least`."""
    count = integer(value)
    if count is None or count < least:
        raise ValueError(f"{name} must be an integer of at least {least}, got {value!r}")
    return count


def check_shape(shape: Any) -> tuple[int, ...]:
    """Return a shape after checking that it is one non-negative integer, or a sequence of them (traced ones too)."""
    one = integer(shape)
    sizes = (shape,) if one is not None or not isinstance(shape, Sequence) else tuple(shape)
    whole = tuple(size for size in map(integer, sizes) if size is not None and size >= 0)
    if len(whole) < len(sizes):
        raise ValueError(f"shape must be non-negative integers, got {sizes!r}")
    return whole


def check_generator(generator: Any) -> None:
    """Check that `generator` is a torch.Generator or None."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator or None, got {generator!r}")


def check_positive(name: str, value: Any) -> float:
    """Return `value` as a float after checking that it is finite and above 0."""
    number = check_number(name, value)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(f"{name} must be finite and above 0, got {value}")
    return number
