"""Likelihoods that can be trusted: hard samples of the discrete model, log Z with its error, an interval or a bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives.base import log_mass_ratio
from sparsecbm.vae.priors import LogPartition, Prior

__all__ = [
    "EFFECTIVE_SAMPLES",
    "LikelihoodEstimate",
    "LogPartition",
    "Weights",
    "estimate_log_likelihood",
    "estimate_log_partition",
    "importance_weights",
    "weigh",
]

EFFECTIVE_SAMPLES = 150
"""Effective samples of the median picture from which on a normal interval covers what it says. On 200 small models with
exact likelihoods the 95% interval held them in 95 to 98% of the cases above 150, in 61 to 65% at 20, and at 5 in 1%
(factorial prior) and 28% (RBM), the estimate 1 to 1.6 nats too low."""

_ROW_NUMBERS = 1 << 20  # numbers in the largest temporary
_NORMAL_95 = 1.959964


def estimate_log_partition(
    prior: Prior, *, generator: torch.Generator | None, betas: int = 1000, chains: int = 1024, reverse: bool = True
) -> LogPartition:
    """Return log Z as the prior has it: 0 where it is normalised; for an RBM by enumeration of the smaller side where
    that has few units, else by annealed importance sampling.

    Parameters
    ----------
    prior : Prior
    generator : torch.Generator or None
        Source of randomness.
    betas : int, default=1000
        Inverse temperatures, evenly spaced.
    chains : int, default=1024
    reverse : bool, default=True
        Anneal samples of the model back as well (population-annealed ones, so that its bound is approximate).
    """
    return prior.estimate_log_partition(generator=generator, betas=betas, chains=chains, reverse=reverse)


@dataclass(frozen=True)
class LikelihoodEstimate:
    """Mean log-likelihood a picture, in nats, by importance sampling with hard samples.

    Attributes
    ----------
    log_likelihood : float
        Mean over the pictures of ``log 1/K sum_k p(x, z_k) / q(z_k | x)``: in expectation a lower bound of log p(x),
        but for the error of log Z.
    interval : tuple of float, or None
        95% interval of the log-likelihood of *these* pictures: from the importance weights and from log Z. None with
        fewer than `EFFECTIVE_SAMPLES`: then the weights seen do not tell how much is missing, and the value is a
        lower bound alone.
    population_interval : tuple of float, or None
        95% interval of the mean over all such pictures: the choice of test pictures added to it.
    elbo : float
        The bound with K = 1, for the same samples.
    importance_error, partition_error, picture_error : float
        Standard errors of the three sources.
    effective_sample_size : float
        Median over the pictures, between 1 and K.
    n_pictures, samples : int
    log_partition : LogPartition
    """

    log_likelihood: float
    interval: tuple[float, float] | None
    population_interval: tuple[float, float] | None
    elbo: float
    importance_error: float
    partition_error: float
    picture_error: float
    effective_sample_size: float
    n_pictures: int
    samples: int
    log_partition: LogPartition

    def __str__(self) -> str:
        if self.interval is None:
            return (
                f"at least {self.log_likelihood:.2f} nats ({self.effective_sample_size:.0f} effective samples of "
                f"{self.samples:,} support no interval, {EFFECTIVE_SAMPLES} would)"
            )
        return f"{self.log_likelihood:.2f} nats (95% interval {self.interval[0]:.2f} to {self.interval[1]:.2f})"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


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

    was_training = model.training
    model.eval()
    weights = weigh(x, samples, max(model.n_pixels, model.latents.width), log_weights, progress)
    model.train(was_training)
    return weights


def estimate_log_likelihood(
    model: DiscreteVAE,
    x: Tensor,
    samples: int = 4000,
    *,
    generator: torch.Generator | None,
    log_partition: LogPartition | None = None,
    betas: int = 1000,
    chains: int = 1024,
    progress: bool | None = False,
) -> LikelihoodEstimate:
    """Estimate the mean log-likelihood of pictures under the discrete model, with its interval.

    Parameters
    ----------
    model, x, samples, generator
        As for :func:`importance_weights`.
    log_partition : LogPartition or None
        log Z of the prior; estimated with `betas` and `chains` where it is missing.

    Returns
    -------
    LikelihoodEstimate

    Raises
    ------
    InputError
        If it is not finite.

    Notes
    -----
    Burda, Grosse & Salakhutdinov 2016 for the estimator; Salakhutdinov & Murray 2008 for log Z. A picture's
    importance error is that of a log-mean by the delta method, which few effective samples make too small: then there
    is no interval.
    """
    try:
        if log_partition is None:
            log_partition = estimate_log_partition(model.prior, generator=generator, betas=betas, chains=chains)
        weights = importance_weights(model, x, samples, generator=generator, progress=progress)
    except ArithmeticError as error:  # a sampler was handed what is no number
        raise InputError(f"the model has no likelihood ({error}): it is not one of a training that settled") from error
    count = len(x)
    value = float(weights.log_mean.mean()) - log_partition.value
    if not math.isfinite(value):
        raise InputError(f"the log-likelihood is {value}: the model is not one of a training that settled")
    importance_error = math.sqrt(float(weights.relative_variance.sum())) / count if samples > 1 else math.nan
    picture_error = float(weights.log_mean.std()) / math.sqrt(count) if count > 1 else math.nan
    own = _NORMAL_95 * math.hypot(0.0 if samples == 1 else importance_error, log_partition.standard_error)
    wide = math.hypot(own, _NORMAL_95 * picture_error) if count > 1 else math.nan
    size = float(weights.effective_sample_size.median())
    supported = size >= EFFECTIVE_SAMPLES
    return LikelihoodEstimate(
        log_likelihood=value,
        interval=(value - own, value + own) if supported else None,
        population_interval=(value - wide, value + wide) if supported else None,
        elbo=float(weights.mean_log.mean()) - log_partition.value,
        importance_error=importance_error,
        partition_error=log_partition.standard_error,
        picture_error=picture_error,
        effective_sample_size=size,
        n_pictures=count,
        samples=samples,
        log_partition=log_partition,
    )
