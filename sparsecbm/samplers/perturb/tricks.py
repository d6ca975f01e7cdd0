"""Estimators of log Z from perturbed maxima: the family that the Gumbel trick belongs to.

V = -log T - gamma with T ~ Exp(Z), M independent copies. Every trick is a function g with known E[g(T)] = f(Z): average
g(T) over the copies, and invert f (Balog et al. 2017, table 1). Predicted biases and mean squared errors hold at every
M: in closed form, as sums over a binomial, or by quadrature from the Laplace transform of the average.
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

_NODES = 32
_AT_ONCE = 1 << 22


def _digamma(x: float) -> float:
    return torch.digamma(torch.tensor(x, dtype=torch.float64)).item()


def _trigamma(x: float) -> float:
    return torch.polygamma(1, torch.tensor(x, dtype=torch.float64)).item()


def _line(low: float, high: float, step: float) -> torch.Tensor:
    """Nodes of the trapezoidal rule, which converges geometrically for integrands analytic around the line."""
    return torch.arange(low, high + step, step, dtype=torch.float64)


def _log_laplace(rates: torch.Tensor, log_values: torch.Tensor, masses: torch.Tensor, count: int) -> torch.Tensor:
    """Log of E exp(-t S) at each t = `rates`, S the mean of `count` copies of a value with the given masses.

    From the complement, so that what is near 0 keeps its digits when multiplied by `count`.
    """
    gone = -torch.expm1(-(rates.unsqueeze(-1) / count) * log_values.exp())
    return count * torch.log1p(-(gone @ masses).clamp(max=1.0))


class Trick:
    """What every trick offers. `values` are perturbed maxima V, shape (..., M)."""

    def log_partition(self, values: torch.Tensor, *, debias: bool = False) -> torch.Tensor:
        """Return the estimate of log Z for each row, shape (...), float64.

        Parameters
        ----------
        values : torch.Tensor
            Perturbed maxima, shape (..., M); see :func:`perturbed_maxima`.
        debias : bool, default=False
            Subtract the predicted bias. Where that depends on Z (:class:`ParetoTrick`, :class:`TailTrick`), the
            estimate itself stands for log Z: a part of the bias of order 1/M^2 stays, at small M a good part of it.
        """
        if values.dim() < 1 or not values.shape[-1] or not values.isfinite().all():
            raise ValueError(f"values must be finite, of shape (..., M >= 1), got shape {tuple(values.shape)}")
        estimate = self._estimate(values.double())
        if not debias or not estimate.numel():
            return estimate
        different, which = estimate.unique(return_inverse=True)
        return estimate - self._biases(values.shape[-1], different)[which]

    def bias(self, count: int, log_z: float = 0.0) -> float:
        """Return the predicted E[estimate] - log Z at M = `count`."""
        return self._moments(check_count("count", count), float(log_z))[0]

    def mse(self, count: int, log_z: float = 0.0) -> float:
        """Return the predicted mean squared error of the estimate (not debiased) of log Z at M = `count`."""
        return self._moments(check_count("count", count), float(log_z))[1]

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def _moments(self, count: int, log_z: float) -> tuple[float, float]:
        """Bias and mean squared error."""
        raise NotImplementedError

    def _biases(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        """Bias at each of rising values of log Z; here it does not depend on them."""
        return torch.full_like(log_z, self._moments(count, 0.0)[0])


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

    def _moments(self, count: int, log_z: float) -> tuple[float, float]:
        return 0.0, math.pi**2 / (6 * count)


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

    def _moments(self, count: int, log_z: float) -> tuple[float, float]:
        bias = math.log(count) - _digamma(count)
        return bias, bias**2 + _trigamma(count)


@dataclass(frozen=True)
class _PowerTrick(Trick):
    """log Gamma(1 + alpha) / alpha + gamma - log mean(exp(-alpha V)) / alpha, from T^alpha.

    Its error is (log Gamma(1 + alpha) - log S) / alpha, whatever Z, S the mean of M copies of Exp(1)^alpha.
    """

    alpha: float = 0.5

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        log_mean = (-self.alpha * values).logsumexp(-1) - math.log(values.shape[-1])
        return math.lgamma(1 + self.alpha) / self.alpha + EULER_GAMMA - log_mean / self.alpha

    def _moments(self, count: int, log_z: float) -> tuple[float, float]:
        near = 0.02
        if abs(self.alpha) >= near:
            return self._moments_at(self.alpha, count)
        # Both are smooth in alpha and known at 0, the Gumbel trick; division by alpha would cost the digits there.
        x = self.alpha / near
        at = (self._moments_at(-near, count), (0.0, math.pi**2 / (6 * count)), self._moments_at(near, count))
        bias, mse = (x * (x - 1) / 2 * a + (1 - x * x) * b + x * (x + 1) / 2 * c for a, b, c in zip(*at))
        return bias, mse

    @staticmethod
    def _moments_at(alpha: float, count: int) -> tuple[float, float]:
        """Through W = log (X / S) with X ~ Exp(1): P(W > log t) = E exp(-t S), and log S has W's moments less X's."""
        line = _line(-45.0, 4.5, 0.2 / max(1.0, abs(alpha)))
        step = float(line[1] - line[0])
        centre = -EULER_GAMMA - math.lgamma(1 + alpha)
        u = _line(-45.0, 45.0 * max(1.0, alpha), 0.125)
        survival = torch.cat(
            [
                _log_laplace((part + centre).exp(), alpha * line, step * (line - line.exp()).exp(), count).exp()
                for part in u.split(max(1, _AT_ONCE // len(line)))
            ]
        )
        # Against the logistic variable of this centre, whose variance is pi^2 / 3: what is left to integrate is smooth.
        less = 0.125 * (survival - torch.sigmoid(-u))
        mean, square = float(less.sum()), math.pi**2 / 3 + float(2 * (u * less).sum())
        bias = (math.lgamma(1 + alpha) + EULER_GAMMA + centre + mean) / alpha
        return bias, (square - mean**2 - math.pi**2 / 6) / alpha**2 + bias**2


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
    """log(m / (m - 1)), m = mean(exp(T)), from E[e^T] = Z / (Z - 1): consistent for Z > 1, slow to settle below 2.

    Its error is finite at every Z and M. e^T - 1 is a Lomax variable of shape Z, and ``log (1 + 1 / S)`` is the
    integral of ``exp(-t S) (1 - exp(-t)) / t`` over t, S the mean of M of them.
    """

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        # m / (m - 1) = 1 + 1 / mean(expm1(T))
        return torch.log1p(1 / torch.exp(-values - EULER_GAMMA).expm1().mean(-1))

    def _moments(self, count: int, log_z: float) -> tuple[float, float]:
        z = math.exp(log_z)
        v = _line(-45.0 - max(log_z, 0.0), max(45.0 / z, 5.0), 0.125)
        masses = 0.125 * z * (v - (z + 1) * torch.nn.functional.softplus(v)).exp()
        u = _line(-45.0, 50.0 + max(log_z, 0.0), 0.125)
        t = u.exp()
        laplace = torch.cat(
            [_log_laplace(part, v, masses, count).exp() for part in t.split(max(1, _AT_ONCE // len(v)))]
        )

        def h(r: torch.Tensor) -> torch.Tensor:
            return torch.where(r > 0, -torch.expm1(-r) / r.clamp(min=1e-300), 1.0)

        share = _line(-45.0, 45.0, 0.125)
        p, q = torch.sigmoid(share), torch.sigmoid(-share)
        both = 0.125 * (h(t.unsqueeze(-1) * p) * h(t.unsqueeze(-1) * q) * (p * q)).sum(-1) * t
        mean = 0.125 * float((laplace * h(t) * t).sum())
        square = 0.125 * float((laplace * both * t).sum())
        return mean - log_z, square - 2 * log_z * mean + log_z**2

    def _biases(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        """At `_NODES` places, straight lines in between."""
        if len(log_z) <= _NODES:
            return torch.tensor([self._moments(count, float(one))[0] for one in log_z], dtype=torch.float64)
        places = torch.linspace(float(log_z[0]), float(log_z[-1]), _NODES, dtype=torch.float64)
        at = self._biases(count, places)
        left = torch.searchsorted(places, log_z, right=True).clamp(1, _NODES - 1) - 1
        return at[left] + (log_z - places[left]) / (places[1] - places[0]) * (at[left + 1] - at[left])


@dataclass(frozen=True)
class TailTrick(Trick):
    """-log(mean 1[T > t]) / t, from P(T > t) = exp(-Z t); best near t = 1.59 / Z.

    The share of T > t is kept half a count away from 0 and 1, so that the estimate is finite. The number of T > t is
    binomial, so bias and mean squared error are sums over it.
    """

    t: float = 1.0

    def __post_init__(self) -> None:
        check_positive("t", self.t)

    def _invert(self, share: torch.Tensor, count: int) -> torch.Tensor:
        return (-share.clamp(0.5 / count, 1 - 0.5 / count).log() / self.t).log()

    def _estimate(self, values: torch.Tensor) -> torch.Tensor:
        share = (-values - EULER_GAMMA > math.log(self.t)).double().mean(-1)
        return self._invert(share, values.shape[-1])

    def _errors(self, count: int, log_z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Probabilities and errors of every number of T > t, shape (len(log_z), count + 1)."""
        exponent = (log_z.exp() * self.t).unsqueeze(-1)
        k = torch.arange(count + 1, dtype=torch.float64)
        n = torch.tensor(float(count), dtype=torch.float64)
        log_choose = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
        log_probability = log_choose - exponent * k + torch.xlogy(n - k, -torch.expm1(-exponent))
        return log_probability.exp(), self._invert(k / n, count) - log_z.unsqueeze(-1)

    def _moments(self, count: int, log_z: float) -> tuple[float, float]:
        probability, error = self._errors(count, torch.tensor([log_z], dtype=torch.float64))
        return float((probability * error).sum()), float((probability * error**2).sum())

    def _biases(self, count: int, log_z: torch.Tensor) -> torch.Tensor:
        parts = log_z.split(max(1, _AT_ONCE // (count + 1)))
        return torch.cat([torch.linalg.vecdot(*self._errors(count, part)) for part in parts])


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
