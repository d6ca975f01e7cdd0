"""The training loop of the VAEs, on Accelerate: one seed, checkpoints that resume exactly, early stopping."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsecbm._base.accelerator import end_logs, make_accelerator
from sparsecbm._base.checkpoint import Resumable, fingerprint
from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.threads import single_threaded_kernels
from sparsecbm.samplers import make_schedule, noise
from sparsecbm.vae.data import binarise
from sparsecbm.vae.tasks.base import StepContext, Task

__all__ = ["Trainer", "TrainingOptions"]

_THREADING_PAYS = 2**26  # multiply-adds


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes
    ----------
    epochs : int
        Passes over the training set.
    batch_size : int
        Rows a step, over all processes together; an epoch is cut into even batches of at most so many.
    learning_rate : float
        Of Adam; cosine decay to 0.
    adam_eps : float
        Adam's eps. The published 1e-3 keeps steps small where gradients are.
    weight_decay : float
        L2 penalty on the weight matrices of the networks (not on biases, normalisation or the prior).
    temperature : dict
        ``name`` and options of a schedule of :mod:`sparsecbm.samplers.schedules`, in steps.
    warm_up : float
        Share of training, 0 to 1, over which the weight of the KL term rises from 0 to 1.
    evaluate_every : int
        Epochs between entries of the history, and between looks at the validation set.
    early_stopping : bool
        Stop when the validation score has not risen for `n_iter_no_change` looks after the warm-up; keep the best.
    n_iter_no_change : int
        Patience, in looks.
    checkpoint_every : int
        Steps between checkpoints, where a folder is given.
    mixed_precision : {"no", "fp16", "bf16"}
        Accelerate's autocast, for the networks; noise, masses and chains stay in float32.
    """

    epochs: int = 100
    batch_size: int = 100
    learning_rate: float = 3e-3
    adam_eps: float = 1e-3
    weight_decay: float = 1e-4
    temperature: dict[str, Any] = field(default_factory=lambda: {"name": "constant", "start": 0.5})
    warm_up: float = 0.3
    evaluate_every: int = 5
    early_stopping: bool = False
    n_iter_no_change: int = 5
    checkpoint_every: int = 500
    mixed_precision: str = "no"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "evaluate_every", "n_iter_no_change", "checkpoint_every"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)!r}: expected a positive integer")
        for name in ("learning_rate", "adam_eps"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)!r}: expected a positive number")
        if not self.weight_decay >= 0:
            raise InputError(f"weight_decay={self.weight_decay!r}: expected a number that is not negative")
        if not 0 <= self.warm_up <= 1:
            raise InputError(f"warm_up={self.warm_up!r}: expected a share of training, from 0 to 1")
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise InputError(f"mixed_precision={self.mixed_precision!r}: expected 'no', 'fp16' or 'bf16'")
        self.schedule()

    def schedule(self) -> Any:
        """Return the temperature schedule."""
        try:
            return make_schedule(**self.temperature)
        except (TypeError, ValueError) as error:
            raise InputError(f"temperature={self.temperature!r}: {error}") from None


class Trainer(Resumable):
    """Train a :class:`Task`.

    Parameters
    ----------
    task : Task
        Trained in place.
    options : TrainingOptions
    seed : int
        Of batches and noise. Every process draws the whole batch's noise and takes its own rows, so that the result
        does not depend on how many there are, except through batch normalisation, whose statistics are each process's
        own.
    device : str
        "auto", "cpu", "cuda" or "mps".
    dynamic : bool
        Whether the training pictures are intensities, binarised afresh at every step.
    checkpoint_dir : path or None
        Where to keep a checkpoint; one made by the same job is resumed exactly, any other is replaced.
    log_with, log_dir : str or None
        Any Accelerate tracker ("tensorboard", "wandb", ...) and its folder.
    progress : bool or None
        Progress bar, with nats and the time left; None decides by the terminal.

    Attributes
    ----------
    history : list of dict
        One entry a look: epoch, step, bound (nats a picture, of the training objective), its parts, temperature, beta,
        learning_rate, and what :meth:`Task.validate` measures, prefixed with ``val_``.
    seconds : float
        Time spent training, over all runs that were resumed.
    """

    _counters = ("_step", "_sums", "_count", "_best", "_best_score", "_stale", "history", "seconds")

    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        *,
        seed: int,
        device: str = "auto",
        dynamic: bool = False,
        checkpoint_dir: str | Path | None = None,
        log_with: str | None = None,
        log_dir: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        self.options, self.seed, self.dynamic = options, int(seed), dynamic
        self.checkpoint_dir, self.log_with, self.progress = checkpoint_dir, log_with, progress
        self.accelerator = make_accelerator(
            device, mixed_precision=options.mixed_precision, log_with=log_with, log_dir=log_dir
        )
        named = [(name, p) for name, p in task.named_parameters() if p.requires_grad]
        decayed = [p for name, p in named if p.dim() > 1 and "prior." not in name]
        kept = [p for name, p in named if not (p.dim() > 1 and "prior." not in name)]
        groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": kept, "weight_decay": 0.0}]
        optimizer = torch.optim.Adam(
            [group for group in groups if group["params"]],
            lr=options.learning_rate,
            eps=options.adam_eps,
            fused=self.accelerator.device.type in ("cpu", "cuda"),
        )
        self.wrapped, self.optimizer = self.accelerator.prepare(task, optimizer)
        self.task: Task = self.accelerator.unwrap_model(self.wrapped)
        self.generator = torch.Generator(device=self.accelerator.device).manual_seed(self.seed)
        self._schedule = options.schedule()
        self.history: list[dict[str, float]] = []
        self.seconds = 0.0
        self._step = 0
        self._sums: dict[str, float] = {}
        self._count = 0
        self._order: tuple[int, list[np.ndarray]] | None = None  # the running epoch and its batches
        self._best: dict[str, Tensor] | None = None
        self._best_score = -math.inf
        self._stale = 0

    @property
    def steps(self) -> int:
        """Optimizer steps made so far."""
        return self._step

    def fit(
        self, train: Mapping[str, np.ndarray], validation: Mapping[str, np.ndarray] | None = None
    ) -> list[dict[str, float]]:
        """Train on arrays whose first dimension are the rows; ``x`` are pictures (n, n_pixels). Return the history.

        Raises
        ------
        InputError
            If the loss stops being finite.
        """
        largest = max((p.numel() for p in self.task.parameters() if p.dim() > 1), default=0)
        samples = getattr(getattr(self.task, "objective", None), "samples", 1)
        small = self.options.batch_size * samples * largest < _THREADING_PAYS
        with single_threaded_kernels() if small else contextlib.nullcontext():
            return self._fit(train, validation)

    def _fit(
        self, train: Mapping[str, np.ndarray], validation: Mapping[str, np.ndarray] | None
    ) -> list[dict[str, float]]:
        options, n = self.options, len(train["x"])
        job = self._job(train, validation)
        self._resume(job, self.task)
        if self.log_with:
            self.accelerator.init_trackers("sparsecbm-vae", config={k: str(v) for k, v in asdict(options).items()})
        per_epoch = math.ceil(n / min(options.batch_size, n))
        total = options.epochs * per_epoch
        held_out = None if validation is None else self._tensors(validation)
        stopped = self._patience_is_over()
        started, before = time.perf_counter(), self.seconds
        self.task.train()
        with self._whole_steps() as interrupted, ProgressBar("training", total, self.progress) as bar:
            bar.update(self._step)
            while self._step < total and not stopped and not interrupted():
                record = self._optimizer_step(train, n, per_epoch, total)
                self._step += 1
                self.seconds = before + time.perf_counter() - started
                epoch, place = divmod(self._step, per_epoch)
                if place == 0 and (epoch % options.evaluate_every == 0 or epoch == options.epochs):
                    stopped = self._evaluate(epoch, record, held_out)
                if self._step % options.checkpoint_every == 0:
                    self._save(job, self.task)
                bar.update(1, note=f"{self.task.nats(record):.2f} nats" if bar.enabled else "")
            self._save(job, self.task)
        if self._best is not None and options.early_stopping:
            self.task.load_state_dict(self._best)
        if self.log_with:
            end_logs(self.accelerator)
        self.task.eval()
        return self.history

    def _optimizer_step(self, train: Mapping[str, np.ndarray], n: int, per_epoch: int, total: int) -> dict[str, float]:
        options, accelerator = self.options, self.accelerator
        rate = options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * self._step / total))
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        warm = options.warm_up * total
        beta = 1.0 if self._step >= warm else self._step / warm
        epoch, place = divmod(self._step, per_epoch)
        if self._order is None or self._order[0] != epoch:
            order = np.random.default_rng([self.seed, epoch]).permutation(n)
            self._order = (epoch, np.array_split(order, per_epoch))
        rows = self._order[1][place]
        world, rank = accelerator.num_processes, accelerator.process_index
        share = math.ceil(len(rows) / world)
        mine = slice(min(rank * share, len(rows)), min((rank + 1) * share, len(rows)))
        batch = self._tensors({key: held[rows[mine]] for key, held in train.items()}, pixels=not self.dynamic)
        x = batch["x"]
        if self.dynamic:
            uniforms = noise.uniform((len(rows), x.shape[1]), generator=self.generator, device=x.device)
            batch["x"] = x = binarise(x, uniforms[mine])
        drawn = self.task.draw(len(rows), generator=self.generator, like=x)
        if world > 1:
            drawn = {key: held if key.startswith("shared_") else held[..., mine, :] for key, held in drawn.items()}
        context = StepContext(self._schedule.at(self._step), beta, world / len(rows))
        with accelerator.autocast():
            loss, record = self.wrapped(batch, drawn, context)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss is {value} at step {self._step}: lower learning_rate ({options.learning_rate}) "
                "or raise the temperature"
            )
        accelerator.backward(loss)
        self.optimizer.step()
        self.optimizer.zero_grad()
        values = {key: float(held) for key, held in record.items()} | {"beta": beta}
        for key, held in values.items():
            self._sums[key] = self._sums.get(key, 0.0) + held
        self._count += 1
        return values

    def _tensors(self, arrays: Mapping[str, np.ndarray], pixels: bool = True) -> dict[str, Tensor]:
        made = {key: torch.from_numpy(np.ascontiguousarray(held)) for key, held in arrays.items()}
        if pixels:
            made["x"] = made["x"].float()
        return {key: held.to(self.accelerator.device) for key, held in made.items()}

    def _evaluate(self, epoch: int, record: dict[str, float], held_out: dict[str, Tensor] | None) -> bool:
        """Write the history; return whether to stop."""
        seed = int(np.random.SeedSequence([self.seed, 1, epoch]).generate_state(1)[0])
        generator = torch.Generator(device=self.accelerator.device).manual_seed(seed)
        means = {key: total / self._count for key, total in self._sums.items()}
        if self.accelerator.num_processes > 1:
            values = torch.tensor(list(means.values()), device=self.accelerator.device)
            means = dict(zip(means, self.accelerator.reduce(values, reduction="mean").tolist()))
        self._sums, self._count = {}, 0
        entry: dict[str, float] = {"epoch": epoch, "step": self._step, **means}
        self.task.eval()
        with torch.no_grad():
            self.task.settle(entry, generator)
            entry["temperature"] = self._schedule.at(self._step)
            entry["learning_rate"] = float(self.optimizer.param_groups[0]["lr"])
            if held_out is not None:
                measured = self.task.validate(held_out, generator=generator)
                entry |= {f"val_{key}": value for key, value in measured.items()}
        self.task.train()
        self.history.append(entry)
        if self.log_with:
            self.accelerator.log({k: v for k, v in entry.items() if k not in ("epoch", "step")}, step=self._step)
        if held_out is None or record["beta"] < 1.0:
            return False
        if entry["val_score"] > self._best_score:
            self._best_score, self._stale = entry["val_score"], 0
            if self.options.early_stopping:
                self._best = {name: value.detach().clone() for name, value in self.task.state_dict().items()}
        else:
            self._stale += 1
        return self._patience_is_over()

    def _patience_is_over(self) -> bool:
        return self.options.early_stopping and self._stale >= self.options.n_iter_no_change

    def _job(self, train: Mapping[str, np.ndarray], validation: Mapping[str, np.ndarray] | None) -> str:
        """What a checkpoint belongs to: options, seed, task, data, and the initial weights."""
        state = self.task.state_dict()
        data = [(key, arrays[key]) for arrays in (train, validation or {}) for key in sorted(arrays)]
        description = [
            asdict(self.options),
            self.seed,
            self.dynamic,
            self.task.description(),
            [[name, list(value.shape)] for name, value in state.items()],
            [key for key, _ in data],
        ]
        return fingerprint(description, *(held for _, held in data), *state.values())
