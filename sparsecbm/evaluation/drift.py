"""Have the concepts of a model moved? New pictures against those it was measured on, concept by concept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError

SMALL = 0.2
"""Effects below this are called small (Cohen 1988), whatever their significance."""


class ConceptStatistics(NamedTuple):
    """What is kept of pictures, a number a concept: all that a comparison needs.

    Attributes
    ----------
    n : int
        Pictures.
    active : ndarray of int64, shape (M,)
        In how many of them the concept is active.
    mean, variance : ndarray of float64, shape (M,)
        Of its standardised scores.
    """

    n: int
    active: NDArray[np.int64]
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def of(cls, activations: ArrayLike, scores: ArrayLike) -> ConceptStatistics:
        """Measure activations and standardised scores, both (n, M)."""
        active, held = np.asarray(activations) != 0, np.asarray(scores, dtype=np.float64)
        return cls(len(held), active.sum(axis=0), held.mean(axis=0), held.var(axis=0))

    def with_more(self, other: ConceptStatistics) -> ConceptStatistics:
        """Statistics of both together, so that pictures may be read some at a time."""
        n = self.n + other.n
        mean = (self.n * self.mean + other.n * other.mean) / n
        between = self.n * (self.mean - mean) ** 2 + other.n * (other.mean - mean) ** 2
        return ConceptStatistics(
            n, self.active + other.active, mean, (self.n * self.variance + other.n * other.variance + between) / n
        )


@dataclass(frozen=True)
class ConceptDrift:
    """How far one concept has moved.

    Attributes
    ----------
    concept : str
    share_before, share_now : float
        Of the pictures it is active in.
    usage : float
        Cohen's h of the two shares: 0.2 is small, 0.5 medium, 0.8 large.
    score : float
        Difference of the mean score in standard deviations of then (Glass's delta).
    p : float
        The smaller of both tests' p-values (shares: normal with pooled variance; means: Welch), times 2 M, the number
        of tests, at most 1: the chance that any concept looks so moved though none is (Bonferroni).
    """

    concept: str
    share_before: float
    share_now: float
    usage: float
    score: float
    p: float

    @property
    def size(self) -> float:
        """The larger of both effects, without sign."""
        return max(abs(self.usage), abs(self.score))


def concept_drift(names: list[str], before: ConceptStatistics, now: ConceptStatistics) -> list[ConceptDrift]:
    """Compare two sets of pictures concept by concept, the largest effect first.

    Raises
    ------
    InputError
        If either has fewer than two pictures, or the numbers of concepts differ.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> then, later = rng.normal(size=(500, 2)), rng.normal(size=(200, 2)) + [1.0, 0.0]
    >>> stats = [ConceptStatistics.of(np.maximum(x - 1, 0), x) for x in (then, later)]
    >>> [(row.concept, row.p < 0.05) for row in concept_drift(["crest", "tail"], *stats)]
    [('crest', True), ('tail', False)]
    """
    from scipy.special import ndtr

    if min(before.n, now.n) < 2:
        raise InputError(f"{before.n} and {now.n} pictures: expected at least two of each")
    if not len(names) == len(before.mean) == len(now.mean):
        raise InputError(f"{len(before.mean)} and {len(now.mean)} statistics for {len(names)} concepts")
    then, later = before.active / before.n, now.active / now.n
    pooled = (before.active + now.active) / (before.n + now.n)
    error = np.sqrt(pooled * (1 - pooled) * (1 / before.n + 1 / now.n))
    usage = 2 * (np.arcsin(np.sqrt(later)) - np.arcsin(np.sqrt(then)))
    moved = now.mean - before.mean
    noise = np.sqrt(before.variance / (before.n - 1) + now.variance / (now.n - 1))
    z = np.maximum(np.abs(later - then) / np.maximum(error, 1e-300), np.abs(moved) / np.maximum(noise, 1e-300))
    p = np.minimum(1.0, 2 * ndtr(-z) * 2 * len(names))
    score = moved / np.sqrt(np.maximum(before.variance, 1e-300))
    rows = zip(names, then, later, usage, score, p)
    return sorted((ConceptDrift(name, *map(float, row)) for name, *row in rows), key=lambda row: -row.size)
