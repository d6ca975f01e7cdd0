"""Training: deterministic, resumable to the bit through kill -9, stopped by validation, the same in two processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsecbm._base.checkpoint import load_state
from sparsecbm._base.errors import InputError
from sparsecbm.vae import DensityTask, DiscreteVAE, Trainer, TrainingOptions, make_negative_phase, make_objective

OPTIONS = TrainingOptions(epochs=6, batch_size=40, evaluate_every=2, checkpoint_every=5)


def stripes(n: int = 150, seed: int = 0) -> np.ndarray:
    """Pictures of 4 x 4 pixels with whole rows set: four bits of information each, and some noise."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 2, (n, 4)).repeat(4, axis=1)
    return (images ^ (rng.random((n, 16)) < 0.05)).astype(np.uint8)


def trainer(options: TrainingOptions = OPTIONS, *, objective: str = "mass", negative: str = "persistent", **kwargs):
    generator = torch.Generator().manual_seed(0)
    prior = "bernoulli" if objective == "density" else "rbm"
    batch_norm = kwargs.pop("batch_norm", True)
    samples = kwargs.pop("samples", 2 if objective == "mass" else 1)
    model = DiscreteVAE(16, groups=(3, 3), prior=prior, hidden=(8,), batch_norm=batch_norm, generator=generator)
    phase = make_negative_phase(negative, model.prior.rbm, seed=1, chains=20, sweeps=2) if prior == "rbm" else None
    task = DensityTask(model, make_objective(objective, samples=samples), phase)
    return Trainer(task, options, seed=3, device="cpu", progress=False, **kwargs)


def state(run: Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in run.task.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_same_seed_same_weights_and_the_global_generator_is_untouched() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    runs = []
    for _ in range(2):
        run = trainer()
        run.fit({"x": stripes()}, {"x": stripes(40, 1)})
        runs.append(state(run))
    assert_same(*runs)
    assert torch.equal(before, torch.get_rng_state())


def test_it_learns_and_keeps_a_history() -> None:
    run = trainer(TrainingOptions(epochs=60, batch_size=50, evaluate_every=20, adam_eps=1e-8, learning_rate=1e-2))
    history = run.fit({"x": stripes()}, {"x": stripes(60, 1)})
    assert [entry["epoch"] for entry in history] == [20, 40, 60]
    # Four fair bits and sixteen noisy pixels hold 6.0 nats; independent pixels 11.1.
    assert -8.0 < history[-1]["val_score"] < -5.5
    assert history[-1]["val_score"] >= history[-1]["val_elbo"]
    assert history[0]["beta"] < 1.0 == history[-1]["beta"]
    assert {"bound", "log_likelihood", "kl", "log_partition", "learning_rate", "temperature"} <= history[-1].keys()


@pytest.mark.parametrize(("presses", "kept"), [(1, 8), (2, 6)])
@pytest.mark.parametrize(
    ("objective", "negative", "dynamic"),
    [
        ("mass", "persistent", False),
        ("mass", "annealing", True),
        ("analytic", "exact", False),
        ("density", "persistent", True),
        ("score_function", "tempering", False),
    ],
)
def test_interrupted_and_resumed_is_bit_identical(
    objective: str,
    negative: str,
    dynamic: bool,
    presses: int,
    kept: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ctrl_c: Callable[[], None],
) -> None:
    """Ctrl-C inside a step: the first waits for its end, a second leaves the last checkpoint; never half a step."""
    options = TrainingOptions(
        epochs=4, batch_size=40, evaluate_every=2, checkpoint_every=3, temperature={"name": "linear", "steps": 10}
    )
    x = stripes() * (200 if dynamic else 1)
    data = {"x": x.astype(np.uint8)}, {"x": stripes(40, 1)}
    kind = {"objective": objective, "negative": negative, "dynamic": dynamic}
    whole = trainer(options, **kind)
    expected = whole.fit(*data)

    stopped = trainer(options, checkpoint_dir=tmp_path, **kind)
    zero_grad = stopped.optimizer.zero_grad

    def interrupt() -> None:  # between two checkpoints, and inside an epoch; the weights are new, the counters not yet
        for _ in range(presses if stopped._step == 7 else 0):
            ctrl_c()
        zero_grad()

    monkeypatch.setattr(stopped.optimizer, "zero_grad", interrupt)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(*data)
    assert load_state(tmp_path)["counters"]["_step"] == kept
    resumed = trainer(options, checkpoint_dir=tmp_path, **kind)
    assert resumed.fit(*data) == expected
    assert_same(state(whole), state(resumed))


WORKER = Path(__file__).parent / "vae_worker.py"


def worker_environment() -> dict[str, str]:
    path = os.pathsep.join([str(WORKER.parents[2]), str(WORKER.parent), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


LONG = TrainingOptions(epochs=20, batch_size=40, evaluate_every=10, checkpoint_every=20)


def test_killed_and_resumed_is_bit_identical(forking: Path, tmp_path: Path) -> None:
    """kill -9 of a process inside a step; another process goes on to the same bits."""
    data = {"x": stripes()}, {"x": stripes(40, 1)}
    whole = trainer(LONG)
    expected = whole.fit(*data)
    killed = subprocess.run([str(forking / "python"), str(WORKER), "killed", str(tmp_path)], env=worker_environment())
    assert killed.returncode == -signal.SIGKILL
    assert load_state(tmp_path)["counters"]["_step"] == 40
    resumed = trainer(LONG, checkpoint_dir=tmp_path)
    assert resumed.fit(*data) == expected
    assert_same(state(whole), state(resumed))


def test_two_processes_train_as_one(forking: Path, tmp_path: Path) -> None:
    """Without batch normalisation, whose statistics are each process's own; gradients differ by the order of sums."""
    alone = trainer(batch_norm=False)
    expected = alone.fit({"x": stripes()}, {"x": stripes(40, 1)})
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # What torchrun sets, without the seconds that its own process takes.
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "ACCELERATE_USE_CPU": "true"}
    command = [str(forking / "python"), str(WORKER), "processes", str(tmp_path / "made.json")]
    processes = [
        subprocess.Popen(command, env=worker_environment() | shared | {"RANK": rank, "LOCAL_RANK": rank})
        for rank in ("0", "1")
    ]
    try:
        assert [process.wait() for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    made = json.loads((tmp_path / "made.json").read_text())
    assert made["processes"] == 2
    np.testing.assert_allclose(made["bounds"], [entry["bound"] for entry in expected], rtol=1e-3)
    for name, value in state(alone).items():
        if value.is_floating_point():
            np.testing.assert_allclose(made["weights"][name], value.flatten(), atol=2e-3, err_msg=name)


def test_a_checkpoint_of_another_job_is_not_resumed(tmp_path: Path) -> None:
    trainer(checkpoint_dir=tmp_path).fit({"x": stripes()})
    for data, kind in ((stripes(seed=5), {}), (stripes(), {"samples": 3}), (stripes(), {"negative": "exact"})):
        other, fresh = trainer(checkpoint_dir=tmp_path, **kind), trainer(**kind)
        other.fit({"x": data})
        fresh.fit({"x": data})
        assert_same(state(other), state(fresh))


def test_early_stopping_keeps_the_best_look() -> None:
    options = TrainingOptions(
        epochs=300, batch_size=20, evaluate_every=2, early_stopping=True, n_iter_no_change=3, warm_up=0.02,
        adam_eps=1e-8, learning_rate=2e-2,
    )  # fmt: skip
    run = trainer(options, samples=1)
    validation = stripes(100, 9)
    history = run.fit({"x": stripes(20)}, {"x": validation})  # twenty pictures are soon known by heart
    assert len(history) < 150
    scores = [entry["val_score"] for entry in history if entry["beta"] == 1.0]
    assert max(scores) > scores[-1]
    kept = run.task.validate({"x": torch.from_numpy(validation).float()}, generator=torch.Generator().manual_seed(0))
    assert kept["score"] == pytest.approx(max(scores), abs=0.25)  # other validation noise


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 0},
        {"batch_size": -1},
        {"learning_rate": 0.0},
        {"weight_decay": -1.0},
        {"warm_up": 1.5},
        {"mixed_precision": "fp8"},
        {"temperature": {"name": "lineal"}},
        {"temperature": {"name": "constant", "start": 0.0}},
        {"temperature": {"name": "constant", "stat": 1.0}},
    ],
)
def test_bad_options_are_named(bad: dict) -> None:
    with pytest.raises(InputError, match=next(iter(bad))):
        TrainingOptions(**bad)


def test_a_loss_that_is_not_finite_is_named() -> None:
    run = trainer(batch_norm=False)
    with torch.no_grad():
        run.task.model.decoder.layers[0].weight.fill_(torch.nan)
    with pytest.raises(InputError, match="the loss is nan at step 0; lower learning_rate"):
        run.fit({"x": stripes()})


@pytest.mark.parametrize("rate", [1e4, 1e38, 1e200])
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_that_diverges_raises_and_keeps_nothing(rate: float, epochs: int, tmp_path: Path) -> None:
    """Also where the last step alone breaks the weights, or what is measured of them: never a model of NaN."""
    options = TrainingOptions(epochs=epochs, batch_size=150, evaluate_every=1, learning_rate=rate, checkpoint_every=1)
    run = trainer(options, batch_norm=False, checkpoint_dir=tmp_path)
    data = {"x": stripes()}, {"x": stripes(40, 1)}
    if rate > 1e4:
        with pytest.raises(InputError, match=r"training diverged|no likelihood|log-likelihood is"):
            run.fit(*data)
    else:
        run.fit(*data)
        assert all(np.isfinite(value) for entry in run.history for value in entry.values())
    kept = load_state(tmp_path)
    assert kept is None or all(
        bool(value.isfinite().all()) for value in kept["module"].values() if value.is_floating_point()
    )


def test_tensorboard_tracker_writes_events(tmp_path: Path) -> None:
    trainer(log_with="tensorboard", log_dir=str(tmp_path)).fit({"x": stripes()})
    assert list(tmp_path.rglob("events.out.tfevents.*"))
