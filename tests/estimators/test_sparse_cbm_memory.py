"""Training on memory-mapped embeddings: the rows stay on disk, and the model is the same bit for bit."""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from sparsecbm._base.rows import unit_rows
from sparsecbm.bottleneck import FrozenBottleneck
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


def test_scaling_and_holding_out_rows_copy_nothing(stored, tmp_path) -> None:
    path, y, concepts = stored
    rows = slice(0, 120_000)
    lengths = np.random.default_rng(1).uniform(0.5, 2.0, size=(len(y), 1)).astype(np.float16)
    np.save(tmp_path / "long.npy", np.load(path, mmap_mode="r") * lengths)
    X, y = np.load(tmp_path / "long.npy", mmap_mode="r")[rows], y[rows]
    options = {"max_active_concepts": 4, "max_iter": 6, "device": "cpu", "random_state": 0, "verbose": False}
    options |= {"early_stopping": True, "n_iter_no_change": 20}
    fit(X[:1000], y[:1000], concepts)
    tracemalloc.start()
    mapped = SparseCBMClassifier(concepts, **options).fit(X, y)
    predicted = mapped.predict(X)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6, f"{peak / 1e6:.1f} MB"  # one copy in float32 is 15.4 MB
    unit = unit_rows(X, tolerance=1e-3)
    in_memory = SparseCBMClassifier(concepts, **options).fit(unit, y)
    assert "val_accuracy" in mapped.history_[-1]
    np.testing.assert_array_equal(mapped.head_weights_, in_memory.head_weights_)
    np.testing.assert_array_equal(predicted, in_memory.predict(unit))


def test_a_sparse_head_on_sparse_activations_is_that_on_dense_ones(stored, monkeypatch) -> None:
    path, y, concepts = stored
    X, y = np.load(path, mmap_mode="r")[:3000], y[:3000]
    options = {"max_active_concepts": 4, "max_iter": 30, "device": "cpu", "random_state": 0, "verbose": False}
    dense = SparseCBMClassifier(concepts, concepts_per_class=2, **options).fit(X, y)
    monkeypatch.setattr("sparsecbm.heads.solver.softmax_sparse.DENSE_BYTES", 0)
    monkeypatch.setattr(FrozenBottleneck, "activations", None)  # no dense activations at all
    sparse = SparseCBMClassifier(concepts, concepts_per_class=2, **options).fit(X, y)
    monkeypatch.undo()
    assert np.count_nonzero(sparse.head_weights_) == 2 * 5
    assert sparse.certificate_["relative_gap"] <= 1e-6
    assert sparse.certificate_["objective"] == pytest.approx(dense.certificate_["objective"], rel=0.02)
    assert sparse.score(X, y) == pytest.approx(dense.score(X, y), abs=0.02)


def test_a_number_that_is_not_finite_is_found_in_any_piece(stored) -> None:
    path, y, concepts = stored
    X = np.load(path)[:20_000]
    X[17_000, 3] = np.inf
    with pytest.raises(ValueError, match="Input X contains infinity"):
        fit(X, y[:20_000], concepts)
    model = fit(np.load(path)[:2000], y[:2000], concepts)
    with pytest.raises(ValueError, match="Input X contains infinity"):
        model.predict(X)


def test_the_script_at_imagenets_shape_runs_small_and_resumes(tmp_path, monkeypatch) -> None:
    script = Path(__file__).parents[2] / "scripts" / "benchmark_scale.py"
    specification = importlib.util.spec_from_file_location("benchmark_scale", script)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr("sparsecbm.heads.solver.softmax_sparse.DENSE_BYTES", 0)
    arguments = ["--work-dir", str(tmp_path / "work"), "--rows", "2000", "--classes", "12", "--concepts", "90"]
    arguments += ["--dim", "48", "--test-rows", "400", "--batch-size", "128", "--active", "6", "--noise", "1"]
    arguments += ["--sizes", "500", "--json", str(tmp_path / "figures.json"), "--plot", str(tmp_path / "plot.png")]
    first = module.main(arguments)
    assert first["model"]["nec"] == 5
    assert first["model"]["certificate"]["relative_gap"] <= 1e-6
    assert first["held_out"]["active_most"] <= 6
    assert first["held_out"]["accuracy"] > 0.6
    assert sorted(first["epochs"]) == ["2000", "500"]
    assert first["memory"]["peak_rss_gb"] > 0.1
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    made = (tmp_path / "work" / "train.npy").stat().st_mtime_ns
    again = module.main(arguments)
    assert again["model"] == first["model"]
    assert (tmp_path / "work" / "train.npy").stat().st_mtime_ns == made
    # A file that is not what it was is made again, to the same bytes.
    before = (tmp_path / "work" / "train.npy").read_bytes()
    (tmp_path / "work" / "train.npy").write_bytes(before[:-2] + b"xx")
    module.main([*arguments, "--stages"])
    assert (tmp_path / "work" / "train.npy").read_bytes() == before
