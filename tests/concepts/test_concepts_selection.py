"""Selection: the greedy choice against enumeration, its guarantee, its bound, its ties."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsecbm._base.errors import InputError
from sparsecbm.concepts.selection import coverage, select_covering


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), k=st.integers(1, 6), m=st.integers(1, 8), times=st.integers(1, 3), data=st.data())
def test_reaches_its_share_of_the_best_choice(seed: int, k: int, m: int, times: int, data) -> None:
    size = data.draw(st.integers(1, m))
    rng = np.random.default_rng(seed)
    relevance = rng.uniform(size=(k, m)) * (rng.uniform(size=(k, m)) > 0.4)
    weights = rng.uniform(size=k)
    found = select_covering(relevance, size, times=times, weights=weights)
    options = {"times": times, "weights": weights}
    best = max(coverage(relevance, chosen, **options) for chosen in combinations(range(m), size))
    assert len(set(found.indices)) == size
    assert found.value == pytest.approx(coverage(relevance, found.indices, **options))
    assert found.value >= (1 - np.exp(-1)) * best - 1e-12
    assert found.upper_bound >= best - 1e-12
    assert found.value >= found.guarantee * best - 1e-12
    assert all(a >= b - 1e-12 for a, b in zip(found.gains, found.gains[1:]))


def test_is_the_greedy_choice_and_its_prefixes_are_smaller_choices() -> None:
    rng = np.random.default_rng(0)
    relevance = rng.uniform(size=(15, 40))
    found = select_covering(relevance, 10)
    chosen: list[int] = []
    for _ in range(10):
        values = [coverage(relevance, [*chosen, j]) if j not in chosen else -1.0 for j in range(40)]
        chosen.append(int(np.argmax(values)))
    assert list(found.indices) == chosen
    assert select_covering(relevance, 4).indices == found.indices[:4]


def test_covers_every_class_so_many_times() -> None:
    relevance = np.kron(np.eye(4), np.ones((1, 3)))  # three concepts a class
    assert sorted(j // 3 for j in select_covering(relevance, 4).indices) == [0, 1, 2, 3]
    assert sorted(j // 3 for j in select_covering(relevance, 8, times=2).indices) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert select_covering(relevance, 4).guarantee == 1.0
    assert select_covering(relevance, 1).indices == (0,)  # ties: the first


@pytest.mark.parametrize(
    ("relevance", "options", "match"),
    [
        ([[1.0, -1.0]], {"size": 1}, r"relevance\[0, 1\] is -1.0"),
        ([[1.0, np.nan]], {"size": 1}, r"relevance\[0, 1\] is nan"),
        ([1.0], {"size": 1}, "shape"),
        ([[1.0, 1.0]], {"size": 3}, "size=3: expected 1 to 2"),
        ([[1.0, 1.0]], {"size": 1, "times": 0}, "times=0"),
        ([[1.0, 1.0]], {"size": 1, "weights": [1.0, 2.0]}, "weights: expected 1"),
    ],
)
def test_bad_input(relevance, options, match) -> None:
    with pytest.raises(InputError, match=match):
        select_covering(relevance, **options)
