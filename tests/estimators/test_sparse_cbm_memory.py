"""Training on memory-mapped embeddings: the rows stay on disk, and the model is the same bit for bit."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sparsecbm.estimators import SparseCBMClassifier


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(200_000) % 5
    X = rng.normal(size=(5, 32))[y].astype(np.float32) + rng.normal(size=(len(y), 32)).astype(np.float32)
    X /= np.linalg.norm(X, axis=1, keepdims=True)
    path = tmp_path_factory.mktemp("stored") / "vectors.npy"
    np.save(path, X.astype(np.float16))
    return path, y, rng.normal(size=(20, 32))


def fit(X: np.ndarray, y: np.ndarray, concepts: np.ndarray) -> SparseCBMClassifier:
    options = {"max_active_concepts": 4, "max_iter": 4, "device": "cpu", "random_state": 0, "verbose": False}
    return SparseCBMClassifier(concepts, **options).fit(X, y)


def test_a_mapped_matrix_is_not_copied_and_gives_the_same_model(stored) -> None:
    path, y, concepts = stored
    X = np.load(path, mmap_mode="r")
    fit(X[:1000], y[:1000], concepts)  # imports and other things of the first time
    tracemalloc.start()
    mapped = fit(X, y, concepts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # One copy in float32 would be 25.6 MB; labels, an epoch's order and pieces of 8,192 rows are about 12.
    assert peak < 20e6, f"{peak / 1e6:.1f} MB"
    in_memory = fit(np.load(path).astype(np.float32), y, concepts)
    for name in ("head_weights_", "head_intercept_", "score_mean_", "score_scale_"):
        np.testing.assert_array_equal(getattr(mapped, name), getattr(in_memory, name))
    assert (mapped.bottleneck_.weight == in_memory.bottleneck_.weight).all()
    assert (mapped.bottleneck_.bias == in_memory.bottleneck_.bias).all()
