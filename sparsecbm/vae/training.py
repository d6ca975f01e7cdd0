"""The training loop of the VAEs, on Accelerate: one seed, checkpoints that resume exactly, early stopping."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsecbm._base.checkpoint import fingerprint
from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, Flag, NonNegative, Positive, Share, check_fields
from sparsecbm._base.training import TrainingLoop, threads_for
from sparsecbm.samplers import make_schedule, noise
from sparsecbm.vae.data import binarise
from sparsecbm.vae.tasks.base import StepContext, Task

__all__ = ["Trainer", "TrainingOptions"]


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

    epochs: Count = 100
    batch_size: Count = 100
    learning_rate: Positive = 3e-3
    adam_eps: Positive = 1e-3
    weight_decay: NonNegative = 1e-4
    temperature: dict[str, Any] = field(default_factory=lambda: {"name": "constant", "start": 0.5})
    warm_up: Share = 0.3
    evaluate_every: Count = 5
    early_stopping: Flag = False
    n_iter_no_change: Count = 5
    checkpoint_every: Count = 500
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"

    def __post_init__(self) -> None:
        check_fields(self)
        self.schedule()

    def schedule(self) -> Any:
        """Return the temperature schedule."""
        try:
            return make_schedule(**self.temperature)
        except (TypeError, ValueError) as error:
            raise InputError(f"temperature={self.temperature!r}: {error}") from None


class Trainer(TrainingLoop):
    """Train a :class:`Task`.

    Parameters
    ----------
    task : Task
        Trained in place.
    options : TrainingOptions
    dynamic : bool
        Whether the training pictures are intensities, binarised afresh at every step.
    **loop
        `seed`, `device`, `checkpoint_dir`, `log_with`, `log_dir` and `progress` of :class:`TrainingLoop`. Where several
        processes train, batch normalisation alone depends on how many: its statistics are each process's own.

    Attributes
    ----------
    history : list of dict
        One entry a look: epoch, step, bound (nats a picture, of the training objective), its parts, temperature, beta,
        learning_rate, and what :meth:`Task.validate` measures, prefixed with ``val_``.
    seconds : float
        Time spent training, over all runs that were resumed.
    """

    _counters = (*TrainingLoop._counters, "_sums", "_count", "seconds")

    def __init__(self, task: Task, options: TrainingOptions, *, dynamic: bool = False, **loop: Any) -> None:
        named = [(p.dim() > 1 and "prior." not in name, p) for name, p in task.named_parameters() if p.requires_grad]
        groups = [
            {"params": [p for matrix, p in named if matrix is decayed], "weight_decay": decay}
            for decayed, decay in ((True, options.weight_decay), (False, 0.0))
        ]

        def optimizer(fused: bool) -> torch.optim.Optimizer:
            held = [group for group in groups if group["params"]]
            return torch.optim.Adam(held, lr=options.learning_rate, eps=options.adam_eps, fused=fused)

        super().__init__(task, options, optimizer, **loop)
        self.dynamic = dynamic
        self.seconds = 0.0
        self._schedule = options.schedule()
        self._sums: dict[str, float] = {}
        self._count = 0

    @property
    def task(self) -> Task:
        """The task in training."""
        return self.module

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
            If training diverges: a loss, a weight or a measurement that is not finite. None such is kept.
        """
        options, n = self.options, len(train["x"])
        largest = max((p.numel() for p in self.task.parameters() if p.dim() > 1), default=0)
        samples = getattr(getattr(self.task, "objective", None), "samples", 1)
        per_epoch = math.ceil(n / min(options.batch_size, n))
        total = options.epochs * per_epoch
        held_out = None if validation is None else self._tensors(validation)
        started: float | None = None

        def step() -> dict[str, float]:
            nonlocal started
            if started is None:  # the first step of this run comes after what it resumes
                started = time.perf_counter() - self.seconds
            record = self._optimizer_step(train, n, per_epoch, total)
            self.seconds = time.perf_counter() - started
            return record

        def look(record: dict[str, float]) -> bool:
            epoch, place = divmod(self._step, per_epoch)
            due = place == 0 and (epoch % options.evaluate_every == 0 or epoch == options.epochs)
            return due and self._evaluate(epoch, record, held_out)

        self.task.train()
        with threads_for(options.batch_size * samples * largest):
            self._loop(
                self._job(train, validation),
                total,
                step,
                look,
                lambda record: f"{self.task.nats(record):.2f} nats",
                project="sparsecbm-vae",
            )
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
        size, larger = divmod(n, per_epoch)  # even batches: the first ones have a row more
        start = place * size + min(place, larger)
        rows = self._epoch(epoch, n)[start : start + size + (place < larger)]
        world, mine = accelerator.num_processes, self._mine(len(rows))
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
        accelerator.backward(self._finite(loss))
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
        means = self._mean_over_processes({key: total / self._count for key, total in self._sums.items()})
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
        self._enter(entry)
        if held_out is None or record["beta"] < 1.0:
            return False
        return self._judge(entry["val_score"])

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
