"""Ties: where units start, how far they may turn, and who earns it."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm._base.directions import matched_directions
from sparsecbm._base.errors import InputError
from sparsecbm.bottleneck import ConceptGeometry, Tied, class_means, hand_out, make_tie, whitening

CLASSES, D = 6, 24


@pytest.fixture
def planted(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings whose classes stand out along the first six of 200 concepts."""
    concepts = rng.normal(size=(200, D))
    concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    y = np.arange(300) % CLASSES
    X = 1.6 * concepts[y] + 0.5 * rng.normal(size=(300, D)) @ np.diag(np.linspace(0.5, 1.5, D))
    return X, y, concepts


def geometry(X: np.ndarray, y: np.ndarray, concepts: np.ndarray | None) -> ConceptGeometry:
    return ConceptGeometry.measure(whitening(X, 0.3), concepts, class_means(X, y, CLASSES), np.bincount(y))


def test_geometry_is_that_of_the_whitened_rows(planted: tuple[np.ndarray, ...]) -> None:
    X, y, concepts = planted
    made = geometry(X, y, concepts)
    rows = (X - made.space.center) @ made.space.matrix
    means = np.stack([rows[y == k].mean(0) for k in range(CLASSES)])
    inner = rows - means[y]
    np.testing.assert_allclose(made.means, means, atol=1e-8)
    np.testing.assert_allclose(made.within, inner.T @ inner / (len(y) - CLASSES), atol=1e-8)
    units = rows @ made.scores(concepts).T
    deviation = np.sqrt(((units - (means @ made.scores(concepts).T)[y]) ** 2).sum(0) / (len(y) - CLASSES))
    expected = np.stack([units[y == k].mean(0) for k in range(CLASSES)]) / deviation
    np.testing.assert_allclose(made.separation(made.scores(concepts)), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["exact", "shared", "free", "earned"])
def test_anchors_keep_their_alignment_and_turns_their_cone(name: str, planted: tuple[np.ndarray, ...]) -> None:
    X, y, concepts = planted
    made = geometry(X, y, concepts)
    tie = make_tie(name)
    tied = tie.bind(made)
    cosines = (tied.anchors * made.scores(concepts)).sum(1)
    angles = np.arccos(np.clip(cosines, -1, 1)) + np.arctan(tied.turns)
    assert np.cos(angles).min() >= tie.min_alignment - 1e-7
    assert (tied.turns > 0).any() == (name in ("free", "earned"))
    np.testing.assert_allclose(np.linalg.norm(tied.anchors, axis=1), 1.0)


def test_the_shared_map_separates_the_classes_better_and_treats_all_alike(planted: tuple[np.ndarray, ...]) -> None:
    X, y, concepts = planted
    made = geometry(X, y, concepts)
    exact, shared = (make_tie(name).bind(made) for name in ("exact", "shared"))
    own = np.arange(CLASSES)
    assert shared.separation[own, own].mean() > exact.separation[own, own].mean()
    alone = make_tie("shared").bind(geometry(X, y, concepts[3:4]))
    np.testing.assert_allclose(alone.anchors[0], shared.anchors[3], atol=1e-9)


def test_true_concepts_earn_wide_cones_and_meaningless_ones_do_not(planted: tuple[np.ndarray, ...]) -> None:
    X, y, concepts = planted
    tie = make_tie("earned")
    turns = tie.bind(geometry(X, y, concepts)).turns
    null = tie.bind(geometry(X, y, matched_directions(concepts, np.random.default_rng(5)))).turns
    assert turns[:CLASSES].min() > 2 * np.median(turns)
    assert (null > 1.5 * null.min()).mean() < 0.05
    assert turns[:CLASSES].mean() > 2 * null.mean()


def test_the_pool_holds_what_stands_out_most(planted: tuple[np.ndarray, ...]) -> None:
    X, y, concepts = planted
    tied = make_tie("exact").bind(geometry(X, y, concepts))
    pool = tied.pool(3)
    assert set(range(CLASSES)) <= set(pool.tolist())
    assert len(pool) <= 3 * CLASSES
    assert (np.diff(pool) > 0).all()
    assert tied.pool(None).tolist() == tied.pool(200).tolist() == list(range(200))


def test_widths_are_handed_out_by_how_far_a_concept_stands_out() -> None:
    tied = Tied(np.eye(4), np.zeros(4), np.array([[1.0, 5.0, 3.0, 9.0]]))
    given = hand_out(np.array([0.0, 0.1, 0.3, 0.2]), tied, np.array([0, 1, 2]))
    assert given.turns.tolist() == [0.1, 0.3, 0.2, 0.0]  # number 3 takes no part
    assert hand_out(np.zeros(3), tied, np.array([0, 1])).turns.tolist() == [0.0] * 4


def test_concept_scores_as_input(planted: tuple[np.ndarray, ...]) -> None:
    X, y, _ = planted
    for name in ("exact", "shared", "free", "earned"):
        assert make_tie(name).bind(geometry(X, y, None)).anchors.shape == (D, D)


def test_one_image_a_class_has_no_deviation_and_no_warning(planted: tuple[np.ndarray, ...]) -> None:
    X, y, concepts = planted
    tied = make_tie("earned").bind(geometry(X[:CLASSES], y[:CLASSES], concepts))
    assert np.isfinite(tied.separation).all()
    assert np.isfinite(tied.turns).all()


def test_an_unknown_tie_is_named_with_the_nearest() -> None:
    with pytest.raises(InputError, match="earned"):
        make_tie("earnt")
