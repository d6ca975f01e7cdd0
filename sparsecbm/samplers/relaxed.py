"""The Concrete distributions over states in [0, 1], as torch.distributions has them.

`RelaxedBernoulli` is the sigmoid of :class:`BinaryConcrete`, `RelaxedOneHotCategorical` the exponential of
:class:`Concrete`: their densities are of the state itself, as of `torch.distributions`' classes of these names.
Where states would round to 0 or 1 use the other two, which live in logit and log space.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.distributions import (
    ExpTransform,
    SigmoidTransform,
    TransformedDistribution,
    constraints,
    kl_divergence,
    register_kl,
)

from sparsecbm.samplers.concrete import BinaryConcrete, Concrete, ConcreteDraw

__all__ = ["RelaxedBernoulli", "RelaxedOneHotCategorical"]


class _Relaxed(TransformedDistribution):
    """A Concrete distribution seen through a transform; draws hand `generator` on."""

    base_dist: Any
    arg_constraints: dict[str, Any] = {}

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """Return the distribution with its batch shape expanded, without copying."""
        return super().expand(batch_shape, _instance=self._get_checked_instance(type(self), _instance))

    @property
    def temperature(self) -> torch.Tensor:
        """Temperature, shape `batch_shape`."""
        return self.base_dist.temperature

    @property
    def logits(self) -> torch.Tensor:
        """Log-odds, or class log-probabilities up to a constant."""
        return self.base_dist.logits

    @property
    def probs(self) -> torch.Tensor:
        """Probabilities of the hard samples."""
        return self.base_dist.probs

    def rsample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """Draw reparameterised states; the smallest is the least normal number, so that its log is finite."""
        dtype = self.base_dist.dtype
        limits = torch.finfo(dtype)
        between = limits.tiny, 1.0 if self.event_shape else 1 - limits.eps / 2
        return self.base_dist._sample_wide(sample_shape, generator, limits=between)[0].to(dtype)

    @torch.no_grad()
    def sample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> torch.Tensor:
        """As :meth:`rsample`, without a gradient."""
        return self.rsample(sample_shape, generator=generator)

    def draw(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> ConcreteDraw:
        """Draw once and return the sample, its relaxed state and its hard state (:class:`ConcreteDraw`)."""
        return self.base_dist.draw(sample_shape, generator=generator)


class RelaxedBernoulli(_Relaxed):
    """Binary Concrete distribution on the unit interval. Parameters and errors as for :class:`BinaryConcrete`.

    Examples
    --------
    >>> q = RelaxedBernoulli(0.5, logits=torch.zeros(3))
    >>> state = q.rsample(generator=torch.Generator().manual_seed(0))
    >>> bool(((state > 0) & (state < 1)).all()), q.log_prob(state).shape
    (True, torch.Size([3]))
    """

    support = constraints.unit_interval

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        base = BinaryConcrete(temperature, probs, logits, validate_args)
        super().__init__(base, SigmoidTransform(), validate_args=validate_args)


class RelaxedOneHotCategorical(_Relaxed):
    """Categorical Concrete distribution on the simplex. Parameters and errors as for :class:`Concrete`.

    Examples
    --------
    >>> q = RelaxedOneHotCategorical(0.5, logits=torch.zeros(2, 3))
    >>> state = q.rsample(generator=torch.Generator().manual_seed(0))
    >>> torch.allclose(state.sum(-1), torch.ones(2)), q.log_prob(state).shape
    (True, torch.Size([2]))
    """

    support = constraints.simplex

    def __init__(
        self, temperature: Any, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        base = Concrete(temperature, probs, logits, validate_args)
        super().__init__(base, ExpTransform(), validate_args=validate_args)


@register_kl(RelaxedBernoulli, RelaxedBernoulli)
@register_kl(RelaxedOneHotCategorical, RelaxedOneHotCategorical)
def _kl(p: _Relaxed, q: _Relaxed) -> torch.Tensor:
    """That of the distributions in logit or log space: both are seen through one bijection."""
    return kl_divergence(p.base_dist, q.base_dist)
