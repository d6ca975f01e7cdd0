"""Discrete latent variables and their relaxations: Bernoulli and categorical; others have files of their own.

Every function works on the last dimension, `width` numbers a state, and sums over the variables: a log-mass of shape
(...,) belongs to a state of shape (..., width). So per-sample terms of different kinds can be added up.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm._base.parts import LATENTS
from sparsecbm.samplers import BinaryConcrete, Concrete, noise, straight_through
from sparsecbm.samplers.rbm import binary_states

__all__ = ["ESTIMATORS", "LATENTS", "BernoulliLatents", "CategoricalLatents", "Latents", "make_latents"]

MAX_STATES = 1 << 14
"""Most joint states that exact sums go over."""

ESTIMATORS = ("relaxed", "straight_through_relaxed", "straight_through", "score_function")
"""How gradients pass a draw: a relaxed sample; a hard one with its gradient; a hard one with the gradient of the mean
(Bengio et al. 2013); a hard one without gradient, for the score function."""


class Latents(ABC):
    """What the two kinds share. `n` variables, `width` numbers in a state, `n_states` joint states."""

    kind: str
    n: int
    width: int
    n_states: int
    concrete = True
    """Whether relaxed samples are Concrete ones."""

    @abstractmethod
    def group(self, n: int) -> Latents:
        """Return `n` variables of the same kind."""

    @abstractmethod
    def noise(self, lead: tuple[int, ...], *, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Draw the standard noise of relaxed samples, shape (*lead, width), with the type and device of `like`."""

    @abstractmethod
    def value(self, logits: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """Return the relaxed sample that noise gives, in logit or log space."""

    @abstractmethod
    def soft(self, value: Tensor) -> Tensor:
        """Return the relaxed state, in [0, 1]."""

    @abstractmethod
    def hard(self, value: Tensor) -> Tensor:
        """Return the discrete state of a relaxed sample, or of logits plus noise; no gradient."""

    @abstractmethod
    def sample(self, logits: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Draw discrete states, shape of `logits`."""

    @abstractmethod
    def log_mass(self, logits: Tensor, state: Tensor) -> Tensor:
        """Return the log-probability of a state; of a relaxed one its multilinear extension."""

    @abstractmethod
    def log_density(self, logits: Tensor, value: Tensor, temperature: float) -> Tensor:
        """Return the Concrete log-density of a relaxed sample, in the space of :meth:`value`."""

    @abstractmethod
    def mean(self, logits: Tensor) -> Tensor:
        """Return the expected state."""

    @abstractmethod
    def states(self, *, like: Tensor) -> Tensor:
        """Return every joint state, shape (n_states, width)."""

    def state(
        self, logits: Tensor, drawn: Tensor, estimator: str, temperature: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the state that noise gives by one of `ESTIMATORS`, and the relaxed sample behind it, if any.

        `temperature` is needed where there is one.
        """
        if estimator in ("score_function", "straight_through"):
            hard = self.hard(logits + drawn)
            mean = self.mean(logits).expand_as(hard)
            return hard if estimator == "score_function" else straight_through(hard, mean), None
        assert temperature is not None
        value = self.value(logits, drawn, temperature)
        soft = self.soft(value)
        return soft if estimator == "relaxed" else straight_through(self.hard(logits + drawn), soft), value

    def entropy(self, logits: Tensor) -> Tensor:
        """Return the entropy in nats. The log-mass is linear in the state, so it is minus that of the mean."""
        return -self.log_mass(logits, self.mean(logits))

    def _check_states(self) -> None:
        if self.n_states > MAX_STATES:
            raise InputError(
                f"{self.n} {self.kind} latents have {self.n_states:.3g} joint states, too many for an exact sum "
                f"(at most {MAX_STATES}); use fewer latents or a sampled objective"
            )


class BernoulliLatents(Latents):
    """`n` binary variables; relaxed samples live in logit space (:class:`sparsecbm.samplers.BinaryConcrete`)."""

    kind = "bernoulli"

    def __init__(self, n: int, categories: int = 2) -> None:
        if categories != 2:
            raise InputError(f"categories={categories!r}: Bernoulli latents have two; use latents='categorical'")
        self.n, self.width, self.n_states = n, n, 2**n

    def group(self, n: int) -> BernoulliLatents:
        return type(self)(n)

    def noise(self, lead: tuple[int, ...], *, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return noise.logistic((*lead, self.width), generator=generator, dtype=like.dtype, device=like.device)

    def value(self, logits: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        return (logits + drawn) / temperature

    def soft(self, value: Tensor) -> Tensor:
        return value.sigmoid()

    def hard(self, value: Tensor) -> Tensor:
        return BinaryConcrete.hard(value)

    def sample(self, logits: Tensor, *, generator: torch.Generator | None) -> Tensor:
        return noise.bernoulli(logits, generator=generator)

    def log_mass(self, logits: Tensor, state: Tensor) -> Tensor:
        return (state * logits - F.softplus(logits)).sum(-1)

    def log_density(self, logits: Tensor, value: Tensor, temperature: float) -> Tensor:
        return BinaryConcrete(temperature, logits=logits, validate_args=False).log_prob(value).sum(-1)

    def mean(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def states(self, *, like: Tensor) -> Tensor:
        self._check_states()
        return binary_states(0, self.n_states, self.n, dtype=like.dtype, device=like.device)


class CategoricalLatents(Latents):
    """`n` variables of `categories` values, one-hot; relaxed in log space (:class:`sparsecbm.samplers.Concrete`)."""

    kind = "categorical"

    def __init__(self, n: int, categories: int = 10) -> None:
        if not isinstance(categories, int) or categories < 2:
            raise InputError(f"categories={categories!r}: expected an integer of at least 2")
        self.n, self.categories, self.width, self.n_states = n, categories, n * categories, categories**n

    def group(self, n: int) -> CategoricalLatents:
        return CategoricalLatents(n, self.categories)

    def _rows(self, values: Tensor) -> Tensor:
        return values.reshape(*values.shape[:-1], self.n, self.categories)

    def noise(self, lead: tuple[int, ...], *, generator: torch.Generator | None, like: Tensor) -> Tensor:
        return noise.gumbel((*lead, self.width), generator=generator, dtype=like.dtype, device=like.device)

    def value(self, logits: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        return self._rows((logits + drawn) / temperature).log_softmax(-1).flatten(-2)

    def soft(self, value: Tensor) -> Tensor:
        return value.exp()

    def hard(self, value: Tensor) -> Tensor:
        return Concrete.hard(self._rows(value)).flatten(-2)

    def sample(self, logits: Tensor, *, generator: torch.Generator | None) -> Tensor:
        return self.hard(logits + self.noise(tuple(logits.shape[:-1]), generator=generator, like=logits))

    def log_mass(self, logits: Tensor, state: Tensor) -> Tensor:
        return (self._rows(state) * self._rows(logits).log_softmax(-1)).sum((-2, -1))

    def log_density(self, logits: Tensor, value: Tensor, temperature: float) -> Tensor:
        concrete = Concrete(temperature, logits=self._rows(logits), validate_args=False)
        return concrete.log_prob(self._rows(value)).sum(-1)

    def mean(self, logits: Tensor) -> Tensor:
        return self._rows(logits).softmax(-1).flatten(-2)

    def states(self, *, like: Tensor) -> Tensor:
        self._check_states()
        chosen = torch.tensor(list(itertools.product(range(self.categories), repeat=self.n)), device=like.device)
        return F.one_hot(chosen, self.categories).flatten(-2).to(like.dtype)


def make_latents(kind: str, n: int, categories: int | None = None) -> Latents:
    """Return `n` latent variables of a kind.

    Raises
    ------
    InputError
        If the kind is unknown or the number of categories does not fit it.
    """
    return LATENTS.make(kind, n) if categories is None else LATENTS.make(kind, n, categories)
