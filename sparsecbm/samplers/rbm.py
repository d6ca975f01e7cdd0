"""Restricted Boltzmann machine: energies, conditionals, exact partition function, maximum-likelihood surrogates.

``E(v, h) = -a.v - b.h - v.W h`` with v, h in {0, 1}, ``p = exp(-E) / Z`` (Smolensky 1986; Hinton 2002).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from sparsecbm.samplers._checks import check_count, check_finite
from sparsecbm.samplers.noise import bernoulli, compute_dtype, normal, uniform

__all__ = ["MAX_ENUMERATED", "RestrictedBoltzmannMachine", "binary_states"]

MAX_ENUMERATED = 25
"""Most units of the smaller side that the exact methods enumerate (2^25 states, minutes)."""


def binary_states(start: int, stop: int, n: int, *, dtype: torch.dtype, device: torch.device | None) -> torch.Tensor:
    """Return states `start` to `stop` - 1 of n binary units, shape (stop - start, n); unit i is bit i of the number."""
    numbers = torch.arange(start, stop, device=device)
    return (numbers.unsqueeze(-1) >> torch.arange(n, device=device) & 1).to(dtype)


def product(state: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return ``state @ weight`` in float32 or wider, under autocast too.

    An energy is a sum over all units, and a chain follows differences of energies: half precision has not the digits.
    """
    wide = compute_dtype(weight.dtype)
    with torch.autocast(weight.device.type, enabled=False):
        return state.to(wide) @ weight.to(wide)


class RestrictedBoltzmannMachine(nn.Module):
    """Restricted Boltzmann machine over two layers of binary units.

    Parameters
    ----------
    n_visible, n_hidden : int
        Units of either side.
    scale : float, default=0.01
        Standard deviation of the initial weights; biases start at 0.
    generator : torch.Generator, optional
        Source of the initial weights; None means PyTorch's default generator.
    dtype : torch.dtype, default=torch.float32
        Type of the parameters.
    device : torch.device, str or None
        Device of the parameters.

    Attributes
    ----------
    weight : nn.Parameter, shape (n_visible, n_hidden)
    visible_bias : nn.Parameter, shape (n_visible,)
    hidden_bias : nn.Parameter, shape (n_hidden,)

    Examples
    --------
    >>> rbm = RestrictedBoltzmannMachine(3, 2, scale=0.0)
    >>> round(rbm.log_partition().item(), 4)  # 2^5 states of energy 0
    3.4657
    """

    def __init__(
        self,
        n_visible: int,
        n_hidden: int,
        *,
        scale: float = 0.01,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        n_visible, n_hidden = check_count("n_visible", n_visible), check_count("n_hidden", n_hidden)
        weight = normal((n_visible, n_hidden), generator=generator, dtype=dtype, device=device)
        self.weight = nn.Parameter(weight.mul_(scale))
        self.visible_bias = nn.Parameter(torch.zeros(n_visible, dtype=dtype, device=device))
        self.hidden_bias = nn.Parameter(torch.zeros(n_hidden, dtype=dtype, device=device))

    @classmethod
    def from_parameters(
        cls, weight: torch.Tensor, visible_bias: torch.Tensor, hidden_bias: torch.Tensor
    ) -> RestrictedBoltzmannMachine:
        """Build the machine with given parameters, shapes (n_visible, n_hidden), (n_visible,), (n_hidden,)."""
        if weight.dim() != 2 or visible_bias.shape != weight.shape[:1] or hidden_bias.shape != weight.shape[1:]:
            raise ValueError(
                "weight, visible_bias and hidden_bias must have shapes (v, h), (v,) and (h,), got "
                f"{tuple(weight.shape)}, {tuple(visible_bias.shape)} and {tuple(hidden_bias.shape)}"
            )
        for name, values in (("weight", weight), ("visible_bias", visible_bias), ("hidden_bias", hidden_bias)):
            check_finite(name, values)
        rbm = cls(*weight.shape, scale=0.0, dtype=weight.dtype, device=weight.device)
        with torch.no_grad():
            rbm.weight.copy_(weight)
            rbm.visible_bias.copy_(visible_bias)
            rbm.hidden_bias.copy_(hidden_bias)
        return rbm

    @property
    def n_visible(self) -> int:
        """Number of visible units."""
        return self.weight.shape[0]

    @property
    def n_hidden(self) -> int:
        """Number of hidden units."""
        return self.weight.shape[1]

    def extra_repr(self) -> str:
        """Describe the machine's size."""
        return f"n_visible={self.n_visible}, n_hidden={self.n_hidden}"

    def _check(self, name: str, state: torch.Tensor, units: int) -> None:
        if state.dim() < 1 or state.shape[-1] != units:
            raise ValueError(f"{name} must have {units} units in its last dimension, got shape {tuple(state.shape)}")

    def energy(self, visible: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Return E(v, h) of binary or relaxed states, shapes (..., n_visible) and (..., n_hidden) -> (...).

        For relaxed states in [0, 1] this is the multilinear extension that GumBolt uses (Khoshaman & Amin 2018, eq. 8).
        """
        self._check("visible", visible, self.n_visible)
        self._check("hidden", hidden, self.n_hidden)
        interaction = (product(visible, self.weight) * hidden).sum(-1)
        return -(product(visible, self.visible_bias) + product(hidden, self.hidden_bias) + interaction)

    def hidden_logits(self, visible: torch.Tensor) -> torch.Tensor:
        """Return log-odds of the hidden units given the visible ones, (..., n_visible) -> (..., n_hidden)."""
        self._check("visible", visible, self.n_visible)
        return product(visible, self.weight) + self.hidden_bias

    def visible_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return log-odds of the visible units given the hidden ones, (..., n_hidden) -> (..., n_visible)."""
        self._check("hidden", hidden, self.n_hidden)
        return product(hidden, self.weight.T) + self.visible_bias

    def hidden_mean(self, visible: torch.Tensor) -> torch.Tensor:
        """Return E[h | v]."""
        return self.hidden_logits(visible).sigmoid()

    def visible_mean(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return E[v | h]."""
        return self.visible_logits(hidden).sigmoid()

    def free_energy_visible(self, visible: torch.Tensor) -> torch.Tensor:
        """Return F(v) = -log sum_h exp(-E(v, h)), shape (..., n_visible) -> (...)."""
        return -product(visible, self.visible_bias) + F.logsigmoid(-self.hidden_logits(visible)).sum(-1)

    def free_energy_hidden(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return F(h) = -log sum_v exp(-E(v, h)), shape (..., n_hidden) -> (...)."""
        return -product(hidden, self.hidden_bias) + F.logsigmoid(-self.visible_logits(hidden)).sum(-1)

    def _smaller_side(self, max_enumerated: int) -> tuple[bool, int]:
        visible_is_smaller = self.n_visible <= self.n_hidden
        units = min(self.n_visible, self.n_hidden)
        if units > max_enumerated:
            raise ValueError(
                f"the smaller side has {units} units, too many to enumerate (at most {max_enumerated}); "
                "use annealed_importance_sampling, or raise max_enumerated"
            )
        return visible_is_smaller, units

    def _chunks(self, units: int, chunk: int) -> Iterator[torch.Tensor]:
        for start in range(0, 1 << units, chunk):
            stop = min(start + chunk, 1 << units)
            yield binary_states(start, stop, units, dtype=self.weight.dtype, device=self.weight.device)

    def log_partition(self, *, chunk: int = 1 << 14, max_enumerated: int = MAX_ENUMERATED) -> torch.Tensor:
        """Return the exact log Z: every state of the smaller side, the other side summed out in closed form.

        Parameters
        ----------
        chunk : int
            States at a time; memory grows with chunk * larger side.
        max_enumerated : int
            Most units of the smaller side.

        Returns
        -------
        torch.Tensor
            float64 scalar; differentiable (each chunk is recomputed in the backward pass). Its gradient with respect to
            (weight, biases) is the model's moments (E[v h^T], E[v], E[h]).

        Raises
        ------
        ValueError
            If the smaller side has more than `max_enumerated` units.
        """
        visible_is_smaller, units = self._smaller_side(max_enumerated)
        free_energy = self.free_energy_visible if visible_is_smaller else self.free_energy_hidden

        def log_mass(states: torch.Tensor) -> torch.Tensor:
            return (-free_energy(states)).double().logsumexp(0)

        track = torch.is_grad_enabled()
        parts = [
            checkpoint(log_mass, states, use_reentrant=False) if track else log_mass(states)
            for states in self._chunks(units, chunk)
        ]
        return torch.stack(parts).logsumexp(0)

    @torch.no_grad()
    def sample_exact(
        self,
        count: int,
        *,
        generator: torch.Generator | None,
        chunk: int = 1 << 14,
        max_enumerated: int = MAX_ENUMERATED,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw independent samples by enumerating the smaller side.

        Returns
        -------
        tuple of torch.Tensor
            Visible states (count, n_visible) and hidden states (count, n_hidden).

        Raises
        ------
        ValueError
            If the smaller side has more than `max_enumerated` units.
        """
        visible_is_smaller, units = self._smaller_side(max_enumerated)
        free_energy = self.free_energy_visible if visible_is_smaller else self.free_energy_hidden
        log_masses = torch.cat([-free_energy(states).double() for states in self._chunks(units, chunk)])
        cumulative = (log_masses - log_masses.max()).exp().cumsum(0)
        targets = uniform(count, generator=generator, dtype=torch.float64, device=cumulative.device) * cumulative[-1]
        numbers = torch.searchsorted(cumulative, targets).clamp_(max=(1 << units) - 1)
        shifts = torch.arange(units, device=numbers.device)
        states = (numbers.unsqueeze(-1) >> shifts & 1).to(self.weight.dtype)
        if visible_is_smaller:
            return states, bernoulli(self.hidden_logits(states), generator=generator)
        return bernoulli(self.visible_logits(states), generator=generator), states

    def log_prob(self, visible: torch.Tensor, log_partition: torch.Tensor | float) -> torch.Tensor:
        """Return log p(v) given log Z, exact or estimated: -F(v) - log Z."""
        return -self.free_energy_visible(visible) - log_partition

    def log_partition_surrogate(
        self, visible: torch.Tensor, hidden: torch.Tensor | None = None, *, sum_out_hidden: bool = False
    ) -> torch.Tensor:
        """Return a scalar whose gradient estimates that of log Z: the mean of -E over negative samples, detached.

        Parameters
        ----------
        visible, hidden : torch.Tensor
            Samples of the model, shapes (..., n_visible) and (..., n_hidden).
        sum_out_hidden : bool, default=False
            Use -F(v) instead of -E(v, h): the hidden side in closed form, a smaller variance.
        """
        if sum_out_hidden:
            return -self.free_energy_visible(visible.detach()).mean()
        if hidden is None:
            raise ValueError("hidden samples are needed unless sum_out_hidden=True, got None")
        return -self.energy(visible.detach(), hidden.detach()).mean()

    def likelihood_surrogate(self, data: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
        """Return a loss whose gradient estimates that of -mean log p(data): mean F(data) - mean F(negative samples).

        Its value is not a likelihood; only its gradient means anything.
        """
        return self.free_energy_visible(data).mean() + self.log_partition_surrogate(negative, sum_out_hidden=True)
