"""Training: deterministic, resumable to the bit, the same with two processes, stopped by validation."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsecbm._base.checkpoint import FILE_NAME, load_state, save_state
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.bottleneck import (
    ConceptBottleneck,
    ConceptBottleneckLayer,
    Trainer,
    TrainingOptions,
    make_gate,
    make_loss,
    whitening,
)

OPTIONS = TrainingOptions(max_iter=40, batch_size=33, n_evaluations=4, checkpoint_every=10)


def problem(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(150) % 5
    X = (rng.normal(size=(5, 20))[y] + rng.normal(scale=0.8, size=(150, 20))).astype(np.float32)
    return X, y, rng.normal(size=(40, 20))


def layer_of(X: np.ndarray, C: np.ndarray, alignment: float = 0.9) -> ConceptBottleneckLayer:
    turns = np.full(len(C), (1.0 - alignment**2) ** 0.5 / alignment)
    space = whitening(X, 0.2)
    return ConceptBottleneckLayer(space, C @ space.inverse, turns)


def trainer(
    X: np.ndarray, C: np.ndarray, loss: str = "gumbel", options: TrainingOptions = OPTIONS, **kwargs
) -> Trainer:
    relevance = torch.rand(5, len(C), generator=torch.Generator().manual_seed(0))
    term = make_loss(loss, relevance=relevance if loss == "contrastive" else None)
    name = term.gate_name(6 if loss == "gumbel" else None)
    gate = make_gate(name, len(C), {"max_active_concepts": 6} if name == "gumbel_top_k" else {})
    model = ConceptBottleneck(layer_of(X, C), gate, 5)
    scores = torch.from_numpy(C.T).float()
    return Trainer(model, term, options, seed=3, device="cpu", scores=lambda x: x @ scores, progress=False, **kwargs)


def state(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.model.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_same_seed_same_weights_and_the_global_generator_is_untouched() -> None:
    X, y, C = problem()
    torch.manual_seed(7)
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        run = trainer(X, C)
        run.fit(X, y)
        runs.append(state(run))
    assert_same(*runs)
    assert torch.equal(before, torch.get_rng_state())


def test_it_learns_and_keeps_a_history() -> None:
    X, y, C = problem()
    run = trainer(X, C)
    history = run.fit(X, y, X, y)
    assert [entry["step"] for entry in history] == [10, 20, 30, 40]
    assert history[-1]["loss"] < 0.8 * np.log(5)  # a uniform guess is at log 5
    assert history[-1]["val_accuracy"] > 0.9
    assert history[-1]["active_concepts"] <= 6
    assert history[0]["temperature"] > history[-1]["temperature"] == pytest.approx(0.1)


@pytest.mark.parametrize("loss", ["gumbel", "contrastive", "l1", "similarity", "none"])
@pytest.mark.parametrize(("presses", "kept"), [(1, 24), (2, 20)])
def test_interrupted_and_resumed_is_bit_identical(
    loss: str, presses: int, kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ctrl_c: Callable[[], None]
) -> None:
    """Ctrl-C inside a step: the first waits for its end, a second leaves the last checkpoint; never half a step."""
    X, y, C = problem()
    whole = trainer(X, C, loss)
    expected_history = whole.fit(X, y, X[:30], y[:30])

    stopped = trainer(X, C, loss, checkpoint_dir=tmp_path)
    zero_grad = stopped.optimizer.zero_grad

    def interrupt() -> None:  # the weights are new, the counters not yet
        for _ in range(presses if stopped._step == 23 else 0):
            ctrl_c()
        zero_grad()

    monkeypatch.setattr(stopped.optimizer, "zero_grad", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(X, y, X[:30], y[:30])
    assert load_state(tmp_path)["counters"]["_step"] == kept

    resumed = trainer(X, C, loss, checkpoint_dir=tmp_path)
    history = resumed.fit(X, y, X[:30], y[:30])
    assert_same(state(whole), state(resumed))
    assert history == expected_history


def test_a_checkpoint_of_another_job_is_not_resumed(tmp_path: Path) -> None:
    X, y, C = problem()
    trainer(X, C, checkpoint_dir=tmp_path).fit(X, y)
    other, y2 = trainer(X, C, checkpoint_dir=tmp_path), (y + 1) % 5
    other.fit(X, y2)
    fresh = trainer(X, C)
    fresh.fit(X, y2)
    assert_same(state(other), state(fresh))


def test_what_a_checkpoint_belongs_to(tmp_path: Path) -> None:
    """Everything that changes the result changes the job: also what is in no weight at the start."""
    X, y, C = problem()

    def job(loss: str = "contrastive", cone: float = 0.9, relevance: float = 1.0, **changed: np.ndarray | None) -> str:
        run = trainer(X, C, loss)
        run.model.layer.max_turn.fill_(cone)
        if loss == "contrastive":
            run.loss.relevance = run.loss.relevance * relevance
        return run._job(*{"X": X, "y": y, "X_val": X[:30], "y_val": y[:30], **changed}.values())

    others = [
        job("similarity"),
        job(cone=0.8),
        job(relevance=0.5),
        job(X=np.r_[X[:77], X[77:78] + 1e-6, X[78:]]),
        job(y=(y + 1) % 5),
        job(X_val=X[1:31]),
        job(y_val=(y[:30] + 1) % 5),
        job(X_val=None, y_val=None),
    ]
    assert len({job(), *others}) == 1 + len(others)
    assert job() == job()


def test_early_stopping_keeps_the_best_step() -> None:
    X, y, C = problem()
    options = TrainingOptions(max_iter=200, batch_size=50, n_evaluations=50, early_stopping=True, n_iter_no_change=3)
    run = trainer(X, C, options=options)
    history = run.fit(X, y, X[:50], (y[:50] + (np.arange(50) % 3 == 0)) % 5)  # a third of the labels wrong
    assert len(history) < 50
    best = max(entry["val_accuracy"] for entry in history)
    assert run._accuracy(X[:50], (y[:50] + (np.arange(50) % 3 == 0)) % 5) == pytest.approx(best)


def test_accumulated_batches_are_one_step() -> None:
    X, y, C = problem()
    options = TrainingOptions(max_iter=10, batch_size=30, gradient_accumulation_steps=5, n_evaluations=1)
    run = trainer(X, C, options=options)
    run.fit(X, y)
    assert run._step == 10
    assert next(iter(run.optimizer.state_dict()["state"].values()))["step"] == 10


def test_two_processes_train_as_one(forking: Path, tmp_path: Path) -> None:
    """Same batches, same noise; gradients differ by the order of sums only."""
    worker = Path(__file__).parent / "train_worker.py"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What torchrun sets, without the seconds that its own process takes. (`accelerate launch --cpu --num_processes 2`
    # starts one process where MPI is absent.)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment |= {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    environment["PYTHONPATH"] = os.pathsep.join([str(worker.parents[2]), environment.get("PYTHONPATH", "")])
    processes = [
        subprocess.Popen(
            [str(forking / "python"), str(worker), str(tmp_path / "made.json")],
            env=environment | {"RANK": rank, "LOCAL_RANK": rank},
        )
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait() for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["processes"] == 2
    for loss in ("gumbel", "contrastive"):
        X, y, C = problem()
        alone = trainer(X, C, loss)
        history = alone.fit(X, y, X, y)
        expected = [entry["loss"] for entry in history] + alone.model.head.weight.flatten().tolist()
        np.testing.assert_allclose(made[loss], expected, rtol=0.02, atol=2e-3)


def test_checkpoints_survive_and_damage_is_named(tmp_path: Path) -> None:
    value = {"a": [torch.arange(3), {"b": None, "c": 1.5}], "d": {0: torch.eye(2)}, "e": "text"}
    save_state(tmp_path, value)
    back = load_state(tmp_path)
    assert back["d"][0].tolist() == [[1.0, 0.0], [0.0, 1.0]]
    assert back["a"][1] == {"b": None, "c": 1.5}
    assert load_state(tmp_path / "nothing") is None
    (tmp_path / FILE_NAME).write_bytes((tmp_path / FILE_NAME).read_bytes()[:60])
    with pytest.raises(StoredFileError, match="damaged"):
        load_state(tmp_path)


@pytest.mark.parametrize(
    "bad",
    [
        {"max_iter": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"input_noise": -1.0},
        {"temperature": (1.0, 0.0)},
        {"mixed_precision": "fp8"},
    ],
)
def test_bad_options_are_named(bad: dict) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TrainingOptions(**bad)


def test_an_absent_device_is_named() -> None:
    X, _, C = problem()
    model = ConceptBottleneck(layer_of(X, C), make_gate("dense", 40, {}), 5)
    with pytest.raises(InputError, match="device 'tpu'"):
        Trainer(model, make_loss("none"), OPTIONS, seed=0, device="tpu")


def test_tensorboard_tracker_writes_events(tmp_path: Path) -> None:
    X, y, C = problem()
    trainer(X, C, log_with="tensorboard", log_dir=str(tmp_path)).fit(X, y)
    assert list(tmp_path.rglob("events.out.tfevents.*"))
