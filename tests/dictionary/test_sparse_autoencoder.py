"""SparseAutoencoder: planted concepts come back, budgets hold, killed training resumes, bad input is named."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from sparsecbm import SparseAutoencoder
from sparsecbm._base.errors import DataWarning
from sparsecbm._base.parts import DICTIONARIES, DICTIONARY_BASELINES
from sparsecbm.dictionary.quality import matched_atoms

D, TRUE = 24, 16


def plant(n: int = 1500, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows that are sums of about three of sixteen directions, away from the origin; and the directions."""
    rng = np.random.default_rng(seed)
    atoms = np.linalg.qr(rng.normal(size=(D, D)))[0][:TRUE]
    codes = (rng.random((n, TRUE)) < 3 / TRUE) * rng.uniform(0.5, 1.5, (n, TRUE))
    return (codes @ atoms + 5.0 + 0.01 * rng.normal(size=(n, D))).astype(np.float32), atoms


def make(kind: str = "top_k", **options) -> SparseAutoencoder:
    given = {"active": 4, "max_iter": 400, "batch_size": 128, "learning_rate": 3e-3, "random_state": 0, **options}
    return SparseAutoencoder(TRUE + 4, kind=kind, verbose=False, **given)


@parametrize_with_checks([SparseAutoencoder(2, active=1, max_iter=10, batch_size=16, random_state=0)])
def test_conventions_of_scikit_learn(estimator, check) -> None:
    check(estimator)


@pytest.mark.parametrize("kind", [*DICTIONARIES, *DICTIONARY_BASELINES])
@pytest.mark.filterwarnings("ignore::sparsecbm._base.errors.DataWarning")
def test_every_kind(kind: str, tmp_path: Path) -> None:
    X, atoms = plant()
    model = make(kind).fit(X)
    codes = model.transform(X)
    assert np.allclose(np.linalg.norm(model.components_, axis=1)[~model.dead_], 1, atol=1e-5)
    assert (codes >= 0).all()
    counts = (codes > 0).sum(axis=1)
    assert counts.max() <= 4 or (kind in ("batch_top_k", "concrete") and 2 < counts.mean() < 6)
    lost = np.square(X - model.inverse_transform(codes)).sum() / np.square(X - X.mean(0)).sum()
    assert model.score(X) == pytest.approx(1 - lost, abs=1e-4)
    if kind in DICTIONARIES:
        assert model.score(X) > 0.85
        assert np.sort(matched_atoms(atoms, model.components_))[TRUE // 4 :].min() > 0.85
    model.save(tmp_path / "m")
    again = SparseAutoencoder.load(tmp_path / "m")
    assert np.array_equal(again.transform(X), codes)
    assert again.score(X) == model.score(X)


def test_narrow_and_mapped_rows_are_the_same_rows(tmp_path: Path) -> None:
    X = plant()[0].astype(np.float16)
    np.save(tmp_path / "x.npy", X)
    mapped = make(max_iter=30).fit(np.load(tmp_path / "x.npy", mmap_mode="r"))
    plain = make(max_iter=30).fit(X.astype(np.float32))
    assert np.array_equal(mapped.components_, plain.components_)


def test_idle_units_come_back() -> None:
    """Rows whose concepts come one after another would leave units that start in the wrong place idle for ever."""
    X, _ = plant(400)
    model = make(active=2, max_iter=300).fit(X)
    assert not model.dead_.any()
    with pytest.warns(DataWarning, match="concepts are in no picture: ask for fewer"):
        SparseAutoencoder(60, kind="pca", active=2, random_state=0).fit(X)  # of 24 dimensions


@pytest.mark.parametrize("kind", ["batch_top_k", "concrete"])  # both keep a threshold too
def test_restarts_find_what_one_training_does_not(kind: str) -> None:
    X, atoms = plant()
    single, several = (make(kind, max_iter=150, restarts=restarts).fit(X) for restarts in (1, 3))
    worst = [matched_atoms(atoms, model.components_).min() for model in (single, several)]
    assert worst[0] < 0.8 < 0.85 < worst[1]
    assert several.score(X) > single.score(X) > 0.75
    assert several.n_iter_ == 3 * 150 + 200
    assert 2 < (several.transform(X) > 0).sum(axis=1).mean() < 5
    assert not several.dead_.any()


_KILLED = """
import os, sys, numpy as np
from sparsecbm import SparseAutoencoder
import sparsecbm.dictionary.training as training
step, count = training.DictionaryTrainer._optimizer_step, [0]
def dies(self, X):
    count[0] += 1
    if count[0] > 300 + 250:
        os._exit(9)
    return step(self, X)
training.DictionaryTrainer._optimizer_step = dies
X = np.load(sys.argv[1])
options = {"active": 4, "max_iter": 300, "batch_size": 16, "restarts": 2}
model = SparseAutoencoder(20, kind=sys.argv[2], random_state=0, **options)
model.fit(X, checkpoint_dir=sys.argv[3])
"""


def test_killed_and_resumed_is_bit_identical(forking: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sparsecbm.dictionary.training as training

    X, _ = plant(400)
    kind = "concrete"  # draws noise too
    np.save(tmp_path / "x.npy", X)
    call = [str(forking / "python"), "-c", _KILLED, str(tmp_path / "x.npy"), kind, str(tmp_path / "c")]
    assert subprocess.run(call, capture_output=True).returncode == 9
    took: list[int] = []
    step = training.DictionaryTrainer._optimizer_step

    def counted(self, rows):
        took.append(self._step)
        return step(self, rows)

    monkeypatch.setattr(training.DictionaryTrainer, "_optimizer_step", counted)
    options = {"active": 4, "max_iter": 300, "batch_size": 16, "learning_rate": 3e-3, "restarts": 2}
    resumed = make(kind, **options).fit(X, checkpoint_dir=tmp_path / "c")
    assert took[0] == 200
    whole = make(kind, **options).fit(X)
    assert resumed.history_ == whole.history_
    assert all(np.array_equal(resumed._state[name], value) for name, value in whole._state.items())


@pytest.mark.parametrize(
    ("options", "change", "message"),
    [
        ({"kind": "topk"}, lambda X: X, "unknown kind 'topk'.*did you mean 'top_k'"),
        ({"active": 21}, lambda X: X, "active=21 of n_concepts=20"),
        ({}, lambda X: X[:12], "n_concepts=20 of 12 different rows"),
        ({}, lambda X: np.repeat(X[:5], 40, axis=0), "n_concepts=20 of 5 different rows"),
        ({}, lambda X: np.full((100, D), 3.0) + 1e-7 * np.eye(100, D), "different rows|all rows are the same"),
        ({}, lambda X: np.where(np.eye(len(X), D) > 0, np.nan, X), "NaN"),
        ({}, lambda X: np.where(np.eye(len(X), D) > 0, np.inf, X).astype(np.float16), "infinity"),
    ],
)
def test_bad_input_is_named(options: dict, change, message: str) -> None:
    X, _ = plant(200)
    with pytest.raises(ValueError, match=message):
        make(**options).fit(change(X))
