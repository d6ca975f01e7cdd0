"""The 10-category toy: an expectation that is exact, so that bias and variance of gradients can be seen."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sparsecbm._base.errors import unknown
from sparsecbm.vae.latents import ESTIMATORS, CategoricalLatents

__all__ = ["CategoricalToy", "GradientQuality"]


@dataclass(frozen=True)
class GradientQuality:
    """Quality of a one-sample gradient estimator against the exact gradient.

    Attributes
    ----------
    bias : float
        Length of (mean estimate - exact gradient), over the length of the exact gradient.
    bias_error : float
        Standard error of that, from the finite number of draws.
    spread : float
        Root of the summed variances of one draw, over the same length.
    """

    bias: float
    bias_error: float
    spread: float


class CategoricalToy:
    """Minimise ``E_z ||z - target||^2`` over the logits of one categorical z of n values.

    Parameters
    ----------
    target : torch.Tensor, shape (n,)
        On the corners of the simplex the loss is a table, ``1 + |target|^2 - 2 target_i``; inside, a relaxation sees
        a bowl whose lowest point need not be a corner.

    Examples
    --------
    >>> toy = CategoricalToy(torch.linspace(0, 0.9, 10))
    >>> round(toy.exact(torch.zeros(10)).item(), 3)  # uniform: 1 + 2.85 - 2 * 0.45
    2.95
    """

    def __init__(self, target: Tensor) -> None:
        self.target = target
        self.latents = CategoricalLatents(1, len(target))

    def loss(self, z: Tensor) -> Tensor:
        """Return the loss of states (..., n) -> (...)."""
        return (z - self.target).square().sum(-1)

    def exact(self, logits: Tensor) -> Tensor:
        """Return the expectation over z, differentiable."""
        return (logits.softmax(-1) * self.loss(self.latents.states(like=logits))).sum(-1)

    def surrogates(
        self, logits: Tensor, draws: int, *, estimator: str, temperature: float, generator: torch.Generator | None
    ) -> Tensor:
        """Return `draws` scalars whose gradients are one-sample estimates. The score function has the exact baseline.

        `logits` have shape (n,), or (draws, n) for gradients apart.

        Raises
        ------
        InputError
            If the estimator is unknown.
        """
        if estimator not in ESTIMATORS:
            raise unknown("estimator", estimator, ESTIMATORS)
        noise = self.latents.noise((draws,), generator=generator, like=logits)
        state, _ = self.latents.state(logits, noise, estimator, temperature)
        if estimator == "score_function":
            signal = (self.loss(state) - self.exact(logits)).detach()
            return signal * self.latents.log_mass(logits.expand_as(state), state)
        return self.loss(state)

    def gradient_quality(
        self, logits: Tensor, *, estimator: str, temperature: float, draws: int, generator: torch.Generator | None
    ) -> GradientQuality:
        """Measure an estimator at `logits`, with `draws` one-sample gradients."""
        logits = logits.detach().requires_grad_()
        (exact,) = torch.autograd.grad(self.exact(logits), logits)
        rows = logits.detach().expand(draws, -1).clone().requires_grad_()
        total = self.surrogates(rows, draws, estimator=estimator, temperature=temperature, generator=generator).sum()
        (estimates,) = torch.autograd.grad(total, rows)
        length = exact.norm()
        variance = estimates.var(0)
        return GradientQuality(
            bias=float((estimates.mean(0) - exact).norm() / length),
            bias_error=float((variance.sum() / draws).sqrt() / length),
            spread=float(variance.sum().sqrt() / length),
        )

    def minimise(
        self, *, estimator: str, temperature: float, steps: int, learning_rate: float, generator: torch.Generator
    ) -> list[float]:
        """Descend from uniform logits by one-sample gradients; return the exact expectation before each step."""
        logits = torch.zeros(len(self.target), requires_grad=True)
        path = []
        for _ in range(steps):
            path.append(float(self.exact(logits.detach())))
            surrogate = self.surrogates(
                logits, 1, estimator=estimator, temperature=temperature, generator=generator
            ).sum()
            (gradient,) = torch.autograd.grad(surrogate, logits)
            with torch.no_grad():
                logits -= learning_rate * gradient
        return path
