"""Exact samples of a Gibbs distribution from upper bounds on its partition function.

Walk through the variables, choosing x_i with probability exp(U(x_1..i) - U(x_1..i-1)), where U is the upper bound on
the log partition function with the prefix fixed; start again on the left-over mass. A walk that ends does so at x with
probability exp(phi(x) - U), so accepted walks are exact samples and the acceptance is Z / e^U (Hazan, Maji &
Jaakkola 2013; Balog et al. 2017, section 3.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from sparsecbm.samplers._checks import check_count
from sparsecbm.samplers.noise import gumbel, uniform
from sparsecbm.samplers.perturb.bounds import upper_bound
from sparsecbm.samplers.perturb.full import EULER_GAMMA
from sparsecbm.samplers.perturb.graph import PairwiseModel

__all__ = ["SequentialSampler", "SequentialSamples"]


@dataclass(frozen=True)
class SequentialSamples:
    """Result of :meth:`SequentialSampler.sample`.

    Attributes
    ----------
    states : torch.Tensor
        int64, shape (count, n).
    attempts : int
        Walks begun; count / attempts estimates Z / e^U.
    violations : int
        Prefixes met so far at which the bounds of the children exceeded that of the parent. The samples are exact where
        this is 0; otherwise raise `margin` or `n_perturbations`.
    """

    states: torch.Tensor
    attempts: int
    violations: int


class SequentialSampler:
    """Sequential sampler of a pairwise model from Monte Carlo upper bounds.

    Parameters
    ----------
    model : PairwiseModel
        The model.
    n_perturbations : int, default=1000
        Perturbed maxima behind each bound; the same perturbations serve every prefix.
    alpha : float, default=0.0
        Member of the family of bounds, see :func:`upper_bound`.
    margin : float, default=0.05
        Nats added to the bound for each variable that is still free, so that the noise of the estimates does not
        break the inequality between a prefix and its continuations. It costs a factor exp(-n * margin) of acceptance.
    generator : torch.Generator or None
        Source of the perturbations and of the walks; None means PyTorch's default generator.

    Attributes
    ----------
    log_bound : float
        U, margin included.

    Notes
    -----
    The bounds are estimates, but each prefix keeps its own once drawn, and the last variable's is exact; what the
    proof needs is only that no prefix has less than its continuations together, which is checked at every prefix
    that is met.
    """

    def __init__(
        self,
        model: PairwiseModel,
        *,
        generator: torch.Generator | None,
        n_perturbations: int = 1000,
        alpha: float = 0.0,
        margin: float = 0.05,
    ) -> None:
        if not margin >= 0:
            raise ValueError(f"margin must be at least 0, got {margin}")
        check_count("n_perturbations", n_perturbations, 2)
        self.model, self.alpha, self.margin, self.generator = model, alpha, margin, generator
        shape = (n_perturbations, *model.unary.shape)
        self._noise = gumbel(shape, generator=generator, dtype=torch.float64, device=model.unary.device) - EULER_GAMMA
        self._bounds: dict[tuple[int, ...], float] = {}
        self._steps: dict[tuple[int, ...], list[float]] = {}
        self.violations = 0
        self.log_bound = self._bound(())

    @torch.no_grad()
    def _bound(self, prefix: tuple[int, ...]) -> float:
        if prefix in self._bounds:
            return self._bounds[prefix]
        fixed, n = len(prefix), self.model.n_variables
        unary = self.model.unary.double()
        if fixed == n:
            value = self.model.log_potential(torch.tensor(prefix, device=unary.device)).item()
        else:
            pinned = unary.clone()
            for i, state in enumerate(prefix):
                others = torch.arange(self.model.n_states, device=unary.device) != state
                pinned[i, others] = -1e30
            if fixed == n - 1:
                value = self.model.log_partition(pinned.unsqueeze(0)).item()
            else:
                perturbed = pinned.expand_as(self._noise).clone()
                perturbed[:, fixed:] += self._noise[:, fixed:]
                value = upper_bound(self.model.max_value(perturbed), n - fixed, self.alpha).value
            value += self.margin * (n - fixed)
        self._bounds[prefix] = value
        return value

    def _probabilities(self, prefix: tuple[int, ...]) -> list[float]:
        """Probability of each next state; what they leave of 1 is the probability of starting again."""
        if prefix not in self._steps:
            parent = self._bound(prefix)
            step = [math.exp(self._bound((*prefix, state)) - parent) for state in range(self.model.n_states)]
            total = sum(step)
            if total > 1 + 1e-12:
                self.violations += 1
                step = [p / total for p in step]
            self._steps[prefix] = step
        return self._steps[prefix]

    def sample(self, count: int, *, max_attempts: int | None = None) -> SequentialSamples:
        """Draw `count` samples.

        Raises
        ------
        ValueError
            If more than `max_attempts` walks (1000 * count by default) do not give `count` samples.
        """
        check_count("count", count)
        limit = 1000 * count if max_attempts is None else check_count("max_attempts", max_attempts)
        n = self.model.n_variables
        accepted: list[tuple[int, ...]] = []
        attempts = 0
        while len(accepted) < count:
            if attempts >= limit:
                raise ValueError(
                    f"{limit} walks gave {len(accepted)} of {count} samples;"
                    f" raise max_attempts, or lower margin ({self.margin})"
                )
            attempts += 1
            prefix: tuple[int, ...] = ()
            for draw in uniform(n, generator=self.generator, dtype=torch.float64).tolist():
                left = draw
                for state, probability in enumerate(self._probabilities(prefix)):
                    if left < probability:
                        prefix = (*prefix, state)
                        break
                    left -= probability
                else:
                    break
            if len(prefix) == n:
                accepted.append(prefix)
        return SequentialSamples(torch.tensor(accepted), attempts, self.violations)
