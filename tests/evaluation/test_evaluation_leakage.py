"""Planted leaks are found; clean activations raise no alarm more often than promised."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import roc_auc_score

from sparsecbm._base.errors import InputError
from sparsecbm.evaluation import leakage

SEEDS = 60


def draw(seed: int, leak: float = 0.0, spread: bool = False, uneven: bool = False):
    """Images of 8 classes with 12 attributes that vary within a class; activations see only the attributes."""
    rng = np.random.default_rng(seed)
    y = rng.integers(8, size=400)
    signature = rng.random((8, 12))
    attributes = rng.random((400, 12)) < signature[y]
    noise = rng.normal(size=(400, 12))
    if uneven:  # exact zeros where the concept is absent, heavy tails where it is present
        A = np.where(attributes, 1 + np.abs(rng.standard_t(4, size=(400, 12))), np.maximum(noise - 1, 0))
    else:
        A = 1.5 * attributes + noise
    directions = rng.normal(size=(8, 12))
    leaking = np.arange(12) if spread else np.array([3])
    A[:, leaking] += leak * directions[y][:, leaking]
    return A, attributes, y


def test_planted_leaks_are_told_from_clean_activations():
    clean = [leakage(*draw(seed), n_permutations=99, information=False).score for seed in range(SEEDS)]
    for leak, spread in ((0.5, False), (0.2, True)):
        planted = [
            leakage(*draw(1000 + seed, leak, spread), n_permutations=99, information=False).score
            for seed in range(SEEDS)
        ]
        auc = roc_auc_score(np.r_[np.zeros(SEEDS), np.ones(SEEDS)], np.r_[clean, planted])
        assert auc >= 0.95, (leak, spread, auc)


@pytest.mark.parametrize("uneven", [False, True])
def test_no_alarm_on_clean_activations_in_95_percent_of_seeds(uneven):
    reports = [
        leakage(*draw(5000 + seed, uneven=uneven), n_permutations=199, information=False) for seed in range(2 * SEEDS)
    ]
    alarms = sum(report.alarm for report in reports)
    # Not above what a 5% test may give: more has probability below 0.1%.
    assert alarms <= binom.ppf(0.999, 2 * SEEDS, 0.05)
    assert np.mean(np.concatenate([report.per_unit for report in reports])) == pytest.approx(0, abs=3e-3)


def test_the_leaking_unit_is_named_and_priced():
    report = leakage(*draw(7, leak=3.0), random_state=1)
    assert report.alarm
    assert report.leaking_units.tolist() == [3]
    assert report.per_unit.argmax() == 3
    assert report.per_unit[3] > 0.2
    assert report.nats > 0.1
    clean = leakage(*draw(7), random_state=1)
    assert not clean.alarm
    assert clean.nats < 0.05
    assert report.accuracy_activations > clean.accuracy_activations
    assert report.accuracy_concepts == clean.accuracy_concepts
    assert report.summary()["leaking_units"] == 1


def test_exact_functions_of_the_concepts_and_constant_units_do_not_leak():
    _, attributes, y = draw(2)
    A = np.column_stack([3.0 * attributes - 1, np.zeros(len(y)), attributes @ np.ones(12)])
    report = leakage(A, attributes, y, n_permutations=99, information=False)
    assert report.p_value == 1.0
    assert (report.unit_p_values == 1).all()
    determined = leakage(*(draw(2)[0], np.eye(8)[y], y), n_permutations=99, information=False)
    assert determined.p_value == 1.0  # the class is itself among the concepts


def test_same_seed_same_report():
    first, second = (leakage(*draw(4, 0.3), random_state=9) for _ in range(2))
    assert first.summary() == second.summary()


def test_bad_input_is_named():
    A, attributes, y = draw(0)
    with pytest.raises(InputError, match="one row an image"):
        leakage(A[:5], attributes, y)
    with pytest.raises(InputError, match="too few"):
        leakage(A[:20], attributes[:20], y[:20])
    with pytest.raises(InputError, match="NaN"):
        leakage(np.full(A.shape, np.nan), attributes, y)
    with pytest.raises(InputError, match="three images"):
        leakage(A, attributes, np.r_[99, y[1:]])
