"""Binary and categorical Concrete (Gumbel-Softmax) distributions.

Samples live in logit space (binary) and log space (categorical), where nothing saturates: take ``y.sigmoid()`` or
``y.exp()`` for the relaxed state, ``hard(y)`` for the draw of the underlying discrete distribution that the same
noise gives.

Sources: Maddison, Mnih & Teh 2017, "The Concrete Distribution" (arXiv 1611.00712); Jang, Gu & Poole 2017, "Categorical
Reparameterization with Gumbel-Softmax" (arXiv 1611.01144).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.distributions import Bernoulli, Distribution, OneHotCategorical, constraints, register_kl

from sparsecbm.samplers._checks import (
    check_floating,
    check_logits,
    check_probs,
    check_shape,
    check_temperature,
    readable,
)
from sparsecbm.samplers._straight_through import straight_through
from sparsecbm.samplers.noise import UniformPairs, compute_dtype, fill, gumbel, in_blocks, logistic, narrow

__all__ = ["BinaryConcrete", "Concrete", "ConcreteDraw", "Independent", "straight_through"]

_EULER = 0.57721566490153286
_LARGEST_NOISE = 50.0
_AT_ONCE = 1 << 22


def _as_tensor(name: str, value: Any, like: torch.Tensor | None = None) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return check_floating(name, value)
    dtype = torch.get_default_dtype() if like is None else compute_dtype(like.dtype)
    return torch.as_tensor(value, dtype=dtype, device=like.device if like is not None else None)


def _parameters(
    temperature: Any, probs: Any, logits: Any, check: bool, *, binary: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return checked temperature and logits; what both distributions are made from."""
    name, value = _one_of(probs, logits)
    value = _as_tensor(name, value)
    wide = compute_dtype(value.dtype)
    if check:
        check_temperature(temperature, wide)
        check_probs(value, binary) if name == "probs" else check_logits(value)
    temperature = _as_tensor("temperature", temperature, value)
    if name == "probs":
        value = (value.to(wide).logit() if binary else value.to(wide).log()).to(value.dtype)
    return temperature, value


def _in_blocks(logits: torch.Tensor, temperature: torch.Tensor, generator: torch.Generator | None) -> bool:
    """Whether the fused samples serve: on a CPU, nothing traced, no score beyond the largest number."""
    if not in_blocks(logits.device, generator) or not logits.numel():
        return False
    one_each = temperature[tuple(slice(1) if step == 0 else slice(None) for step in temperature.stride())]
    largest = torch.linalg.vector_norm(logits.detach()) + _LARGEST_NOISE  # no less than the largest, the fastest to get
    return bool(largest / one_each.detach().min() < torch.finfo(logits.dtype).max / 2)


def _one_of(probs: Any, logits: Any) -> tuple[str, Any]:
    if (probs is None) == (logits is None):
        raise ValueError(f"pass exactly one of probs and logits, got {'neither' if probs is None else 'both'}")
    return ("logits", logits) if probs is None else ("probs", probs)


@dataclass(frozen=True)
class ConcreteDraw:
    """One reparameterised draw, seen as the relaxed state and as the discrete one.

    Attributes
    ----------
    value : torch.Tensor
        The sample in logit space (binary) or log space (categorical), float32 or wider.
    soft : torch.Tensor
        The relaxed state, in [0, 1]; differentiable.
    hard : torch.Tensor
        The discrete state given by the same noise, zeros and ones; no gradient.
    """

    value: torch.Tensor
    soft: torch.Tensor
    hard: torch.Tensor

    def straight_through(self) -> torch.Tensor:
        """Return `hard` carrying the gradient of `soft`."""
        return straight_through(self.hard, self.soft)


class _Sample(torch.autograd.Function):
    """``(logits + noise) / temperature``, or its log-softmax along the rows of a simplex, and the discrete draw.

    Given `limits`, the relaxed state between them in its place. All of it a cache-sized stretch at a time;
    differentiable, twice too.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: torch.Tensor,
        temperature: torch.Tensor,
        shape: tuple[int, ...],
        generator: torch.Generator | None,
        simplex: bool,
        limits: tuple[float, float] | None,
        with_hard: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        n = shape[-1] if simplex else 1
        rows, temperatures = logits.reshape(-1, n), temperature.reshape(-1, 1)
        hard = logits.new_zeros(shape) if with_hard else None
        normalised = torch.log_softmax if limits is None else torch.softmax

        def block(pairs: UniformPairs, out: torch.Tensor, start: int) -> torch.Tensor:
            drawn, first = out.view(-1, n), start // n
            scores = (pairs.passing_odds(len(out)) if simplex else pairs.odds(out)).view(-1, n)
            wanted = _repeated(rows, first, len(scores))
            if simplex:
                torch.sub(wanted, scores.log1p_().log_(), out=scores)
            else:
                scores.log_().add_(wanted)
            if hard is not None:  # before the scores are scaled, which at large temperatures rounds them together
                ones = hard.view(-1)[start:][: len(out)].view(-1, n)
                ones.scatter_(-1, scores.argmax(-1, True), 1.0) if simplex else torch.gt(scores, 0, out=ones)
            scores.div_(_repeated(temperatures, first, len(scores)))
            if simplex:
                normalised(scores, -1, out=drawn)
            elif limits is not None:
                scores.sigmoid_()
            return drawn if limits is None else drawn.clamp_(*limits)

        value = fill(shape, block, generator=generator, dtype=logits.dtype, device=logits.device, row=n)
        ctx.save_for_backward(value, temperature)
        ctx.logits_shape, ctx.simplex, ctx.is_state = logits.shape, simplex, limits is not None
        if hard is not None:
            ctx.mark_non_differentiable(hard)
        return value, hard

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        value, temperature = ctx.saved_tensors
        if ctx.is_state:
            state = value
            grad = state * (grad - (grad * state).sum(-1, keepdim=True) if ctx.simplex else grad * (1 - state))
        elif ctx.simplex:  # y = s - logsumexp(s): dy/ds = I - softmax(s), softmax(s) = exp(y)
            grad = grad - value.exp() * grad.sum(-1, keepdim=True)
        grad_scores = grad / temperature
        grad_logits = grad_scores.sum_to_size(ctx.logits_shape) if ctx.needs_input_grad[0] else None
        grad_temperature = None
        if ctx.needs_input_grad[1]:
            # Scores are this up to a constant per row of a simplex, to which grad_scores is orthogonal. A state's is as
            # exact as it need be: where its logit is rough, grad_scores is small.
            scores = value if not ctx.is_state else value.log() if ctx.simplex else value.logit()
            grad_temperature = (-grad_scores * scores).sum_to_size(temperature.shape)
        return grad_logits, grad_temperature, None, None, None, None, None


def _repeated(rows: torch.Tensor, first: int, count: int) -> torch.Tensor:
    """Return `count` rows from `first` on, of `rows` repeated for ever."""
    first %= len(rows)
    head = rows[first : first + count]
    rest = count - len(head)
    return torch.cat((head, rows.repeat(-(-rest // len(rows)), 1)[:rest])) if rest else head


class _ConcreteDistribution(Distribution):
    """What the two distributions share: types, draws, and how they are expanded."""

    has_rsample = True
    temperature: torch.Tensor
    logits: torch.Tensor

    @property
    def dtype(self) -> torch.dtype:
        """Type of the samples: that of `logits`."""
        return self.logits.dtype

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with its batch shape expanded, without copying."""
        new = self._get_checked_instance(type(self), _instance)
        shape = torch.Size(batch_shape)
        new.temperature = self.temperature.expand(shape)
        new.logits = self.logits.expand(shape + self.event_shape)
        Distribution.__init__(new, shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    def _wide(self) -> tuple[torch.Tensor, torch.Tensor]:
        wide = torch.promote_types(compute_dtype(self.logits.dtype), compute_dtype(self.temperature.dtype))
        return self.temperature.to(wide), self.logits.to(wide)

    def _sample_wide(
        self,
        sample_shape: Any,
        generator: torch.Generator | None,
        with_hard: bool = False,
        limits: tuple[float, float] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return samples, or given `limits` their states between those; and on request the discrete draws."""
        temperature, logits = self._wide()
        simplex = bool(self.event_shape)
        if simplex:
            temperature = temperature.unsqueeze(-1)
        shape = (*check_shape(sample_shape), *logits.shape)
        if _in_blocks(logits, temperature, generator):
            return _Sample.apply(logits, temperature, shape, generator, simplex, limits, with_hard)
        noise = gumbel if simplex else logistic
        scores = logits + noise(shape, generator=generator, dtype=logits.dtype, device=logits.device)
        y = self._scaled(scores, temperature)
        return y if limits is None else self._soft(y).clamp(*limits), self.hard(scores) if with_hard else None

    def _scaled(self, scores: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    @staticmethod
    def hard(y: torch.Tensor) -> torch.Tensor:
        """Return the discrete state of samples."""
        raise NotImplementedError

    def rsample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw reparameterised samples in logit or log space, shape sample_shape + batch_shape + event_shape.

        Parameters
        ----------
        sample_shape : int or sequence of int, default=()
            Leading shape.
        generator : torch.Generator, optional
            Source of randomness; None means PyTorch's default generator.
        """
        return narrow(self._sample_wide(sample_shape, generator)[0], self.dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """As :meth:`rsample`, without a gradient."""
        return self.rsample(sample_shape, generator=generator)

    def draw(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> ConcreteDraw:
        """Draw once and return the sample, its relaxed state and its hard state (:class:`ConcreteDraw`)."""
        y, hard = self._sample_wide(sample_shape, generator, with_hard=True)
        assert hard is not None
        return ConcreteDraw(y, self._soft(y), hard)

    def _soft(self, y: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class BinaryConcrete(_ConcreteDistribution):
    """Binary Concrete distribution in logit space: ``y = (logits + L) / temperature``, L standard logistic.

    Parameters
    ----------
    temperature : float or torch.Tensor
        Above 0; broadcast with the other parameter.
    probs : torch.Tensor, optional
        P(hard = 1), strictly between 0 and 1. Pass exactly one of `probs` and `logits`.
    logits : torch.Tensor, optional
        Log-odds that the hard sample is 1, finite.
    validate_args : bool, optional
        Whether to check parameters and values; None means torch.distributions' setting.

    Raises
    ------
    ValueError
        If temperature <= 0, or a parameter is not finite.

    Notes
    -----
    Log-density (Maddison et al. 2017, appendix C.3): with d = logits - temperature * y,
    ``log temperature + log sigmoid(d) + log sigmoid(-d)``. y is a logistic variable with location logits /
    temperature and scale 1 / temperature, so mean, variance, distribution function and entropy are in closed form.
    ``1[y > 0]`` is Bernoulli(sigmoid(logits)) at every temperature. float16 and bfloat16 parameters are computed
    with in float32; `rsample` rounds once to their type, `log_prob` stays in float32.

    Examples
    --------
    >>> q = BinaryConcrete(0.5, logits=torch.zeros(3))
    >>> y = q.rsample(generator=torch.Generator().manual_seed(0))
    >>> y.shape, q.log_prob(y).shape
    (torch.Size([3]), torch.Size([3]))
    """

    arg_constraints = {"temperature": constraints.positive, "logits": constraints.real}
    support = constraints.real

    def __init__(
        self,
        temperature: float | torch.Tensor,
        probs: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check = Distribution._validate_args if validate_args is None else validate_args
        temperature, value = _parameters(temperature, probs, logits, check, binary=True)
        self.temperature, self.logits = torch.broadcast_tensors(temperature, value)
        super().__init__(self.logits.shape, validate_args=False)
        self._validate_args = check

    @property
    def probs(self) -> torch.Tensor:
        """P(hard = 1), shape `batch_shape`."""
        return self.logits.sigmoid()

    @property
    def discrete(self) -> Bernoulli:
        """The distribution of the hard samples."""
        return Bernoulli(logits=self.logits, validate_args=False)

    @property
    def mean(self) -> torch.Tensor:
        """Mean of y (logit space)."""
        return self.logits / self.temperature

    @property
    def variance(self) -> torch.Tensor:
        """Variance of y (logit space)."""
        return (math.pi / self.temperature) ** 2 / 3

    def _scaled(self, scores: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        limits = torch.finfo(scores.dtype)
        return (scores / temperature).clamp(limits.min, limits.max)

    def _soft(self, y: torch.Tensor) -> torch.Tensor:
        return y.sigmoid()

    @staticmethod
    def hard(y: torch.Tensor) -> torch.Tensor:
        """Return the discrete state of samples in logit space: 1 where y > 0."""
        return (y.detach() > 0).to(y.dtype)

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the log-density of logit-space samples, with respect to dy."""
        if self._validate_args:
            self._validate_sample(value)
        temperature, logits = self._wide()
        d = logits - temperature * value
        return temperature.log() + F.logsigmoid(d) + F.logsigmoid(-d)

    def cdf(self, value: torch.Tensor) -> torch.Tensor:
        """Return P(Y <= value)."""
        temperature, logits = self._wide()
        return torch.sigmoid(temperature * value - logits)

    def icdf(self, value: torch.Tensor) -> torch.Tensor:
        """Return the quantile of `value`, in (0, 1)."""
        temperature, logits = self._wide()
        return (logits + torch.logit(value)) / temperature

    def entropy(self) -> torch.Tensor:
        """Return the differential entropy of y: 2 - log temperature (a logistic variable of scale 1 / temperature)."""
        temperature, _ = self._wide()
        return 2.0 - temperature.log()


class Concrete(_ConcreteDistribution):
    """Categorical Concrete distribution in log space (ExpConcrete): ``y = log_softmax((logits + G) / temperature)``.

    Parameters
    ----------
    temperature : float or torch.Tensor
        Above 0; broadcast with the batch shape.
    probs : torch.Tensor, optional
        Class probabilities up to a factor per row, shape (..., n), above 0. Pass exactly one of `probs` and `logits`.
    logits : torch.Tensor, optional
        Class log-probabilities up to a constant per row, shape (..., n), finite.
    validate_args : bool, optional
        Whether to check parameters and values; None means torch.distributions' setting.

    Raises
    ------
    ValueError
        If temperature <= 0, a parameter is not finite, or there is no last dimension of classes.

    Notes
    -----
    Log-density (Maddison et al. 2017, appendix C.2): with s = logits - temperature * y,
    ``log (n-1)! + (n-1) log temperature + sum_k log_softmax(s)_k``, with respect to the n - 1 log-ratios y_k - y_n.
    It is the density of torch.distributions' ExpRelaxedCategorical; subtract ``y.sum(-1)`` for the density of
    ``y.exp()`` on the simplex. With E_k the exponentials behind the Gumbel noise, that density is ``log (n-1)! +
    (n-1) log temperature + sum_k log E_k - n log sum_k E_k``, whence the entropy in closed form.

    Examples
    --------
    >>> q = Concrete(0.5, logits=torch.zeros(2, 3))
    >>> y = q.rsample(generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(y.exp().sum(-1), torch.ones(2))
    True
    """

    arg_constraints = {"temperature": constraints.positive, "logits": constraints.real_vector}
    support = constraints.real_vector

    def __init__(
        self,
        temperature: float | torch.Tensor,
        probs: torch.Tensor | None = None,
        logits: torch.Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        check = Distribution._validate_args if validate_args is None else validate_args
        temperature, value = _parameters(temperature, probs, logits, check, binary=False)
        if value.dim() < 1 or value.shape[-1] < 1:
            raise ValueError(f"logits must have a last dimension of at least one class, got shape {tuple(value.shape)}")
        batch_shape = torch.broadcast_shapes(temperature.shape, value.shape[:-1])
        self.temperature = temperature.expand(batch_shape)
        self.logits = value.expand(*batch_shape, value.shape[-1])
        super().__init__(batch_shape, value.shape[-1:], validate_args=False)
        self._validate_args = check

    @property
    def probs(self) -> torch.Tensor:
        """Probabilities of the hard samples, shape batch_shape + (n,)."""
        return self.logits.softmax(-1)

    @property
    def discrete(self) -> OneHotCategorical:
        """The distribution of the hard samples."""
        return OneHotCategorical(logits=self.logits, validate_args=False)

    def _scaled(self, scores: torch.Tensor, temperature: torch.Tensor) -> torch.Tensor:
        # The largest score becomes 0 before scaling: what overflows then is the log of a probability that is 0.
        lead = (scores - scores.amax(-1, keepdim=True)) / temperature
        return lead.clamp(min=torch.finfo(scores.dtype).min / 2).log_softmax(-1)

    def _soft(self, y: torch.Tensor) -> torch.Tensor:
        return y.exp()

    @staticmethod
    def hard(y: torch.Tensor) -> torch.Tensor:
        """Return the discrete state of log-space samples: a one at the largest entry.

        At temperatures of thousands samples lie so close together that float32 rounds some to one value, and the first
        of those gets the one. :meth:`draw` decides before the scaling and is exact at every temperature.
        """
        first = y.detach().argmax(-1, keepdim=True)
        return torch.zeros_like(y).scatter(-1, first, torch.ones_like(first, dtype=y.dtype))

    def log_prob(self, value: torch.Tensor) -> torch.Tensor:
        """Return the log-density of log-space samples, with respect to the log-ratios; shape of the batch."""
        if self._validate_args:
            self._validate_sample(value)
        temperature, logits = self._wide()
        n = self.event_shape[0]
        scores = logits - temperature.unsqueeze(-1) * value
        return math.lgamma(n) + (n - 1) * temperature.log() + scores.log_softmax(-1).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy of the log-ratios: n (gamma + digamma(n)) - log (n-1)! - (n-1) log temperature."""
        temperature, _ = self._wide()
        n = self.event_shape[0]
        digamma = torch.digamma(torch.tensor(float(n), dtype=torch.float64)).item()
        return n * (_EULER + digamma) - math.lgamma(n) - (n - 1) * temperature.log()


class Independent(torch.distributions.Independent):
    """torch.distributions' Independent over one of the distributions here: draws hand `generator` on.

    Examples
    --------
    >>> q = Independent(BinaryConcrete(0.5, logits=torch.zeros(2, 3)), 1)
    >>> y = q.rsample((4,), generator=torch.Generator().manual_seed(0))
    >>> y.shape, q.log_prob(y).shape
    (torch.Size([4, 2, 3]), torch.Size([4, 2]))
    """

    def rsample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """As the base distribution's."""
        return self.base_dist.rsample(sample_shape, generator=generator)

    def sample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """As the base distribution's."""
        return self.base_dist.sample(sample_shape, generator=generator)

    def draw(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> ConcreteDraw:
        """As the base distribution's."""
        return self.base_dist.draw(sample_shape, generator=generator)


def _same_temperatures(p: _ConcreteDistribution, q: _ConcreteDistribution) -> bool | None:
    """Whether all are; None where they cannot be looked at."""
    same = p.temperature == q.temperature
    return bool(same.all()) if readable(same) else None


@register_kl(BinaryConcrete, BinaryConcrete)
def _kl_binary_binary(p: BinaryConcrete, q: BinaryConcrete) -> torch.Tensor:
    """KL of two logistic variables. One scale: d coth(d / 2) - 2, d the difference of the logits (zero at d = 0).

    Otherwise, with r = tau_q / tau_p and a = logits_q - r logits_p, ``E|a - r L - M| - 2 - log r``, L and M standard
    logistic. E|d - M| is d + 2 log(1 + exp(-d)), and of L and M the one on the smaller scale is integrated over last:
    then the integrand is analytic at least pi around the line, and a step of 0.25 exact to float64.
    """
    (temperature_p, logits_p), (temperature_q, logits_q) = p._wide(), q._wide()
    if _same_temperatures(p, q):
        d = logits_p - logits_q
        small = d.abs() < 0.05
        safe = torch.where(small, torch.ones_like(d), d)
        series = d**2 / 6 - d**4 / 360 + d**6 / 15120
        return torch.where(small, series, safe / torch.tanh(safe / 2) - 2)
    ratio = temperature_q.double() / temperature_p.double()
    a = logits_q.double() - ratio * logits_p.double()
    larger = ratio.clamp(min=1.0)
    nodes = torch.arange(-45.0, 45.25, 0.25, dtype=torch.float64, device=a.device)
    density = 0.25 * torch.exp(F.logsigmoid(nodes) + F.logsigmoid(-nodes))
    d = (a.unsqueeze(-1) - ratio.clamp(max=1.0).unsqueeze(-1) * nodes) / larger.unsqueeze(-1)
    mean = larger * (-(F.logsigmoid(d) + F.logsigmoid(-d)) * density).sum(-1)
    return (mean - 2 - ratio.log()).to(logits_p.dtype)


@register_kl(Concrete, Concrete)
def _kl_concrete_concrete(p: Concrete, q: Concrete) -> torch.Tensor:
    """KL: with r = tau_q / tau_p, v = logits_q - r logits_p and E_k ~ Exp(1), the hard part is E log sum_k e^v_k E_k^r.

    By Frullani's integral E log X is E log E^r = -r gamma and the integral over log t of E exp(-t E^r) - E exp(-t X),
    a product over k. For r = 1 its factors are 1 / (1 + t e^v_k), otherwise integrals of their own. The trapezoid rule
    converges geometrically in both: the integrand is analytic (1 + r) pi / 2 around the line. How many points it takes
    hangs on r: where r cannot be looked at, temperatures that differ give NaN.
    """
    (temperature_p, logits_p), (temperature_q, logits_q) = p._wide(), q._wide()
    ratio = (temperature_q.double() / temperature_p.double()).unsqueeze(-1)
    v = logits_q.double() - ratio * logits_p.double()
    n = v.shape[-1]
    shift = v.logsumexp(-1, keepdim=True)
    same = _same_temperatures(p, q)
    least, most = (float(ratio.min()), max(float(ratio.max()), 1.0)) if same is False else (1.0, 1.0)
    step = (1 + least) / 8
    nodes = torch.arange(-32.0 - 4 * most, 36 * most + math.log(n), step, dtype=torch.float64, device=v.device)
    if most == least == 1.0:
        reference, product = -F.softplus(nodes), -sum_softplus((v - shift).unsqueeze(-2) + nodes.unsqueeze(-1))
    else:
        reference = _log_laplace(nodes.expand(*ratio.shape[:-1], -1), ratio)
        terms = (_log_laplace(one.unsqueeze(-1) + nodes, ratio) for one in (v - shift).unbind(-1))
        product = torch.stack(list(terms)).sum(0)
    mean_log = step * (reference.exp() - product.exp()).sum(-1) + shift.squeeze(-1) - ratio.squeeze(-1) * _EULER
    # E log p(y) is minus the entropy; the sum over k of what log q(y) is linear in has the mean of the Gumbel noise.
    linear = v.sum(-1) - n * ratio.squeeze(-1) * _EULER
    constant = math.lgamma(n) + (n - 1) * temperature_q.double().log()
    if same is None:
        constant = torch.where(temperature_p == temperature_q, constant, torch.nan)
    return (n * mean_log - linear - constant - p.entropy().double()).to(logits_p.dtype)


def _log_laplace(rates: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    """log E exp(-e^rate E^power), E ~ Exp(1), from the complement where that is the smaller; `power` broadcasts."""
    step = 0.25 / max(1.0, float(power.max()))
    line = torch.arange(-45.0, 4.5, step, dtype=torch.float64, device=rates.device)
    density = step * (line - line.exp()).exp()

    def integrate(rate: torch.Tensor, exponent: torch.Tensor) -> torch.Tensor:
        decay = (rate.unsqueeze(-1) + exponent.unsqueeze(-1) * line).clamp(max=700.0).exp()
        gone = (-torch.expm1(-decay) @ density).clamp(max=0.5)
        return torch.where(gone < 0.5, torch.log1p(-gone), (torch.exp(-decay) @ density).clamp(min=1e-300).log())

    parts = (part.reshape(-1).split(max(1, _AT_ONCE // len(line))) for part in torch.broadcast_tensors(rates, power))
    return torch.cat([integrate(rate, exponent) for rate, exponent in zip(*parts)]).view(rates.shape)


def sum_softplus(values: torch.Tensor) -> torch.Tensor:
    """Return sum over the last dimension of log(1 + exp(values)), exact for large values too."""
    return -F.logsigmoid(-values).sum(-1)
