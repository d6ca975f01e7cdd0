"""Estimators of log Z from perturbed maxima: the family that the Gumbel trick belongs to.

V = -log T - gamma with T ~ Exp(Z), M independent copies. Every trick is a function g with known E[g(T)] = f(Z): average
g(T) over the copies, and invert f (Balog et al. 2017, table 1). Its predicted bias and mean squared error are exact
where the distribution of the average is known, and otherwise the delta method to second order in 1/M.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparsecbm.samplers._checks import check_count, check_positive
from sparsecbm.samplers.perturb.full import EULER_GAMMA

__all__ = [
    "TRICKS",
    "ExponentialTrick",
    "FrechetTrick",
    "GumbelTrick",
    "ParetoTrick",
    "TailTrick",
    "Trick",
    "WeibullTrick",
    "make_trick",
]


def _digamma(x: float) -> float:
    return torch.digamma(torch.tensor(x, dtype=torch.float64)).item()


def _trigamma(x: float) -> float:
    return torch.polygamma(1, torch.tensor(x, dtype=torch.float64)).item()


class Trick:
    """What every trick offers. `values` are perturbed maxima V, shape (..., M)."""

    def log_partition(self, values: torch.Tensor, *, debias: bool = False) -> torch.Tensor:
        """Return the estimate of log Z for each row, shape (...), float64.

        Parameters
        ----------
        values : torch.Tensor
            Perturbed maxima, shape (..., M); see :func:`perturbed_maxima`.
        debias : bool, default=False
            Subtract the predicted bias. Where that depends on Z, the estimate itself stands for log Z.
        """
        if values.dim() < 1 or not values.shape[-1] or not values.isfinite().all():
            raise ValueError(f"values must be finite, of shape (..., M >= 1), got shape {tuple(values.shape)}")
        estimate = self._estimate(values.double())
        return estimate - self._bias(values.shape[-1], estimate) if debias else estimate

    def bias(self, count: int, log_z: float = 0.0) -> float:
        """Return the predicted E[estimate] - log Z at M = `count`."""
        return self._bias(check_count("count", count), torch.tensor(log_z, dtype=torch.float64)).item()

    def mse(self, count: int, log_z: float = 0.0) -> float:
        """Return the predicted mean squared error of the estimate (not debiased) of log Z at M = `count`."""
        return self._mse(check_count("count", count), log_z)

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _bias(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _mse(self, count: int, log_z: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class GumbelTrick(Trick):
    """mean(V): unbiased, mean squared error pi^2 / (6 M), whatever Z.

    Examples
    --------
    >>> round(GumbelTrick().mse(100), 5)
    0.01645
    """

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        return values.mean(-1)

    def _bias(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(log_z)

    def _mse(self, count: int, log_z: float) -> float:
        return math.pi**2 / (6 * count)


@dataclass(frozen=True)
class ExponentialTrick(Trick):
    """gamma - log mean(exp(-V)), from T itself: bias log M - digamma(M), variance trigamma(M), whatever Z.

    Examples
    --------
    >>> round(ExponentialTrick().mse(100), 5)
    0.01008
    """

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        return EULER_GAMMA + math.log(values.shape[-1]) - (-values).logsumexp(-1)

    def _bias(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        return torch.full_like(log_z, math.log(count) - _digamma(count))

    def _mse(self, count: int, log_z: float) -> float:
        return (math.log(count) - _digamma(count)) ** 2 + _trigamma(count)


@dataclass(frozen=True)
class _PowerTrick(Trick):
    """log Gamma(1 + alpha) / alpha + gamma - log mean(exp(-alpha V)) / alpha, from T^alpha."""

    alpha: float = 0.5

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        log_mean = (-self.alpha * values).logsumexp(-1) - math.log(values.shape[-1])
        return math.lgamma(1 + self.alpha) / self.alpha + EULER_GAMMA - log_mean / self.alpha

    def _central_moments(self) -> tuple[float, float]:
        """Second and third central moments of T^alpha over its mean; the third is infinite for alpha <= -1/3."""
        log_mean = math.lgamma(1 + self.alpha)
        second = math.exp(math.lgamma(1 + 2 * self.alpha) - 2 * log_mean)
        if 1 + 3 * self.alpha <= 0:
            return second - 1, math.inf
        third = math.exp(math.lgamma(1 + 3 * self.alpha) - 3 * log_mean)
        return second - 1, third - 3 * second + 2

    def _bias(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        variance, skew = self._central_moments()
        bias = variance / (2 * count)
        if math.isfinite(skew):
            bias += (-skew / 3 + 3 * variance**2 / 4) / count**2
        return torch.full_like(log_z, bias / self.alpha)

    def _mse(self, count: int, log_z: float) -> float:
        variance, skew = self._central_moments()
        mse = variance / count
        if math.isfinite(skew):
            mse += (-skew + 11 * variance**2 / 4) / count**2
        return mse / self.alpha**2


@dataclass(frozen=True)
class WeibullTrick(_PowerTrick):
    """The power trick with alpha > 0 (T^alpha is a Weibull variable); alpha = 1 is the Exponential trick.

    Asymptotic mean squared error (Gamma(1 + 2 alpha) / Gamma(1 + alpha)^2 - 1) / (alpha^2 M), least at alpha = 1.
    """

    def __post_init__(self) -> None:
        check_positive("alpha", self.alpha)


@dataclass(frozen=True)
class FrechetTrick(_PowerTrick):
    """The power trick with -1/2 < alpha < 0 (T^alpha is a Frechet variable); towards 0 it becomes the Gumbel trick."""

    alpha: float = -0.2

    def __post_init__(self) -> None:
        if not -0.5 < self.alpha < 0:
            raise ValueError(f"alpha must lie strictly between -1/2 and 0 for a finite variance, got {self.alpha}")


@dataclass(frozen=True)
class ParetoTrick(Trick):
    """log(m / (m - 1)), m = mean(exp(T)), from E[e^T] = Z / (Z - 1): needs Z > 1, and Z > 2 for a finite variance.

    Predicted (delta method, first order): bias and variance grow without bound as Z falls to 2.
    """

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        # m / (m - 1) = 1 + 1 / mean(expm1(T))
        return torch.log1p(1 / torch.exp(-values - EULER_GAMMA).expm1().mean(-1))

    @staticmethod
    def _variance(z: torch.Tensor) -> torch.Tensor:
        """Var e^T."""
        return torch.where(z > 2, z / ((z - 2) * (z - 1) ** 2), torch.full_like(z, torch.inf))

    def _bias(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        z = log_z.exp()
        curvature = (z - 1) ** 2 - ((z - 1) / z) ** 2
        return curvature * self._variance(z) / (2 * count)

    def _mse(self, count: int, log_z: float) -> float:
        z = math.exp(log_z)
        return (z - 1) ** 2 / (z * (z - 2) * count) if z > 2 else math.inf


@dataclass(frozen=True)
class TailTrick(Trick):
    """-log(mean 1[T > t]) / t, from P(T > t) = exp(-Z t); best near t = 1.59 / Z.

    The share of T > t is kept half a count away from 0 and 1, so that the estimate is finite.
    """

    t: float = 1.0

    def __post_init__(self) -> None:
        check_positive("t", self.t)

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        margin = 0.5 / values.shape[-1]
        share = (-values - EULER_GAMMA > math.log(self.t)).double().mean(-1).clamp(margin, 1 - margin)
        return (-share.log() / self.t).log()

    def _bias(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        exponent = log_z.exp() * self.t
        return (exponent - 1) * exponent.expm1() / (2 * count * exponent**2)

    def _mse(self, count: int, log_z: float) -> float:
        """Exact: the number of T > t is binomial."""
        exponent = math.exp(log_z) * self.t
        k = torch.arange(count + 1, dtype=torch.float64)
        n = torch.tensor(float(count), dtype=torch.float64)
        log_choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        log_probability = log_choose - exponent * k + (n - k) * math.log(-math.expm1(-exponent))
        share = (k / n).clamp(0.5 / count, 1 - 0.5 / count)
        error = (-share.log() / self.t).log() - log_z
        return (log_probability.exp() * error**2).sum().item()


TRICKS: dict[str, type[Trick]] = {
    "gumbel": GumbelTrick,
    "exponential": ExponentialTrick,
    "weibull": WeibullTrick,
    "frechet": FrechetTrick,
    "pareto": ParetoTrick,
    "tail": TailTrick,
}
"""Tricks by name."""


def make_trick(name: str, **options: float) -> Trick:
    """Return the trick called `name` with its options.

    Raises
    ------
    ValueError
        If the name is not in :data:`TRICKS`.
    """
    if name not in TRICKS:
        raise ValueError(f"unknown trick {name!r}; known: {', '.join(sorted(TRICKS))}")
    return TRICKS[name](**options)
