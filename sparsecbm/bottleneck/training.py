"""The training loop, on Accelerate: one process or many, one seed, checkpoints that resume exactly."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecbm._base.accelerator import end_logs, make_accelerator
from sparsecbm._base.checkpoint import Resumable, fingerprint
from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.threads import single_threaded_kernels
from sparsecbm.bottleneck.losses import Batch, ConceptLoss
from sparsecbm.bottleneck.model import ConceptBottleneck
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.samplers import noise as sampler_noise
from sparsecbm.samplers.schedules import ConstantSchedule, ExponentialSchedule

_THREADING_PAYS = 2**26  # multiply-adds


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes
    ----------
    max_iter : int
        Optimizer steps.
    batch_size : int
        Images a step, over all processes together.
    learning_rate : float
        Of the head; the gate takes 3 times it. Cosine decay to 0.
    layer_learning_rate : float
        Of the Concept Bottleneck Layer.
    loss_weight : float
        Weight of the concept loss beside the cross-entropy.
    head_l2 : float
        Weight of ||W_head||^2.
    input_noise : float
        Standard deviation of the normal noise added to whitened embeddings (their own is 1).
    temperature : tuple of float
        First and last temperature of the gate, geometric in between.
    early_stopping : bool
        Stop when validation accuracy has not risen for `n_iter_no_change` evaluations; keep the best step's weights.
    n_iter_no_change : int
        Patience, in evaluations.
    n_evaluations : int
        How often the history is written and validation looked at.
    mixed_precision : {"no", "fp16", "bf16"}
        Accelerate's autocast.
    gradient_accumulation_steps : int
        Batches per optimizer step.
    checkpoint_every : int
        Optimizer steps between checkpoints, where a folder is given.
    """

    max_iter: int = 300
    batch_size: int = 256
    learning_rate: float = 3e-3
    layer_learning_rate: float = 1e-3
    loss_weight: float = 1.0
    head_l2: float = 1e-4
    input_noise: float = 1.0
    temperature: tuple[float, float] = (1.0, 0.1)
    early_stopping: bool = False
    n_iter_no_change: int = 5
    n_evaluations: int = 20
    mixed_precision: str = "no"
    gradient_accumulation_steps: int = 1
    checkpoint_every: int = 100

    def __post_init__(self) -> None:
        for name in ("max_iter", "batch_size", "n_iter_no_change", "n_evaluations", "gradient_accumulation_steps"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)!r}: expected a positive integer")
        for name in ("learning_rate", "layer_learning_rate"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}={getattr(self, name)!r}: expected a positive number")
        for name in ("loss_weight", "head_l2", "input_noise"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name}={getattr(self, name)!r}: expected a number that is not negative")
        if not self.temperature[0] >= self.temperature[1] > 0:
            raise InputError(
                f"temperature={self.temperature!r}: expected two positive numbers, first and last, not rising"
            )
        if self.mixed_precision not in ("no", "fp16", "bf16"):
            raise InputError(f"mixed_precision={self.mixed_precision!r}: expected 'no', 'fp16' or 'bf16'")


class Trainer(Resumable):
    """Train a `ConceptBottleneck` on embeddings.

    Parameters
    ----------
    model : ConceptBottleneck
        Trained in place.
    loss : ConceptLoss
        Added to the cross-entropy with ``options.loss_weight``.
    options : TrainingOptions
    seed : int
        Of batches and noise. Every process draws the whole batch's noise and takes its own rows, so that the result
        does not depend on how many there are (up to the order of floating-point sums).
    device : str
        "auto", "cpu", "cuda" or "mps".
    scores : callable or None
        Maps embeddings (n, d) to standardised concept scores (n, M), for the losses that look at them.
    checkpoint_dir : path or None
        Where to keep a checkpoint; one made by the same job is resumed exactly, any other is replaced.
    log_with, log_dir : str or None
        Any Accelerate tracker ("tensorboard", "wandb", ...) and its folder.
    progress : bool or None
        Progress bar; None decides by the terminal.
    """

    _counters = ("_step", "_best", "_best_accuracy", "_stale", "history")

    def __init__(
        self,
        model: ConceptBottleneck,
        loss: ConceptLoss,
        options: TrainingOptions,
        *,
        seed: int,
        device: str = "auto",
        scores: Callable[[Tensor], Tensor] | None = None,
        checkpoint_dir: str | Path | None = None,
        log_with: str | None = None,
        log_dir: str | Path | None = None,
        progress: bool | None = None,
    ) -> None:
        self.options, self.loss, self.seed, self.scores = options, loss, int(seed), scores
        self.checkpoint_dir, self.progress, self.log_with = checkpoint_dir, progress, log_with
        self.accelerator = make_accelerator(
            device,
            mixed_precision=options.mixed_precision,
            gradient_accumulation_steps=options.gradient_accumulation_steps,
            log_with=log_with,
            log_dir=log_dir,
        )
        gate = list(model.gate.parameters())
        groups = [
            {"params": list(model.layer.parameters()), "lr": options.layer_learning_rate},
            {"params": list(model.head.parameters()), "lr": options.learning_rate},
        ]
        if gate:
            groups.append({"params": gate, "lr": 3.0 * options.learning_rate})
        # One Adam over groups is the same as one Adam a module: its state is per parameter.
        fused = self.accelerator.device.type in ("cpu", "cuda")
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=fused)
        self._peaks = [group["lr"] for group in optimizer.param_groups]
        self.wrapped, self.optimizer = self.accelerator.prepare(model, optimizer)
        self.model: ConceptBottleneck = self.accelerator.unwrap_model(self.wrapped)
        self.generator = torch.Generator(device=self.accelerator.device).manual_seed(self.seed)
        first, last = options.temperature
        rate = math.log(first / last) / max(1, options.max_iter - 1)
        self._schedule = ExponentialSchedule(first, last, rate) if rate > 0 else ConstantSchedule(first)
        self.history: list[dict[str, float]] = []
        self._step = 0
        self._order: tuple[int, np.ndarray] | None = None  # the running epoch and its permutation
        self._best: dict[str, Tensor] | None = None
        self._best_accuracy = -1.0
        self._stale = 0

    def fit(
        self,
        X: np.ndarray | Rows,
        y: np.ndarray,
        X_val: np.ndarray | Rows | None = None,
        y_val: np.ndarray | None = None,
    ) -> list[dict[str, float]]:
        """Train on embeddings `X` (n, d) and class indices `y` (n,); return the history.

        Embeddings may be memory-mapped, and of any floating type: rows become float32 a batch at a time.

        The history has one entry an evaluation: step, loss, cross_entropy, concept_loss, temperature,
        active_concepts (a training batch's mean), learning_rate and, with validation data, val_accuracy.
        """
        options = self.options
        # A batch's largest product is batch x M x d; below this, more threads only wait for each other.
        small = options.batch_size * self.model.gate.n_concepts * X.shape[1] < _THREADING_PAYS
        with single_threaded_kernels() if small else contextlib.nullcontext():
            return self._fit(X, y, X_val, y_val)

    def _fit(
        self, X: np.ndarray, y: np.ndarray, X_val: np.ndarray | None, y_val: np.ndarray | None
    ) -> list[dict[str, float]]:
        options, accelerator = self.options, self.accelerator
        job = self._job(X, y, X_val, y_val)
        self._resume(job, self.model)
        if self.log_with:
            accelerator.init_trackers("sparsecbm", config={k: str(v) for k, v in asdict(options).items()})
        every = max(1, math.ceil(options.max_iter / options.n_evaluations))
        stopped = options.early_stopping and self._stale >= options.n_iter_no_change
        with self._whole_steps() as interrupted, ProgressBar("training", options.max_iter, self.progress) as bar:
            bar.update(self._step)
            while self._step < options.max_iter and not stopped and not interrupted():
                record = self._optimizer_step(X, y)
                self._step += 1
                if self._step % every == 0 or self._step == options.max_iter:
                    stopped = self._evaluate(record, X_val, y_val)
                if self._step % options.checkpoint_every == 0:
                    self._save(job, self.model)
                bar.update(1, note=f"loss {record['loss']:.3f}")
            self._save(job, self.model)
        if self._best is not None and options.early_stopping:
            self.model.load_state_dict(self._best)
        if self.log_with:
            end_logs(accelerator)
        return self.history

    def _optimizer_step(self, X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
        options = self.options
        decay = 0.5 * (1.0 + math.cos(math.pi * self._step / options.max_iter))
        for group, peak in zip(self.optimizer.param_groups, self._peaks):
            group["lr"] = peak * decay
        record: dict[str, Any] = {}
        for part in range(options.gradient_accumulation_steps):
            rows = self._batch(len(y), self._step * options.gradient_accumulation_steps + part)
            with self.accelerator.accumulate(self.wrapped):
                loss, record = self._loss(X, y, rows)
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
        return record

    def _batch(self, n: int, number: int) -> np.ndarray:
        """Rows of batch `number`: every epoch is a permutation of its own, so that any batch can be made on its own."""
        size = min(self.options.batch_size, n)
        per_epoch = math.ceil(n / size)
        epoch, place = divmod(number, per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(n))
        return self._order[1][place * size : (place + 1) * size]

    def _loss(self, X: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[Tensor, dict[str, Any]]:
        options, accelerator = self.options, self.accelerator
        device, world = accelerator.device, accelerator.num_processes
        total = len(rows)
        share = math.ceil(total / world)
        mine = slice(min(accelerator.process_index * share, total), min((accelerator.process_index + 1) * share, total))
        x = torch.from_numpy(np.array(X[rows[mine]], dtype=np.float32)).to(device)
        labels = torch.from_numpy(np.asarray(y[rows[mine]])).to(device)
        temperature = self._schedule.at(self._step)
        input_noise = None
        if options.input_noise > 0:
            drawn = sampler_noise.normal((total, x.shape[1]), generator=self.generator, device=device)
            input_noise = options.input_noise * drawn[mine]
        gate_noise = self.model.gate.draw_noise(total, self.generator)
        if gate_noise is not None:
            gate_noise = gate_noise[mine]
        with accelerator.autocast():
            units, activations, logits = self.wrapped(x, temperature, input_noise, gate_noise)
        logits = logits.float()
        # Summed over this process's rows and divided by the global batch; DDP averages over processes.
        cross_entropy = F.cross_entropy(logits, labels, reduction="sum") * (world / total)
        batch = Batch(
            x=x,
            scores=self.scores(x) if self.loss.needs_scores and self.scores else None,
            units=units.float(),
            activations=activations.float(),
            labels=labels,
            layer=self.model.layer,
            gate=self.model.gate,
            generator=self.generator,
        )
        if self.loss.whole_batch:
            concept = self.loss(_gather_batch(batch, total, share) if world > 1 else batch)
        else:
            concept = self.loss(batch).sum() * (world / total)
        penalty = options.head_l2 * self.model.head.weight.square().sum()
        loss = cross_entropy + options.loss_weight * concept + penalty
        record = {
            "loss": float(loss.detach()),
            "cross_entropy": float(cross_entropy.detach()),
            "concept_loss": float(concept.detach()),
            "temperature": temperature,
            "active_concepts": float(activations.detach().ne(0).sum(1).float().mean()) if len(x) else 0.0,
        }
        return loss, record

    def _evaluate(self, record: dict[str, Any], X_val: np.ndarray | None, y_val: np.ndarray | None) -> bool:
        """Write the history; return whether to stop."""
        entry = {
            "step": self._step,
            "learning_rate": float(self.optimizer.param_groups[1]["lr"]),
            **self._mean_over_processes(record),
        }
        stop = False
        if X_val is not None and y_val is not None:
            accuracy = self._accuracy(X_val, y_val)
            entry["val_accuracy"] = accuracy
            if accuracy > self._best_accuracy:
                self._best_accuracy, self._stale = accuracy, 0
                self._best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            else:
                self._stale += 1
            stop = self.options.early_stopping and self._stale >= self.options.n_iter_no_change
        self.history.append(entry)
        if self.log_with:
            self.accelerator.log({k: v for k, v in entry.items() if k != "step"}, step=self._step)
        return stop

    def _mean_over_processes(self, record: dict[str, Any]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return record
        values = torch.tensor(list(record.values()), device=self.accelerator.device)
        return dict(zip(record, self.accelerator.reduce(values, reduction="mean").tolist()))

    @torch.no_grad()
    def _accuracy(self, X: np.ndarray, y: np.ndarray, rows: int = 4096) -> float:
        right = 0
        for start in range(0, len(y), rows):
            x = torch.from_numpy(np.array(X[start : start + rows], dtype=np.float32)).to(self.accelerator.device)
            predicted = self.model.head(self.model.gate(self.model.layer(x))).argmax(1).cpu().numpy()
            right += int((predicted == y[start : start + rows]).sum())
        return right / len(y)

    def _job(self, X: np.ndarray, y: np.ndarray, X_val: np.ndarray | None, y_val: np.ndarray | None) -> str:
        """What a checkpoint belongs to: options, seed, loss, gate, layer, initial weights and data."""
        layer, gate, state, loss = self.model.layer, self.model.gate, self.model.state_dict(), vars(self.loss)
        description = [
            asdict(self.options),
            self.seed,
            [type(self.loss).__qualname__, *loss],
            [gate.name, gate.options()],
            [type(layer).__qualname__, getattr(layer, "max_turn", None)],
            [[name, list(value.shape)] for name, value in state.items()],
        ]
        data: list[Any] = []
        for rows in (X, y, X_val, y_val):
            data += rows.parts if isinstance(rows, Rows) else (None if rows is None else np.asanyarray(rows),)
        return fingerprint(description, *loss.values(), *state.values(), *data)


def _gather_batch(batch: Batch, total: int, share: int) -> Batch:
    """The whole batch on every process, with gradients flowing back to where each row came from."""
    from torch.distributed.nn.functional import all_gather

    def gather(rows: Tensor | None) -> Tensor | None:
        if rows is None:
            return None
        padded = torch.cat([rows, rows.new_zeros(share - len(rows), *rows.shape[1:])])
        pieces = all_gather(padded) if padded.is_floating_point() else _all_gather_integers(padded)
        return torch.cat(list(pieces))[:total]

    gathered = {name: gather(getattr(batch, name)) for name in ("x", "scores", "units", "activations", "labels")}
    return Batch(**gathered, layer=batch.layer, gate=batch.gate, generator=batch.generator)  # type: ignore[arg-type]


def _all_gather_integers(values: Tensor) -> list[Tensor]:
    pieces = [torch.empty_like(values) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(pieces, values)
    return pieces
