"""Temperature schedules: a function of the step, :meth:`TemperatureSchedule.at`; a training's step is all its state."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

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
    """What every schedule shares: temperatures and rates are positive, steps counted. Subclasses say :meth:`at`."""

    def __post_init__(self) -> None:
        for field in fields(self):
            check = check_count if field.name in ("every", "steps") else check_positive
            setattr(self, field.name, check(field.name, getattr(self, field.name)))

    def at(self, step: int) -> float:
        """Return the temperature of `step` (0, 1, ...)."""
        raise NotImplementedError


@dataclass
class ConstantSchedule(TemperatureSchedule):
    """One temperature throughout."""

    start: float = 2 / 3

    def at(self, step: int) -> float:
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

    def at(self, step: int) -> float:
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

    def at(self, step: int) -> float:
        share = self._share(min(1.0, step / self.steps))
        return (1 - share) * self.start + share * self.end

    def _share(self, passed: float) -> float:
        return passed


@dataclass
class CosineSchedule(LinearSchedule):
    """Half a cosine from `start` to `end` over `steps` steps, then `end`."""

    def _share(self, passed: float) -> float:
        return (1 - math.cos(math.pi * passed)) / 2


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
