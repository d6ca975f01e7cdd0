"""Temperature schedules: a value for each step, and a counter that survives a checkpoint.

A schedule is a function of the step (:meth:`TemperatureSchedule.at`) with a counter of its own (`value`, `advance`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from sparsecbm.samplers._checks import check_count, check_positive

__all__ = [
    "SCHEDULES",
    "ConstantSchedule",
    "CosineSchedule",
    "ExponentialSchedule",
    "LinearSchedule",
    "TemperatureSchedule",
    "make_schedule",
]


@dataclass
class TemperatureSchedule:
    """What every schedule shares. Subclasses say in :meth:`at` what the temperature of a step is."""

    step: int = field(default=0, init=False)

    def at(self, step: int) -> float:
        """Return the temperature of `step` (0, 1, ...), without moving the counter."""
        raise NotImplementedError

    @property
    def value(self) -> float:
        """Temperature of the current step."""
        return self.at(self.step)

    def advance(self, steps: int = 1) -> float:
        """Move the counter on by `steps` and return the new temperature."""
        self.step += check_count("steps", steps, 0)
        return self.value

    def state_dict(self) -> dict[str, int]:
        """Return the counter, for a checkpoint."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Take the counter from a checkpoint."""
        if set(state) != {"step"}:
            raise ValueError(f"schedule state must hold exactly 'step', got {sorted(state)}")
        self.step = check_count("step", state["step"], 0)


@dataclass
class ConstantSchedule(TemperatureSchedule):
    """One temperature throughout.

    Examples
    --------
    >>> ConstantSchedule(0.5).at(1000)
    0.5
    """

    start: float = 2 / 3

    def __post_init__(self) -> None:
        check_positive("start", self.start)

    def at(self, step: int) -> float:
        """Return `start`."""
        return self.start


@dataclass
class ExponentialSchedule(TemperatureSchedule):
    """``max(floor, start * exp(-rate * step))``, held between updates `every` steps apart (Jang et al. 2017, section
    4).

    Examples
    --------
    >>> schedule = ExponentialSchedule(start=1.0, floor=0.5, rate=1e-3, every=500)
    >>> [round(schedule.at(s), 3) for s in (0, 499, 500, 10_000)]
    [1.0, 1.0, 0.607, 0.5]
    """

    start: float = 1.0
    floor: float = 0.5
    rate: float = 1e-4
    every: int = 1

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_positive("floor", self.floor)
        check_positive("rate", self.rate)
        check_count("every", self.every)

    def at(self, step: int) -> float:
        """Return the temperature of `step`."""
        return max(self.floor, self.start * math.exp(-self.rate * (step // self.every * self.every)))


@dataclass
class LinearSchedule(TemperatureSchedule):
    """A straight line from `start` to `end` over `steps` steps, then `end`.

    Examples
    --------
    >>> LinearSchedule(start=1.0, end=0.5, steps=100).at(50)
    0.75
    """

    start: float = 1.0
    end: float = 0.5
    steps: int = 10_000

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_positive("end", self.end)
        check_count("steps", self.steps)

    def at(self, step: int) -> float:
        """Return the temperature of `step`."""
        share = min(1.0, step / self.steps)
        return (1 - share) * self.start + share * self.end


@dataclass
class CosineSchedule(TemperatureSchedule):
    """Half a cosine from `start` to `end` over `steps` steps, then `end`.

    Examples
    --------
    >>> round(CosineSchedule(start=1.0, end=0.5, steps=100).at(50), 6)
    0.75
    """

    start: float = 1.0
    end: float = 0.5
    steps: int = 10_000

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        check_positive("end", self.end)
        check_count("steps", self.steps)

    def at(self, step: int) -> float:
        """Return the temperature of `step`."""
        share = min(1.0, step / self.steps)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2


SCHEDULES: dict[str, type[TemperatureSchedule]] = {
    "constant": ConstantSchedule,
    "exponential": ExponentialSchedule,
    "linear": LinearSchedule,
    "cosine": CosineSchedule,
}
"""Schedules by the name that configurations use."""


def make_schedule(name: str, **options: float) -> TemperatureSchedule:
    """Return the schedule called `name` with its options.

    Raises
    ------
    ValueError
        If the name is not in :data:`SCHEDULES`.
    """
    if name not in SCHEDULES:
        raise ValueError(f"unknown temperature schedule {name!r}; known: {', '.join(sorted(SCHEDULES))}")
    return SCHEDULES[name](**options)
