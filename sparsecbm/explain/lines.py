"""A ledger as the lines that text, pages and pictures show: plain values, already chosen and summed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Line(NamedTuple):
    """One line: a concept, the sum of those not shown (``"rest"``), or the bias."""

    name: str
    value: float
    kind: Literal["concept", "rest", "bias"]
    detail: str


@dataclass(frozen=True)
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
    """

    lines: tuple[Line, ...]
    score: float
    target: str
    against: str | None
    question: str
    probability: float | None
    source: str | None
    truth: str | None
