"""A ledger as the lines that text, pages and pictures show: plain values, already chosen and summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image


class Place(NamedTuple):
    """Where a line's value comes from: cells of the picture (h, w), and a rest without a place; they sum to it."""

    grid: NDArray[np.float64]
    rest: float

    @property
    def placed(self) -> float:
        """What the cells sum to."""
        return float(self.grid.sum())


class Line(NamedTuple):
    """One line: a concept, the sum of those not shown (``"rest"``), or the bias."""

    name: str
    value: float
    kind: Literal["concept", "rest", "bias"]
    detail: str
    place: Place | None = None


@dataclass(frozen=True, eq=False)
class Account:
    """Lines that add up to a score, and what is said above them; made by `Ledger.lines`.

    Attributes
    ----------
    lines : tuple of Line
        Concepts, largest absolute value first; what is left of them; the bias.
    score : float
        Their sum.
    target, against : str, str or None
        Whose score, or rather than whose.
    question : str
        What the lines answer.
    probability : float or None
        Of the target, in [0, 1].
    source, truth : str or None
        What was looked at, and its true class.
    place : Place or None
        Where the score comes from, if its maps were made.
    picture : PIL.Image.Image or None
        What the cells lie over.
    """

    lines: tuple[Line, ...]
    score: float
    target: str
    against: str | None
    question: str
    probability: float | None
    source: str | None
    truth: str | None
    place: Place | None = None
    picture: Image | None = None
