"""Temperature schedules."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsecbm.samplers.schedules import SCHEDULES, ExponentialSchedule, TemperatureSchedule, make_schedule


@pytest.mark.parametrize("name", SCHEDULES)
def test_never_rises_and_reaches_its_end(name):
    schedule = make_schedule(name)
    values = [schedule.at(step) for step in range(0, 30_000, 100)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(values))
    if name != "constant":
        assert values[0] == 1.0
        assert values[-1] == pytest.approx(0.5)


@given(step=st.integers(0, 10**6), every=st.integers(1, 2000))
def test_jang_annealing(step, every):
    schedule = ExponentialSchedule(start=1.0, floor=0.5, rate=3e-5, every=every)
    assert schedule.at(step) == pytest.approx(max(0.5, math.exp(-3e-5 * every * (step // every))), rel=1e-12)


def test_temperatures_stay_positive():
    for options in ({"start": 0.0}, {"start": math.nan}, {"start": -1.0}):
        for name in SCHEDULES:
            with pytest.raises(ValueError, match="start must be finite and above 0"):
                make_schedule(name, **options)
    with pytest.raises(ValueError, match="floor must be finite and above 0, got 0"):
        make_schedule("exponential", floor=0.0)
    with pytest.raises(ValueError, match="every must be an integer of at least 1, got 0"):
        make_schedule("exponential", every=0)


def test_bad_input():
    with pytest.raises(ValueError, match="unknown temperature schedule 'cosin'; known: constant, cosine"):
        make_schedule("cosin")
    with pytest.raises(ValueError, match=r"steps must be an integer of at least 1, got 2\.5"):
        make_schedule("cosine", steps=2.5)
    with pytest.raises(NotImplementedError):
        TemperatureSchedule().at(0)
