"""Rows taken and scaled as they are used: the same numbers as from a copied matrix."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm.bottleneck import FrozenBottleneck, Rows, class_means, make_gate, whitening
from sparsecbm.bottleneck.statistics import _ROWS


@pytest.fixture(scope="module")
def matrix() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(_ROWS + 300, 6)).astype(np.float16)


def test_rows_are_those_of_the_copied_matrix(matrix) -> None:
    rng = np.random.default_rng(1)
    index, lengths = rng.permutation(len(matrix))[:500], np.linalg.norm(matrix.astype(np.float32), axis=1)
    rows = Rows(matrix, index, lengths)
    copied = (matrix / lengths[:, None]).astype(np.float32)[index]
    assert rows.shape == copied.shape
    assert len(rows) == 500
    some = rng.integers(500, size=40)
    for which in (slice(None), slice(10, 30), some, slice(490, 600)):
        np.testing.assert_array_equal(rows[which], copied[which])
        assert rows[which].dtype == np.float32
    np.testing.assert_array_equal(rows.take(some)[:], copied[some])
    np.testing.assert_array_equal(Rows(matrix).take(some)[3:5], matrix[some][3:5].astype(np.float32))


def test_statistics_are_those_of_the_copied_matrix(matrix) -> None:
    index = np.random.default_rng(2).permutation(len(matrix))
    lengths = np.linalg.norm(matrix.astype(np.float32), axis=1)
    rows = Rows(matrix, index, lengths)
    lazily, copied = whitening(rows, 0.2), whitening(rows[:], 0.2)
    for name in ("center", "covariance", "matrix", "inverse"):
        np.testing.assert_array_equal(getattr(lazily, name), getattr(copied, name))
    labels = np.arange(len(matrix)) % 3
    means = class_means(rows, labels, 4)
    for k in range(3):
        np.testing.assert_allclose(means[k], rows[:][labels == k].astype(float).mean(0), atol=1e-12)
    assert not means[3].any()


@pytest.mark.parametrize("n", [5, 4096, 4500])
def test_sparse_activations_are_the_dense_ones(n) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    gate = make_gate("top_k", 12, {"max_active_concepts": 3, "nonnegative": True})
    bottleneck = FrozenBottleneck(torch.randn(12, 6, generator=generator), torch.randn(12, generator=generator), gate)
    X = np.random.default_rng(3).normal(size=(n, 6)).astype(np.float32)
    sparse = bottleneck.sparse_activations(X)
    assert sparse.shape == (n, 12)
    assert sparse.dtype == np.float32
    assert sparse.nnz == np.count_nonzero(bottleneck.activations(X)) <= 3 * n
    np.testing.assert_array_equal(sparse.toarray(), bottleneck.activations(X))
