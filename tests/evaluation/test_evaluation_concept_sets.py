"""A concept set judged before training, on data of which it is known what it should say."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm._base.errors import InputError
from sparsecbm.evaluation import judge_concept_set

DIM = 40


@pytest.fixture(scope="module")
def judged():
    """Eight classes: six along a concept each, two along one and the same; the last concept repeats the first."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(DIM, DIM)))[0]
    concepts = np.concatenate([directions[:7], rng.normal(size=(120, DIM)), directions[:1]])
    own = directions[[0, 1, 2, 3, 4, 5, 6, 6]]
    y = np.arange(320) % 8
    X = own[y] + 1.2 * rng.normal(size=(320, DIM)) / np.sqrt(DIM)
    # What parts the last two classes is a small step along a direction that no concept has.
    X[y == 7] += 0.2 * directions[7]
    names = np.array([f"class {k}" for k in range(8)])
    return judge_concept_set(concepts, X, names[y], concepts_per_class=1, n_draws=6)


def test_concepts_that_make_the_classes_hold_what_there_is_to_know(judged):
    assert judged.accuracy > max(judged.meaningless) + 0.04
    assert judged.advantage["low"] > 0
    assert judged.information > 0.9
    assert judged.beyond_chance == pytest.approx(judged.advantage["difference"] / judged.probe)


def test_what_says_the_same_and_what_is_not_told_apart_is_named(judged):
    assert [(a, b) for a, b, _ in judged.redundant] == [(127, 0)]
    assert judged.redundant[0][2] == pytest.approx(1.0)
    assert [(a, b) for a, b, _ in judged.confused] == [("class 6", "class 7")]
    assert 0.4 < judged.confused[0][2] < 0.75


def test_concepts_that_have_nothing_to_do_with_the_classes_are_worth_nothing():
    rng = np.random.default_rng(1)
    y = np.arange(240) % 6
    X = rng.normal(size=(6, 24))[y] + rng.normal(size=(240, 24))
    found = judge_concept_set(rng.normal(size=(100, 24)), X, y, concepts_per_class=1, n_draws=4)
    assert found.advantage["low"] <= 0 <= found.advantage["high"]


def test_bad_input_is_named():
    with pytest.raises(InputError, match="do not go together"):
        judge_concept_set(np.eye(3), np.ones((4, 2)), [0, 0, 1, 1])
    with pytest.raises(InputError, match="class 'b' has 1 of 3 pictures"):
        judge_concept_set(np.eye(2), np.ones((3, 2)), ["a", "a", "b"])
