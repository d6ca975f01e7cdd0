"""Importance weights of pictures: drawn in chunks, kept as sums."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import log_mass_ratio

__all__ = ["Weights", "evaluating", "importance_weights", "weigh"]

_ROW_NUMBERS = 1 << 20  # numbers in the largest temporary


@dataclass(frozen=True)
class Weights:
    """What is kept of the importance weights of some rows; all float64, shape (B,).

    Attributes
    ----------
    log_mean, mean_log : torch.Tensor
        ``log 1/K sum w`` and ``1/K sum log w``.
    relative_variance : torch.Tensor
        Variance of the mean weight over its square.
    effective_sample_size : torch.Tensor
        (sum w)^2 / sum w^2, between 1 and K.
    """

    log_mean: Tensor
    mean_log: Tensor
    relative_variance: Tensor
    effective_sample_size: Tensor


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode for a while; the mode from before comes back, whatever happens."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def weigh(
    x: Tensor, samples: int, width: int, log_weights: Callable[[Tensor, int], Tensor], progress: bool | None = False
) -> Weights:
    """Weigh `samples` draws for each row, in chunks, so that memory does not grow with their number.

    Parameters
    ----------
    x : torch.Tensor, shape (B, n_pixels)
    samples : int
    width : int
        Numbers in the largest temporary of a draw.
    log_weights : callable
        Given some rows and how many draws, their log-weights, shape (draws, rows).

    Raises
    ------
    InputError
        If `samples` is no positive integer.
    """
    if not isinstance(samples, int) or samples < 1:
        raise InputError(f"samples={samples!r}: expected a positive integer")
    rows = max(1, _ROW_NUMBERS // width)
    pictures = max(1, min(len(x), 64, rows))
    chunk = max(1, min(samples, rows // pictures))
    found = []
    with ProgressBar("log-likelihood", math.ceil(len(x) / pictures), progress) as bar:
        for batch in x.split(pictures):
            # Sums of logarithms, so that none overflows.
            log_sum = torch.full((len(batch),), -math.inf, dtype=torch.float64, device=x.device)
            log_square, total = log_sum.clone(), torch.zeros_like(log_sum)
            for start in range(0, samples, chunk):
                wide = log_weights(batch, min(chunk, samples - start)).double()
                log_sum = torch.logaddexp(log_sum, wide.logsumexp(0))
                log_square = torch.logaddexp(log_square, (2 * wide).logsumexp(0))
                total += wide.sum(0)
            found.append(torch.stack([log_sum, total, log_square]))
            bar.update(1)
    log_sum, total, log_square = torch.cat(found, -1)
    inverse = (log_square - 2 * log_sum).exp()
    relative = (inverse - 1 / samples).clamp(min=0.0)
    return Weights(log_sum - math.log(samples), total / samples, relative, 1 / inverse)


def importance_weights(
    model: DiscreteVAE,
    x: Tensor,
    samples: int,
    *,
    generator: torch.Generator | None,
    progress: bool | None = False,
) -> Weights:
    """Weigh hard samples of each row's posterior: ``p(x, z) / q(z | x)``, without log Z.

    Parameters
    ----------
    model : DiscreteVAE
        Used in evaluation mode.
    x : torch.Tensor, shape (B, n_pixels)
        Binary pixels.
    samples : int
        Weights a row.
    generator : torch.Generator or None
        Source of randomness.
    """

    def log_weights(rows: Tensor, count: int) -> Tensor:
        draw = model.posterior(rows, count, mode="hard", generator=generator)
        return model.log_likelihood(rows, draw.state) + log_mass_ratio(model, draw)

    with evaluating(model):
        return weigh(x, samples, max(model.n_pixels, model.latents.width), log_weights, progress)
