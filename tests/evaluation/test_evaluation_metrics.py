"""Metrics against scikit-learn and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from sparsecbm._base.errors import InputError
from sparsecbm.evaluation import (
    active_concepts,
    classification_metrics,
    concept_auc,
    concept_reliability,
    expected_calibration_error,
    name_alignment,
    paired_bootstrap,
)


def test_classification_metrics_by_hand():
    proba = np.array([[0.7, 0.2, 0.1], [0.3, 0.4, 0.3], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
    y = np.array([0, 1, 2, 0])
    got = classification_metrics(y, proba)
    assert got["accuracy"] == 0.5
    assert "top_5_accuracy" not in got
    assert got["balanced_accuracy"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert got["log_loss"] == pytest.approx(-np.log([0.7, 0.4, 0.3, 0.1]).mean())
    assert got["ece"] == pytest.approx((0.3 + 0.6 + 0.5 + 0.6) / 4)
    six = classification_metrics([5, 0], [[0.3, 0.25, 0.2, 0.15, 0.06, 0.04], [0.3, 0.25, 0.2, 0.15, 0.06, 0.04]])
    assert six["top_5_accuracy"] == 0.5


def test_calibration_error_of_calibrated_and_of_overconfident_probabilities():
    rng = np.random.default_rng(0)
    proba = softmax(2 * rng.normal(size=(40_000, 5)), axis=1)
    y = (proba.cumsum(1) > rng.random((40_000, 1))).argmax(1)
    assert expected_calibration_error(y, proba) < 0.015
    sure = np.full((1000, 2), [1.0, 0.0])
    assert expected_calibration_error(np.arange(1000) % 4 > 0, sure) == pytest.approx(0.75)


@settings(max_examples=60)
@given(arrays(np.float64, (20, 3), elements=st.sampled_from([-1.5, 0.0, 0.5, 2.0])), st.integers(0, 10**6))
def test_concept_auc_equals_scikit_learn_with_ties(A, seed):
    truth = np.random.default_rng(seed).random((20, 3)) < 0.4
    mean, per_concept = concept_auc(A, truth)
    for j in range(3):
        if truth[:, j].all() or not truth[:, j].any():
            assert np.isnan(per_concept[j])
        else:
            assert per_concept[j] == pytest.approx(roc_auc_score(truth[:, j], A[:, j]))
    assert mean == pytest.approx(np.nanmean(per_concept))


def test_name_alignment_is_correlation_and_constant_units_count_as_zero():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(200, 4))
    units = np.column_stack([3 * scores[:, 0] + 2, -scores[:, 1], rng.normal(size=200), np.full(200, 0.1)])
    found = name_alignment(units, scores)
    expected = [1, -1, np.corrcoef(units[:, 2], scores[:, 2])[0, 1], 0]
    np.testing.assert_allclose(found.per_unit, expected, atol=1e-12)
    assert found.mean == pytest.approx(np.mean(expected))
    assert name_alignment(units.astype(np.float32), scores).per_unit[3] == 0


def test_active_concepts_counts_exact_zeros_only():
    A = np.array([[1e-30, 0.0, -2.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert active_concepts(A) == {"mean": 1.0, "max": 2, "zero_share": 0.75, "never": 2}


def test_paired_bootstrap_covers_and_detects():
    rng = np.random.default_rng(0)
    inside = 0
    for seed in range(120):
        first, second = rng.random(300) < 0.8, rng.random(300) < 0.75
        found = paired_bootstrap(first, second, n_resamples=400, random_state=seed)
        inside += found["low"] <= 0.05 <= found["high"]
    # 95% of 120 is 114; fewer than 104 has probability below 1e-4.
    assert inside >= 104
    clear = paired_bootstrap(np.ones(100), np.r_[np.ones(70), np.zeros(30)])
    assert clear["difference"] == pytest.approx(0.3)
    assert clear["low"] > 0.2
    assert clear["p_value"] <= 0.001
    assert paired_bootstrap([1, 0, 1], [1, 0, 1])["p_value"] == 1.0
    assert clear == paired_bootstrap(np.ones(100), np.r_[np.ones(70), np.zeros(30)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: classification_metrics([0], [[2.0, -1.0]]), "not probabilities"),
        (lambda: classification_metrics([2], [[0.5, 0.5]]), "1 of 0 to 1"),
        (lambda: classification_metrics([0, 1], [[0.5, 0.5]]), "a label a row"),
        (lambda: active_concepts([[np.nan]]), "NaN"),
        (lambda: name_alignment(np.ones((3, 2)), np.ones((3, 3))), "same shape"),
        (lambda: concept_auc(np.ones((3, 2)), np.full((3, 2), 0.5)), "booleans"),
        (lambda: paired_bootstrap([1], [1, 0]), "same images"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_reliability_of_concepts_is_the_calibration_of_their_presence_where_it_is_known():
    rng = np.random.default_rng(0)
    p = rng.random((200, 3))
    truth = (rng.random((200, 3)) < p).astype(float)
    truth[:150, 1] = np.nan
    truth[:, 2] = np.nan
    found = concept_reliability(truth, p, ["a", "b", "c"])
    assert list(found["each"]) == ["a", "b"]
    assert found["each"]["b"]["labelled"] == 50
    assert found["each"]["b"]["auc"] == pytest.approx(roc_auc_score(truth[150:, 1], p[150:, 1]))
    gaps = [abs((truth[:, 0] - p[:, 0])[(p[:, 0] * 15).astype(int) == b].sum()) for b in range(15)]
    assert found["each"]["a"]["ece"] == pytest.approx(sum(gaps) / 200)
    assert sum(count for *_, count in found["bins"]) == 250
