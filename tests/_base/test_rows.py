"""Unit rows are right for every length and type that numbers can have, and each row decides for itself."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from sparsecbm._base import rows as module
from sparsecbm._base.errors import InputError
from sparsecbm._base.rows import as_numpy, check_scale, row_divisors, row_lengths, unit_rows


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(9, 5))


@pytest.mark.parametrize("scale", [5e-324, 1e-310, 1e-200, 1e-30, 1e-19, 1.0, 1e19, 1e150, 1e200, 1e306])
def test_any_length_gives_the_same_directions(scale, rows):
    scaled = np.round(rows * 8) * scale
    expected = np.round(rows * 8)
    expected /= np.sqrt((expected**2).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(unit_rows(scaled, "rows"), expected, rtol=1e-14, atol=1e-16)


@pytest.mark.parametrize(
    ("dtype", "scale", "close"),
    [(np.float32, 1e19, 1e-6), (np.float32, 1e-30, 1e-6), (np.float32, 1e-44, 0.2), (np.float16, 1e3, 2e-3)],
)
def test_squares_that_overflow_or_vanish_in_narrow_types(dtype, scale, close, rows):
    narrow = (rows * scale).astype(dtype)
    unit = unit_rows(narrow, "rows")
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(unit.astype(np.float64), axis=1), 1, atol=1e-6)
    exact = narrow.astype(np.float64) / np.linalg.norm(narrow.astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(unit, exact, atol=1e-7)
    np.testing.assert_allclose(unit, unit_rows(rows), atol=close)


def test_tensors_of_any_type(rows):
    import torch

    tensor = torch.tensor(rows, requires_grad=True)
    np.testing.assert_array_equal(unit_rows(tensor), unit_rows(rows))
    brain = tensor.bfloat16()
    np.testing.assert_array_equal(as_numpy(brain), brain.detach().float().numpy())
    np.testing.assert_array_equal(unit_rows(brain), unit_rows(brain.detach().float().numpy()))
    assert as_numpy("no tensor") == "no tensor"


def test_zero_rows_are_refused_where_they_come_in_and_stay_zero_inside(rows):
    rows[3] = 0
    rows[7] = 1e-13
    with pytest.raises(InputError, match=r"^reds: row 13 \('c'\) is a zero vector \(1 in all\)"):
        unit_rows(rows, "reds", names=[*"a" * 13, "c"], first=10)
    unit = unit_rows(rows, floor=1e-12)
    assert not unit[[3, 7]].any()
    assert unit_rows(rows)[7].any()
    assert not unit_rows(np.zeros((2, 3)), floor=1e-12).any()
    assert unit_rows(np.zeros((0, 3)), "none").shape == (0, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value, rows):
    rows[2, 1] = value
    with pytest.raises(InputError, match="rows: row 2 holds NaN or infinity"):
        unit_rows(rows, "rows")
    assert np.isnan(row_lengths(rows)).tolist() == [i == 2 for i in range(9)]


def test_a_row_does_not_depend_on_its_neighbours(rows):
    near = unit_rows(rows).astype(np.float32)
    near[4] *= 1.0004
    assert unit_rows(near, "rows", tolerance=1e-3) is near
    assert row_divisors(near, "rows", 1e-3) is None
    beside = np.concatenate([near, rows.astype(np.float32)[:1] * 7])
    np.testing.assert_array_equal(unit_rows(beside, "rows", tolerance=1e-3)[:-1], near)
    assert row_divisors(beside, "rows", 1e-3)[:-1].tolist() == [1.0] * 9


def test_lengths_of_many_rows_are_read_in_pieces(monkeypatch, rows):
    monkeypatch.setattr(module, "_BLOCK", 2)
    np.testing.assert_allclose(row_lengths(rows.astype(np.float32)), np.linalg.norm(rows, axis=1), rtol=1e-6)
    np.testing.assert_array_equal(unit_rows(rows), np.concatenate([unit_rows(row[None]) for row in rows]))
    rows[7] = 0
    with pytest.raises(InputError, match="row 7"):
        unit_rows(rows, "rows")


def test_sizes_at_which_sums_of_squares_fail_are_refused(rows):
    check_scale(rows, "X", 1e-100, 1e100)
    check_scale(rows * 0, "X", 1e-100, 1e100)
    for scale in (1e-200, 1e200):
        with pytest.raises(InputError, match=r"X: its largest number is .*e[+-]\d+: expected between 1e-100 and 1e"):
            check_scale(rows * scale, "X", 1e-100, 1e100)


def test_docstring_examples():
    assert doctest.testmod(module).failed == 0
