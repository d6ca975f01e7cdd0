"""Drift: effects as defined, chance held at its level, statistics that add up."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.evaluation.drift import ConceptStatistics, concept_drift


def statistics(scores: np.ndarray) -> ConceptStatistics:
    return ConceptStatistics.of(np.maximum(scores - 0.5, 0), scores)


def test_statistics_of_parts_are_those_of_the_whole(rng) -> None:
    X = rng.normal(size=(90, 4))
    whole, parts = statistics(X), statistics(X[:20]).with_more(statistics(X[20:]))
    assert parts.n == whole.n
    for name in ("active", "mean", "variance"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-12)


def test_chance_moves_nothing_more_often_than_said(rng) -> None:
    """Of 200 comparisons without any drift, about one in twenty may flag some concept."""
    flagged = sum(
        min(row.p for row in concept_drift(list("abcdefgh"), statistics(a), statistics(b))) < 0.05
        for a, b in ((rng.normal(size=(300, 8)), rng.normal(size=(200, 8))) for _ in range(200))
    )
    assert flagged <= 20  # 10 expected at most; 20 is three standard deviations above


def test_a_shift_of_half_a_deviation_is_found_and_measured(rng) -> None:
    before, now = statistics(rng.normal(size=(2000, 3))), statistics(rng.normal([0.0, 0.5, 0.0], size=(2000, 3)))
    first, *others = concept_drift(["a", "b", "c"], before, now)
    assert first.concept == "b"
    assert first.score == pytest.approx(0.5, abs=0.1)
    assert first.p < 1e-6
    assert first.usage == pytest.approx(2 * (np.arcsin(np.sqrt(0.5)) - np.arcsin(np.sqrt(0.3085))), abs=0.1)
    assert max(row.size for row in others) < 0.15
    with pytest.raises(InputError, match="at least two"):
        concept_drift(["a"], statistics(np.zeros((1, 1))), statistics(np.zeros((5, 1))))
