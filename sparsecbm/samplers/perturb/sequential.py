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
        Walks begun with the margin that these samples have; count / attempts estimates Z / e^U.
    violations : int
        Prefixes met so far whose continuations' bounds exceeded their own. Each time the sampler's margin rose by what
        was missing, and everything drawn with the smaller one was thrown away: none of these samples met one.
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
        Where it is too small, the sampler raises it.
    generator : torch.Generator or None
        Source of the perturbations and of the walks; None means PyTorch's default generator.

    Attributes
    ----------
    margin : float
        The margin as it is now.
    violations : int
        How often it was raised.
    log_bound : float
        U, margin included.

    Notes
    -----
    The bounds are estimates, but each prefix keeps its own once drawn, and the last variable's is exact; what the
    proof needs is only that no prefix has less than its continuations together, which is checked at every prefix
    that is met. So samples are exact given that prefixes that were never met keep that order as well: the more samples
    are drawn in one call, the less such prefixes can weigh.
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
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin must be finite and at least 0, got {margin}")
        n_perturbations = check_count("n_perturbations", n_perturbations, 2)
        self.model, self.alpha, self.margin, self.generator = model, alpha, margin, generator
        shape = (n_perturbations, *model.unary.shape)
        self._noise = gumbel(shape, generator=generator, dtype=torch.float64, device=model.unary.device) - EULER_GAMMA
        self._bounds: dict[tuple[int, ...], float] = {}
        self._steps: dict[tuple[int, ...], list[float]] = {}
        self.violations = 0

    @property
    def log_bound(self) -> float:
        """U, margin included."""
        return self._bound(())

    @torch.no_grad()
    def _bound(self, prefix: tuple[int, ...]) -> float:
        fixed, n = len(prefix), self.model.n_variables
        margin = self.margin * (n - fixed)
        if prefix in self._bounds:
            return self._bounds[prefix] + margin
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
        self._bounds[prefix] = value
        return value + margin

    def _probabilities(self, prefix: tuple[int, ...]) -> list[float] | None:
        """Probability of each next state; what they leave of 1 is the probability of starting again.

        None where they exceed 1: then the margin has been raised, and no step taken with the old one counts.
        """
        if prefix not in self._steps:
            parent = self._bound(prefix)
            step = [math.exp(self._bound((*prefix, state)) - parent) for state in range(self.model.n_states)]
            excess = math.log(sum(step))
            if excess > 1e-12:
                self.violations += 1
                # Every nat of margin is a nat more between a prefix and its continuations; the half is room.
                self.margin += 1.5 * excess
                self._steps.clear()
                return None
            self._steps[prefix] = step
        return self._steps[prefix]

    def _walk(self) -> tuple[int, ...] | None:
        """Walk until a variable finds its probabilities used up; None where the margin was raised on the way."""
        prefix: tuple[int, ...] = ()
        for draw in uniform(self.model.n_variables, generator=self.generator, dtype=torch.float64).tolist():
            probabilities = self._probabilities(prefix)
            if probabilities is None:
                return None
            left = draw
            for state, probability in enumerate(probabilities):
                if left < probability:
                    prefix = (*prefix, state)
                    break
                left -= probability
            else:
                break
        return prefix

    def sample(self, count: int, *, max_attempts: int | None = None) -> SequentialSamples:
        """Draw `count` samples.

        Raises
        ------
        ValueError
            If more than `max_attempts` walks (1000 * count by default) do not give `count` samples.
        """
        count = check_count("count", count)
        limit = 1000 * count if max_attempts is None else check_count("max_attempts", max_attempts)
        accepted: list[tuple[int, ...]] = []
        attempts = 0
        for _ in range(limit):
            attempts += 1
            walk = self._walk()
            if walk is None:
                accepted, attempts = [], 0
            elif len(walk) == self.model.n_variables:
                accepted.append(walk)
                if len(accepted) == count:
                    return SequentialSamples(torch.tensor(accepted), attempts, self.violations)
        raise ValueError(
            f"{limit} walks gave {len(accepted)} of {count} samples;"
            f" raise max_attempts, or lower margin ({self.margin:g}) or raise n_perturbations"
        )
