"""What every training loop is made of: whole steps, looks at held-out data, checkpoints, logs, an early or late end."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from sparsecbm._base.accelerator import end_logs, make_accelerator
from sparsecbm._base.checkpoint import Resumable
from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.threads import single_threaded_kernels

_THREADING_PAYS = 2**26  # multiply-adds


def threads_for(multiply_adds: int) -> contextlib.AbstractContextManager[Any]:
    """Kernels of one thread each where a step's largest product is so small that several would wait for each other."""
    return single_threaded_kernels() if multiply_adds < _THREADING_PAYS else contextlib.nullcontext()


class TrainingLoop(Resumable):
    """A module in training, on Accelerate.

    Parameters
    ----------
    module : torch.nn.Module
        Trained in place; everything that training carries on lies in its ``state_dict()``.
    options : dataclass
        With `learning_rate`, `mixed_precision`, `early_stopping`, `n_iter_no_change` and `checkpoint_every`.
    make_optimizer : callable
        Given whether fused kernels are at hand, returns the optimizer of the module's parameters.
    seed : int
        Of batches and noise. Every process draws the whole batch's noise and takes its own rows, so that the result
        does not depend on how many there are.
    device : str
        "auto", "cpu", "cuda" or "mps".
    checkpoint_dir : path or None
        Where to keep a checkpoint; one made by the same job is resumed exactly, any other is replaced.
    log_with, log_dir : str or None
        Any Accelerate tracker ("tensorboard", "wandb", ...) and its folder.
    progress : bool or None
        Progress bar; None decides by the terminal.
    **accelerate
        Further options of `make_accelerator`.

    Attributes
    ----------
    history : list of dict
        One entry a look.
    """

    _counters: ClassVar[tuple[str, ...]] = ("_step", "_best", "_best_score", "_stale", "history")

    def __init__(
        self,
        module: nn.Module,
        options: Any,
        make_optimizer: Callable[[bool], torch.optim.Optimizer],
        *,
        seed: int,
        device: str = "auto",
        checkpoint_dir: str | Path | None = None,
        log_with: str | None = None,
        log_dir: str | Path | None = None,
        progress: bool | None = None,
        **accelerate: Any,
    ) -> None:
        self.options, self.seed = options, int(seed)
        self.checkpoint_dir, self.log_with, self.progress = checkpoint_dir, log_with, progress
        self.accelerator = make_accelerator(
            device, mixed_precision=options.mixed_precision, log_with=log_with, log_dir=log_dir, **accelerate
        )
        optimizer = make_optimizer(self.accelerator.device.type in ("cpu", "cuda"))
        self.wrapped, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.module: Any = self.accelerator.unwrap_model(self.wrapped)
        self.generator = torch.Generator(device=self.accelerator.device).manual_seed(self.seed)
        self.history: list[dict[str, float]] = []
        self._step = 0
        self._order: tuple[int, np.ndarray] | None = None  # the running epoch and its permutation
        self._best: dict[str, Tensor] | None = None
        self._best_score = -math.inf
        self._stale = 0

    def _loop(
        self,
        job: str,
        total: int,
        step: Callable[[], dict[str, float]],
        look: Callable[[dict[str, float]], bool],
        note: Callable[[dict[str, float]], str],
        *,
        project: str,
    ) -> None:
        """Go on to step `total` from where the same job stopped.

        Parameters
        ----------
        job : str
            Fingerprint of everything that the result depends on.
        step : callable
            Makes one optimizer step and returns its record.
        look : callable
            Looks, where it is time to, at what the steps have made; returns whether to stop.
        note : callable
            What the progress bar shows of a record.
        project : str
            Name for the tracker.

        Raises
        ------
        InputError
            If weights stop being finite: none such are kept, in a checkpoint or as a result.
        """
        self._resume(job, self.module)
        if self.log_with:
            options = {key: str(value) for key, value in asdict(self.options).items()}
            self.accelerator.init_trackers(project, config=options)
        stopped = self._patience_is_over()
        with self._whole_steps() as interrupted, ProgressBar("training", total, self.progress) as bar:
            bar.update(self._step)
            while self._step < total and not stopped and not interrupted():
                try:
                    record = step()
                    self._step += 1
                    stopped = look(record)
                except ArithmeticError as error:  # a sampler was handed what is no number
                    raise self._diverged(str(error)) from error
                if self._step % self.options.checkpoint_every == 0:
                    self._keep(job)
                bar.update(1, note=note(record) if bar.enabled else "")
            self._keep(job)
        if self._best is not None and self.options.early_stopping:
            self.module.load_state_dict(self._best)
        if self.log_with:
            end_logs(self.accelerator)

    def _keep(self, job: str) -> None:
        for name, value in self.module.state_dict().items():
            if isinstance(value, Tensor) and value.is_floating_point() and not value.isfinite().all():
                raise self._diverged(f"{name} is not finite")
        self._save(job, self.module)

    def _diverged(self, what: str) -> InputError:
        return InputError(
            f"training diverged: {what} at step {self._step}; lower learning_rate ({self.options.learning_rate})"
        )

    def _finite(self, loss: Tensor) -> Tensor:
        """Return the loss after checking it, before anything is made of it."""
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._diverged(f"the loss is {value}")
        return loss

    def _epoch(self, epoch: int, n: int) -> np.ndarray:
        """The order of rows in an epoch, a permutation of its own, so that any batch can be made on its own."""
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(n))
        return self._order[1]

    def _mine(self, total: int) -> slice:
        """This process's rows among `total` of a batch."""
        share = math.ceil(total / self.accelerator.num_processes)
        rank = self.accelerator.process_index
        return slice(min(rank * share, total), min((rank + 1) * share, total))

    def _mean_over_processes(self, record: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return record
        values = torch.tensor(list(record.values()), device=self.accelerator.device)
        return dict(zip(record, self.accelerator.reduce(values, reduction="mean").tolist()))

    def _enter(self, entry: dict[str, float]) -> None:
        """Write a line of the history, to the tracker too."""
        for key, value in entry.items():
            if not math.isfinite(value):
                raise self._diverged(f"{key} is {value}")
        self.history.append(entry)
        if self.log_with:
            self.accelerator.log({k: v for k, v in entry.items() if k not in ("epoch", "step")}, step=self._step)

    def _judge(self, score: float) -> bool:
        """Take the validation score of the weights as they are, higher is better; return whether to stop."""
        if score > self._best_score:
            self._best_score, self._stale = score, 0
            if self.options.early_stopping:
                self._best = {name: value.detach().clone() for name, value in self.module.state_dict().items()}
        else:
            self._stale += 1
        return self._patience_is_over()

    def _patience_is_over(self) -> bool:
        return self.options.early_stopping and self._stale >= self.options.n_iter_no_change
