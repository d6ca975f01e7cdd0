"""Several trainings of a dictionary made one: the units that the trainings agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sparsecbm._base.rows import evenly_spaced
from sparsecbm.bottleneck.rows import Rows
from sparsecbm.dictionary.kinds.base import Dictionary
from sparsecbm.dictionary.training import DictionaryOptions

_LOOK, _ROWS = 16384, 2048
_TWIN = 0.3


def together(options: DictionaryOptions) -> DictionaryOptions:
    """How recurring units are trained with each other: so briefly that they rebuild a row and stay what they are."""
    return replace(
        options, max_iter=max(200, options.max_iter // 4), learning_rate=options.learning_rate / 2, revive=False
    )


@torch.no_grad()
def recurring(models: Sequence[Dictionary], X: np.ndarray | Rows, scale: float) -> Dictionary:
    """A dictionary of the units of several that recur most in the others, as many as each has.

    A unit recurs as far as its codes correlate with those of the most similar unit of each other dictionary. A unit
    whose codes correlate above 0.3 with those of one that recurs more is left out while there are others. Units keep
    their order from the first to the last of their dictionaries.

    Parameters
    ----------
    models : sequence of Dictionary
        Of one kind and size, trained on the same rows with the same centre.
    X : ndarray or Rows of shape (n, d)
        The rows; a part of many.
    scale : float
        Rows are divided by it.
    """
    alike = _correlations(models, X, scale)
    size, each = models[0].n_concepts, torch.arange(len(alike), device=alike.device)
    best = alike.reshape(len(alike), len(models), size).amax(2)
    best[each, each // size] = 0.0
    kept: list[int] = []
    twins: list[int] = []
    nearest = torch.full_like(alike[0], -1.0)  # of each unit to those kept
    for unit in best.sum(1).argsort(descending=True, stable=True).tolist():
        if nearest[unit] > _TWIN:
            twins.append(unit)
            continue
        kept.append(unit)
        if len(kept) == size:
            break
        nearest = torch.maximum(nearest, alike[unit])
    chosen = sorted([*kept, *twins][:size], key=lambda unit: (unit % size, unit))
    made = type(models[0])(models[0].atoms, models[0].centre, models[0].active)
    made.load_state_dict(models[0].state_dict())
    made.idle.zero_()
    for parameters in zip(made.parameters(), *(model.parameters() for model in models)):
        parameters[0].copy_(torch.cat(parameters[1:])[chosen])  # a row of every parameter is a unit's
    return made


def _correlations(models: Sequence[Dictionary], X: np.ndarray | Rows, scale: float) -> Tensor:
    """Of the codes of all units with each other; 0 for a unit that is never active."""
    index = evenly_spaced(len(X), _LOOK)
    device = models[0].atoms.device
    total = torch.zeros((), dtype=torch.float64, device=device)
    square = torch.zeros((), dtype=torch.float64, device=device)
    for start in range(0, len(index), _ROWS):
        x = torch.from_numpy(np.asarray(X[index[start : start + _ROWS]], dtype=np.float32) / np.float32(scale))
        codes = torch.cat([model.dense(x.to(device)) for model in models], 1).double()
        total, square = total + codes.sum(0), square + codes.T @ codes
    mean = total / len(index)
    covariance = square / len(index) - torch.outer(mean, mean)
    width = covariance.diagonal().clamp_min(0).sqrt()
    shown = width > 1e-9
    return torch.where(shown[:, None] & shown, covariance / torch.outer(width, width).clamp_min(1e-18), 0.0)
