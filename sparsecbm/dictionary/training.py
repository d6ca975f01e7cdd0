"""Training of a dictionary: whole steps over rows that may lie on disk; idle units are set to what is missing."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from sparsecbm._base.checkpoint import fingerprint
from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, Flag, Positive, check_fields
from sparsecbm._base.training import TrainingLoop, threads_for
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.dictionary.kinds.base import Dictionary, Step

_FIRST = 65536
"""Rows that centre, scale and first atoms are taken from."""
_REVIVALS, _LAST_REVIVAL = 20, 0.8


@dataclass(frozen=True)
class DictionaryOptions:
    """How to train.

    Attributes
    ----------
    max_iter, batch_size : int
        Optimizer steps; rows a step, over all processes together.
    learning_rate : float
        Of Adam, with cosine decay to 0.
    n_evaluations : int
        Entries of the history.
    checkpoint_every : int
        Steps between checkpoints, where a folder is given.
    revive : bool
        Whether units that no row uses are pointed to what is missing.
    """

    max_iter: Count = 2000
    batch_size: Count = 512
    learning_rate: Positive = 3e-3
    n_evaluations: Count = 20
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    checkpoint_every: Count = 200
    revive: Flag = True
    early_stopping: Flag = False
    n_iter_no_change: Count = 5

    def __post_init__(self) -> None:
        check_fields(self)


def begin(X: np.ndarray | Rows, n_concepts: int, seed: int) -> tuple[Tensor, Tensor, float]:
    """First atoms (M, d), centre (d,) and the scale by which rows are divided, from a random part of the rows.

    Raises
    ------
    InputError
        If there are fewer different rows than concepts, or all rows are the same.
    """
    rng = np.random.default_rng([seed, 7])
    n = len(X)
    rows = np.arange(n) if n <= _FIRST else np.sort(rng.choice(n, _FIRST, replace=False))
    some = np.asarray(X[rows], dtype=np.float32)
    different = np.sort(np.unique(some, axis=0, return_index=True)[1])
    if len(different) < n_concepts:
        raise InputError(
            f"n_concepts={n_concepts} of {len(different)} different rows ({n} in all): expected at least as many "
            "different rows as concepts; ask for fewer concepts, or give more pictures"
        )
    centre = some.mean(axis=0, dtype=np.float64)
    scale = math.sqrt(float(np.square(some - centre).sum(axis=1, dtype=np.float64).mean()))
    if scale <= 1e-6 * float(np.abs(some).max()):
        raise InputError("X: all rows are the same but for rounding: there is nothing to find")
    atoms = (some[rng.choice(different, n_concepts, replace=False)] - centre) / scale
    lengths = np.linalg.norm(atoms, axis=1, keepdims=True)
    atoms = np.where(lengths > 1e-6, atoms, rng.normal(size=atoms.shape))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    return torch.from_numpy(atoms).float(), torch.from_numpy(centre / scale).float(), scale


class DictionaryTrainer(TrainingLoop):
    """Train a `Dictionary`.

    Parameters
    ----------
    model : Dictionary
        Trained in place.
    options : DictionaryOptions
    scale : float
        Rows are divided by it.
    **settings
        `seed`, `device`, `checkpoint_dir` and `progress` of `TrainingLoop`.
    """

    def __init__(self, model: Dictionary, options: DictionaryOptions, scale: float, **settings: Any) -> None:
        self.scale = scale
        super().__init__(
            model,
            options,
            lambda fused: torch.optim.Adam(model.parameters(), lr=options.learning_rate, fused=fused),
            **settings,
        )

    def fit(self, X: np.ndarray | Rows) -> list[dict[str, float]]:
        """Train on rows (n, d), of any floating type, memory-mapped or not; return the history.

        Entries have step, loss (on a batch: the share of variance that is not rebuilt, and the kind's own terms) and
        idle (the share of units that no row of late used).

        Raises
        ------
        InputError
            If training diverges.
        """
        options = self.options
        every = max(1, math.ceil(options.max_iter / options.n_evaluations))
        parts = X.parts if isinstance(X, Rows) else (X,)
        state = self.module.state_dict()
        job = fingerprint(
            [asdict(options), self.seed, self.scale, type(self.module).__qualname__, self.module.active, sorted(state)],
            *state.values(),
            *parts,
        )

        def look(record: dict[str, float]) -> bool:
            if self._step % every == 0 or self._step == options.max_iter:
                self._enter({"step": self._step, **self._mean_over_processes(record)})
            return False

        with threads_for(options.batch_size * self.module.atoms.numel()):
            self._loop(
                job,
                options.max_iter,
                lambda: self._optimizer_step(X),
                look,
                lambda record: f"loss {record['loss']:.3f}",
                project="sparsecbm-dictionary",
            )
        return self.history

    def _optimizer_step(self, X: np.ndarray | Rows) -> dict[str, float]:
        options, model, world = self.options, self.module, self.accelerator.num_processes
        progress = self._step / options.max_iter
        for group in self.optimizer.param_groups:
            group["lr"] = options.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        size = min(options.batch_size, len(X))
        epoch, place = divmod(self._step, len(X) // size)
        rows = np.sort(self._epoch(epoch, len(X))[place * size : (place + 1) * size])
        mine = self._mine(size)
        x = self._rows(X, rows[mine])
        noise = model.draw_noise(size, self.generator)
        with self.accelerator.autocast():
            made: Step = self.wrapped(x, None if noise is None else noise[mine], progress)
        loss = made.loss.sum() * (world / size)
        self.accelerator.backward(self._finite(loss))
        self.optimizer.step()
        self.optimizer.zero_grad()
        model.tidy()
        fired = self.accelerator.reduce(made.fired.float(), reduction="sum") if world > 1 else made.fired
        model.idle.add_(size).masked_fill_(fired > 0, 0)
        self._revive(X, rows)
        idle = model.idle >= self._patience(size)
        return {"loss": float(loss.detach()), "idle": float(idle.float().mean())}

    def _patience(self, size: int) -> int:
        return size * max(20, self.options.max_iter // (2 * _REVIVALS))

    @torch.no_grad()
    def _revive(self, X: np.ndarray | Rows, rows: np.ndarray) -> None:
        """Point units that no row has used for long to what is missing of badly rebuilt rows of the batch."""
        options, model = self.options, self.module
        due = (self._step + 1) % max(20, options.max_iter // _REVIVALS) == 0
        if not (options.revive and due) or self._step > _LAST_REVIVAL * options.max_iter:
            return
        dead = torch.nonzero(model.idle >= self._patience(len(rows)))[:, 0]
        if not len(dead):
            return
        x = self._rows(X, rows)  # all of the batch, so that every process finds the same
        missing = x - model.decode(model.codes(x))
        lengths = missing.norm(dim=1)
        usable = int((lengths > 1e-6).sum())
        dead = dead[:usable]
        if not len(dead):
            return
        chosen = torch.multinomial(lengths.square().clamp_min(1e-12), len(dead), generator=self.generator)
        model.revive(dead, missing[chosen] / lengths[chosen, None].clamp_min(1e-12))
        for parameter in (model.atoms, model.encoder, model.bias):
            for held in self.optimizer.state[parameter].values():
                if held.shape == parameter.shape:
                    held[dead] = 0.0

    def _rows(self, X: np.ndarray | Rows, rows: np.ndarray) -> Tensor:
        some = np.asarray(X[rows], dtype=np.float32) / np.float32(self.scale)
        return torch.from_numpy(some).to(self.accelerator.device)
