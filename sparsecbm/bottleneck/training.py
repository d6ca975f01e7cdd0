"""The training loop, on Accelerate: one process or many, one seed, checkpoints that resume exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsecbm._base.checkpoint import fingerprint
from sparsecbm._base.parameters import Annealing, Count, Flag, NonNegative, Positive, check_fields
from sparsecbm._base.training import TrainingLoop, threads_for
from sparsecbm.bottleneck.losses import Batch, ConceptLoss
from sparsecbm.bottleneck.model import ConceptBottleneck
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.samplers import noise as sampler_noise
from sparsecbm.samplers.schedules import ConstantSchedule, ExponentialSchedule

#: A head of few weights, (K, M) and (K,), for a model as far as it is trained.
Decide = Callable[[ConceptBottleneck], tuple[np.ndarray, np.ndarray]]


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

    max_iter: Count = 1000
    batch_size: Count = 64
    learning_rate: Positive = 3e-3
    layer_learning_rate: Positive = 1e-3
    loss_weight: NonNegative = 1.0
    head_l2: NonNegative = 1e-4
    input_noise: NonNegative = 1.0
    temperature: Annealing = (1.0, 0.1)
    early_stopping: Flag = False
    n_iter_no_change: Count = 5
    n_evaluations: Count = 20
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    gradient_accumulation_steps: Count = 1
    checkpoint_every: Count = 100

    def __post_init__(self) -> None:
        check_fields(self)


class Trainer(TrainingLoop):
    """Train a `ConceptBottleneck` on embeddings.

    Parameters
    ----------
    model : ConceptBottleneck
        Trained in place.
    loss : ConceptLoss
        Added to the cross-entropy with ``options.loss_weight``.
    options : TrainingOptions
    decide : callable or None
        Called at half time, once units have been turned back (`ConceptBottleneckLayer.narrow`); training goes on with
        only the concepts and weights of the head that it returns. None goes on with all.
    weights : ndarray of shape (n,) or None
        Of the training embeddings in the cross-entropy; their mean is 1.
    scores : callable or None
        Maps embeddings (n, d) to standardised concept scores (n, M), for the losses that look at them.
    **settings
        `seed`, `device`, `checkpoint_dir`, `log_with`, `log_dir` and `progress` of `TrainingLoop`.
    """

    _counters = (*TrainingLoop._counters, "_decided")

    def __init__(
        self,
        model: ConceptBottleneck,
        loss: ConceptLoss,
        options: TrainingOptions,
        *,
        decide: Decide | None = None,
        weights: np.ndarray | None = None,
        scores: Callable[[Tensor], Tensor] | None = None,
        **settings: Any,
    ) -> None:
        self.loss, self.decide, self.scores, self.weights = loss, decide, scores, weights
        groups: list[dict[str, Any]] = [
            {"params": list(model.layer.parameters()), "lr": options.layer_learning_rate},
            {"params": list(model.head.parameters()), "lr": options.learning_rate},
            {"params": list(model.gate.parameters()), "lr": 3.0 * options.learning_rate},
        ]
        groups = [{**group, "params": [p for p in group["params"] if p.requires_grad]} for group in groups]
        groups = [group for group in groups if group["params"]]
        self._peaks = [group["lr"] for group in groups]
        super().__init__(
            model,
            options,
            # One Adam over groups is the same as one Adam a module: its state is per parameter.
            lambda fused: torch.optim.AdamW(groups, betas=(0.9, 0.99), weight_decay=0.0, fused=fused),
            gradient_accumulation_steps=options.gradient_accumulation_steps,
            **settings,
        )
        first, last = options.temperature
        rate = math.log(first / last) / max(1, options.max_iter - 1)
        self._schedule = ExponentialSchedule(first, last, rate) if rate > 0 else ConstantSchedule(first)
        self._decided = False

    @property
    def model(self) -> ConceptBottleneck:
        """The model in training."""
        return self.module

    def fit(
        self,
        X: np.ndarray | Rows,
        y: np.ndarray,
        X_val: np.ndarray | Rows | None = None,
        y_val: np.ndarray | None = None,
    ) -> list[dict[str, float]]:
        """Train on embeddings `X` (n, d) and class indices `y` (n,), or 0 and 1 (n, K); return the history.

        Embeddings may be memory-mapped, and of any floating type: rows become float32 a batch at a time.

        The history has one entry an evaluation: step, loss, cross_entropy, concept_loss, temperature,
        active_concepts (a training batch's mean), learning_rate and, with validation data, val_accuracy.

        Raises
        ------
        InputError
            If training diverges: a loss or a weight that is not finite. None such is kept.
        """
        options = self.options
        every = max(1, math.ceil(options.max_iter / options.n_evaluations))

        def step() -> dict[str, float]:
            if not self._decided and 2 * self._step >= options.max_iter:
                self._halve(X)
            return self._optimizer_step(X, y)

        def look(record: dict[str, float]) -> bool:
            due = self._step % every == 0 or self._step == options.max_iter
            return due and self._evaluate(record, X_val, y_val)

        # A batch's largest product is batch x M x d.
        with threads_for(options.batch_size * self.model.gate.n_concepts * X.shape[1]):
            self._loop(
                self._job(X, y, X_val, y_val),
                options.max_iter,
                step,
                look,
                lambda record: f"loss {record['loss']:.3f}",
                project="sparsecbm",
            )
        self.model.layer.narrow(X)
        return self.history

    def _halve(self, X: np.ndarray | Rows) -> None:
        """Keep the concepts and weights that decide; what was judged with all of them is no measure for the rest."""
        self._decided = True
        self.model.layer.narrow(X)
        if self.decide is None:
            return
        weight, bias = (torch.from_numpy(part).to(self.accelerator.device) for part in self.decide(self.model))
        self.model.decide_by(weight, bias)
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)  # Accelerate's wrapper
        optimizer.state.clear()
        self._best, self._best_score, self._stale = None, -math.inf, 0

    def _optimizer_step(self, X: np.ndarray | Rows, y: np.ndarray) -> dict[str, Any]:
        options = self.options
        self._rate = 0.5 * (1.0 + math.cos(math.pi * self._step / options.max_iter))
        for group, peak in zip(self.optimizer.param_groups, self._peaks):
            group["lr"] = peak * self._rate
        record: dict[str, Any] = {}
        for part in range(options.gradient_accumulation_steps):
            rows = self._batch(len(y), self._step * options.gradient_accumulation_steps + part)
            with self.accelerator.accumulate(self.wrapped):
                loss, record = self._loss(X, y, rows)
                self.accelerator.backward(self._finite(loss))
                self.optimizer.step()
                self.optimizer.zero_grad()
        return record

    def _batch(self, n: int, number: int) -> np.ndarray:
        """Rows of batch `number`."""
        size = min(self.options.batch_size, n)
        epoch, place = divmod(number, math.ceil(n / size))
        return self._epoch(epoch, n)[place * size : (place + 1) * size]

    def _loss(self, X: np.ndarray | Rows, y: np.ndarray, rows: np.ndarray) -> tuple[Tensor, dict[str, Any]]:
        options, accelerator = self.options, self.accelerator
        device, world = accelerator.device, accelerator.num_processes
        total = len(rows)
        mine = self._mine(total)
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
        each = None if self.weights is None else torch.from_numpy(self.weights[rows[mine]]).to(logits)
        cross_entropy = _cross_entropy(logits, labels, each) * (world / total)
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
            concept = self.loss(_gather_batch(batch, total, math.ceil(total / world)) if world > 1 else batch)
        else:
            concept = self.loss(batch).sum() * (world / total)
        penalty = options.head_l2 * self.model.head_weight().square().sum()
        loss = cross_entropy + options.loss_weight * concept + penalty
        record = {
            "loss": float(loss.detach()),
            "cross_entropy": float(cross_entropy.detach()),
            "concept_loss": float(concept.detach()),
            "temperature": temperature,
            "active_concepts": float(activations.detach().ne(0).sum(1).float().mean()) if len(x) else 0.0,
        }
        return loss, record

    def _evaluate(self, record: dict[str, Any], X_val: np.ndarray | Rows | None, y_val: np.ndarray | None) -> bool:
        """Write the history; return whether to stop."""
        entry = {
            "step": self._step,
            "learning_rate": self.options.learning_rate * self._rate,
            **self._mean_over_processes(record),
        }
        if X_val is not None and y_val is not None:
            entry["val_accuracy"] = self._accuracy(X_val, y_val)
        self._enter(entry)
        return "val_accuracy" in entry and self._judge(entry["val_accuracy"]) and (self._decided or self.decide is None)

    @torch.no_grad()
    def _accuracy(self, X: np.ndarray | Rows, y: np.ndarray, rows: int = 4096) -> float:
        right = 0
        for start in range(0, len(y), rows):
            x = torch.from_numpy(np.array(X[start : start + rows], dtype=np.float32)).to(self.accelerator.device)
            activations = self.model.gate(self.model.layer(x))
            logits = self.model.logits(activations).cpu().numpy()
            predicted = logits > 0 if y.ndim == 2 else logits.argmax(1)
            right += int((predicted == y[start : start + rows]).sum())
        return right / y.size

    def _job(
        self, X: np.ndarray | Rows, y: np.ndarray, X_val: np.ndarray | Rows | None, y_val: np.ndarray | None
    ) -> str:
        """What a checkpoint belongs to: options, seed, loss, gate, layer, initial weights and data."""
        layer, gate, state, loss = self.model.layer, self.model.gate, self.model.state_dict(), vars(self.loss)
        description = [
            asdict(self.options),
            self.seed,
            [type(self.loss).__qualname__, *loss],
            [gate.name, gate.options()],
            type(layer).__qualname__,
            [self.decide is not None, getattr(layer, "min_survival", 0.0)],
            [[name, list(value.shape)] for name, value in state.items()],
        ]
        data: list[Any] = [] if self.weights is None else [self.weights]
        for rows in (X, y, X_val, y_val):
            data += rows.parts if isinstance(rows, Rows) else (None if rows is None else np.asanyarray(rows),)
        return fingerprint(description, *loss.values(), *state.values(), *data)


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of the cross-entropies of class numbers (n,); of 0 and 1 (n, K), of binary ones."""
    if labels.ndim == 2:
        column = None if weights is None else weights[:, None]
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits), column, reduction="sum")
    if weights is None:
        return F.cross_entropy(logits, labels, reduction="sum")
    return weights @ F.cross_entropy(logits, labels, reduction="none")


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
