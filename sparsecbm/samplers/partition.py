"""Partition functions of restricted Boltzmann machines: annealed importance sampling both ways, and the bridge between.

The path (Salakhutdinov & Murray 2008): ``p_t(v, h) ~ exp((1 - t) a0.v - t E(v, h))``, t from 0 to 1, with the hidden
units summed out of the weights, ``f_t(v) = v.((1 - t) a0 + t a) + sum softplus(t (W^T v + b))``. Its start has the
partition function ``log Z_0 = sum softplus(a0) + n_h log 2``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from sparsecbm.samplers._checks import check_betas, check_count, check_finite
from sparsecbm.samplers.noise import bernoulli, compute_dtype
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine

__all__ = [
    "PartitionEstimate",
    "adaptive_betas",
    "annealed_importance_sampling",
    "base_rate_bias",
    "bridge_estimate",
    "reverse_annealed_importance_sampling",
]


@dataclass(frozen=True)
class PartitionEstimate:
    """An estimate of log Z.

    Attributes
    ----------
    log_partition : float
        The estimate, in nats.
    standard_error : float
        Its standard error in nats, by the delta method.
    effective_sample_size : float
        (sum w)^2 / sum w^2 of the importance weights, between 1 and the number of chains.
    bound : float
        A bound on log Z in expectation, by Jensen's inequality: from the mean *log* weight rather than the log mean
        weight. Below log Z forward, above it in reverse, and looser than the estimate; its noise is small against
        its gap.
    log_weights : torch.Tensor
        float64 log importance weights, one a chain: log (Z / Z_0) is estimated forward by their log-mean-exp, backward
        by minus it.
    log_base : float
        log Z_0 of the base distribution.
    """

    log_partition: float
    standard_error: float
    effective_sample_size: float
    bound: float
    log_weights: torch.Tensor
    log_base: float


def base_rate_bias(data: torch.Tensor, smoothing: float = 1.0) -> torch.Tensor:
    """Return visible biases a0 that reproduce the mean of each unit of `data` (n, n_visible), kept off 0 and 1."""
    if data.dim() != 2:
        raise ValueError(f"data must have shape (n, n_visible), got {tuple(data.shape)}")
    return torch.logit((data.sum(0) + smoothing) / (data.shape[0] + 2 * smoothing))


class _Path:
    """The annealing path between a base-rate distribution and the model: log-masses, sweeps, exact base samples."""

    def __init__(self, rbm: RestrictedBoltzmannMachine, base_bias: torch.Tensor | None) -> None:
        wide = compute_dtype(rbm.weight.dtype)
        held = (rbm.weight, rbm.visible_bias, rbm.hidden_bias)
        self.weight, self.visible_bias, self.hidden_bias = (parameter.detach().to(wide) for parameter in held)
        self.base_bias = torch.zeros_like(self.visible_bias) if base_bias is None else base_bias.to(self.visible_bias)
        if self.base_bias.shape != self.visible_bias.shape:
            raise ValueError(
                f"base_bias must be {rbm.n_visible} finite values, got shape {tuple(self.base_bias.shape)}"
            )
        for name, values in (("base_bias", self.base_bias), ("weight", self.weight)):
            check_finite(name, values)
        self.log_base = (-F.logsigmoid(-self.base_bias.double())).sum().item() + rbm.n_hidden * math.log(2.0)

    def base_sample(self, count: int, generator: torch.Generator | None) -> torch.Tensor:
        return bernoulli(self.base_bias.expand(count, -1).contiguous(), generator=generator)

    def input(self, visible: torch.Tensor) -> torch.Tensor:
        return torch.addmm(self.hidden_bias, visible, self.weight)

    def log_mass(self, visible: torch.Tensor, pre: torch.Tensor, t: float) -> torch.Tensor:
        """f_t(v), float64; `pre` is W^T v + b."""
        bias = torch.lerp(self.base_bias, self.visible_bias, t)
        return (visible @ bias).double() + F.softplus(t * pre).sum(-1, dtype=torch.float64)

    def sweep(self, pre: torch.Tensor, t: float, generator: torch.Generator | None) -> torch.Tensor:
        """Draw h given v, then v given h, under p_t; `pre` is overwritten."""
        hidden = bernoulli(pre.mul_(t), generator=generator, out=pre)
        logits = torch.addmm(torch.lerp(self.base_bias, self.visible_bias, t), hidden, self.weight.T, alpha=t)
        return bernoulli(logits, generator=generator, out=logits)


def _effective_size(log_weights: torch.Tensor) -> float:
    """(sum w)^2 / sum w^2."""
    return (2 * log_weights.logsumexp(0) - (2 * log_weights).logsumexp(0)).exp().item()


def _anneal(
    path: _Path, visible: torch.Tensor, ladder: list[float], generator: torch.Generator | None
) -> PartitionEstimate:
    """Weigh chains from samples of the first rung's distribution to the last rung: up, or down from the model."""
    sign = 1.0 if ladder[0] == 0.0 else -1.0
    count, log_base = len(visible), path.log_base
    pre = path.input(visible)
    log_weights = torch.zeros(count, dtype=torch.float64, device=visible.device)
    for t, following in itertools.pairwise(ladder):
        if 0.0 < t < 1.0:
            visible = path.sweep(pre, t, generator)
            pre = path.input(visible)
        log_weights += path.log_mass(visible, pre, following) - path.log_mass(visible, pre, t)
    log_mean = (log_weights.logsumexp(0) - math.log(count)).item()
    ess = _effective_size(log_weights)
    # The unbiased variance of the weights over their squared mean, by the effective size.
    error = math.sqrt(max(count / ess - 1, 0.0) / (count - 1)) if count > 1 else math.inf
    bound = log_base + sign * log_weights.mean().item()
    return PartitionEstimate(log_base + sign * log_mean, error, ess, bound, log_weights, log_base)


@torch.no_grad()
def annealed_importance_sampling(
    rbm: RestrictedBoltzmannMachine,
    betas: torch.Tensor | Sequence[float],
    n_chains: int,
    *,
    generator: torch.Generator | None,
    base_bias: torch.Tensor | None = None,
) -> PartitionEstimate:
    """Estimate log Z from below: E[exp(estimate)] = Z, so the expected estimate is at most log Z.

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
        The model. Its hidden side is summed out, so let it be the larger one where there is a choice.
    betas : sequence of float
        Inverse temperatures, rising strictly from 0 to 1; see also :func:`adaptive_betas`.
    n_chains : int
        Independent chains.
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    base_bias : torch.Tensor, optional
        Visible biases of the base distribution, shape (n_visible,); zeros by default. See :func:`base_rate_bias`.

    Returns
    -------
    PartitionEstimate

    Raises
    ------
    ValueError
        If the betas do not rise strictly from 0 to 1.

    References
    ----------
    Neal 2001, "Annealed importance sampling"; Salakhutdinov & Murray 2008, "On the quantitative analysis of DBNs".
    """
    ladder = check_betas(betas).tolist()
    path = _Path(rbm, base_bias)
    return _anneal(path, path.base_sample(check_count("n_chains", n_chains), generator), ladder, generator)


@torch.no_grad()
def reverse_annealed_importance_sampling(
    rbm: RestrictedBoltzmannMachine,
    betas: torch.Tensor | Sequence[float],
    visible: torch.Tensor,
    *,
    generator: torch.Generator | None,
    base_bias: torch.Tensor | None = None,
) -> PartitionEstimate:
    """Estimate log Z from above, by annealing samples of the model back to the base distribution.

    Parameters
    ----------
    rbm, betas, generator, base_bias
        As for :func:`annealed_importance_sampling`.
    visible : torch.Tensor
        Samples of the model, shape (n_chains, n_visible): exact ones
        (:meth:`RestrictedBoltzmannMachine.sample_exact`), or from long chains, which make the bound approximate.

    Returns
    -------
    PartitionEstimate
        E[exp(-estimate)] = 1 / Z, so the expected estimate is at least log Z.

    References
    ----------
    Burda, Grosse & Salakhutdinov 2015, "Accurate and conservative estimates of MRF log-likelihood using reverse
    annealing".
    """
    ladder = check_betas(betas).tolist()
    path = _Path(rbm, base_bias)
    if visible.dim() != 2 or visible.shape[1] != rbm.n_visible or not len(visible):
        raise ValueError(f"visible must have shape (n_chains, {rbm.n_visible}), got {tuple(visible.shape)}")
    return _anneal(path, visible.detach().to(path.weight), ladder[::-1], generator)


def bridge_estimate(forward: PartitionEstimate, reverse: PartitionEstimate) -> PartitionEstimate:
    """Combine annealing in both directions by Bennett's acceptance ratio (BAR), the estimate of least variance.

    Parameters
    ----------
    forward, reverse : PartitionEstimate
        From :func:`annealed_importance_sampling` and :func:`reverse_annealed_importance_sampling` with the same
        betas and base distribution.

    Returns
    -------
    PartitionEstimate
        `effective_sample_size` is 1 / standard_error^2; `bound` is NaN, for it is none; `log_weights` are both
        directions' works, those of the reverse with their sign changed.

    Notes
    -----
    With x the log weight of a path, p_reverse(x) / p_forward(x) = exp(x - C), C = log (Z / Z_0) (Crooks 1999), so C
    is the maximum-likelihood intercept of a logistic regression of direction on x (Bennett 1976; Shirts et al. 2003).
    """
    if not math.isclose(forward.log_base, reverse.log_base, rel_tol=1e-12, abs_tol=1e-9):
        raise ValueError(
            f"forward and reverse must share a base distribution, got log Z_0 {forward.log_base} and {reverse.log_base}"
        )
    works_forward, works_reverse = forward.log_weights, -reverse.log_weights
    works = torch.cat([works_forward, works_reverse])
    n_forward, n_reverse = len(works_forward), len(works_reverse)
    offset = math.log(n_reverse / n_forward)
    low, high = works.min().item() - 50.0, works.max().item() + 50.0
    for _ in range(200):
        middle = (low + high) / 2
        balance = (
            torch.sigmoid(works_forward - middle + offset).sum()
            - torch.sigmoid(-(works_reverse - middle + offset)).sum()
        )
        low, high = (middle, high) if balance > 0 else (low, middle)
    ratio = (low + high) / 2
    overlap = torch.sigmoid(works - ratio + offset)
    information = (overlap * (1 - overlap)).sum().item()
    variance = max(1 / information - 1 / n_forward - 1 / n_reverse, 0.0) if information > 0 else math.inf
    error = math.sqrt(variance)
    ess = 1 / variance if variance > 0 else math.inf
    return PartitionEstimate(forward.log_base + ratio, error, ess, math.nan, works, forward.log_base)


@torch.no_grad()
def adaptive_betas(
    rbm: RestrictedBoltzmannMachine,
    *,
    generator: torch.Generator | None,
    n_chains: int = 256,
    target: float = 0.99,
    max_betas: int = 100_000,
    base_bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lay a ladder of inverse temperatures with equally hard steps, by a pilot run.

    Parameters
    ----------
    rbm, generator, base_bias
        As for :func:`annealed_importance_sampling`.
    n_chains : int, default=256
        Chains of the pilot run.
    target : float, default=0.99
        Relative effective sample size of each step's weights, between 0 and 1; nearer 1 means more steps.
    max_betas : int, default=100000
        Most values before giving up.

    Returns
    -------
    torch.Tensor
        float64, rising strictly from 0 to 1.

    Notes
    -----
    Each next value is the largest, by bisection, whose incremental weights keep the effective sample size at `target`
    (Jasra et al. 2011; Zhou, Johansen & Aston 2016). Use the ladder with a *fresh* generator state for an unbiased
    estimate.
    """
    if not 0 < target < 1:
        raise ValueError(f"target must lie strictly between 0 and 1, got {target}")
    path = _Path(rbm, base_bias)
    n_chains = check_count("n_chains", n_chains, 2)
    visible = path.base_sample(n_chains, generator)
    pre = path.input(visible)
    ladder = [0.0]

    def relative_size(t: float, current: torch.Tensor) -> float:
        return _effective_size(path.log_mass(visible, pre, t) - current) / n_chains

    while ladder[-1] < 1.0:
        if len(ladder) >= max_betas:
            raise ValueError(
                f"more than max_betas={max_betas} values needed; lower target ({target}) or raise max_betas"
            )
        current = path.log_mass(visible, pre, ladder[-1])
        low, high = ladder[-1], 1.0
        if relative_size(1.0, current) >= target:
            ladder.append(1.0)
            break
        for _ in range(30):
            middle = (low + high) / 2
            low, high = (middle, high) if relative_size(middle, current) >= target else (low, middle)
        ladder.append(max(low, ladder[-1] + 1e-7))
        visible = path.sweep(pre, ladder[-1], generator)
        pre = path.input(visible)
    return torch.tensor(ladder, dtype=torch.float64)
