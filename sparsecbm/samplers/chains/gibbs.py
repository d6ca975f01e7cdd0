"""Block Gibbs sampling of a restricted Boltzmann machine, and persistent chains."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import nn

from sparsecbm.samplers._bits import BLOCK
from sparsecbm.samplers._checks import check_count, check_finite
from sparsecbm.samplers.noise import bernoulli, compute_dtype, logistic, one_thread
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine

__all__ = ["GibbsSampler", "PersistentChains", "gibbs_sweep"]

_SMALL = 1 << 26
"""Multiplications of half a sweep below which threads on a busy machine wait for each other longer than they work."""


@torch.no_grad()
def gibbs_sweep(
    rbm: RestrictedBoltzmannMachine,
    visible: torch.Tensor,
    *,
    generator: torch.Generator | None,
    beta: float | torch.Tensor = 1.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw h given v, then v given h, at inverse temperature `beta`.

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
        The model.
    visible : torch.Tensor
        Visible states, shape (..., n_visible).
    generator : torch.Generator or None
        Source of randomness; None means PyTorch's default generator.
    beta : float or torch.Tensor, default=1.0
        Inverse temperature, broadcast against the logits; the chain leaves exp(-beta E) invariant.

    Returns
    -------
    tuple of torch.Tensor
        New visible states and the hidden states they were drawn from: a joint sample.
    """
    hidden = bernoulli(rbm.hidden_logits(visible).mul_(beta), generator=generator)
    return bernoulli(rbm.visible_logits(hidden).mul_(beta), generator=generator), hidden


class GibbsSampler:
    """Block Gibbs at inverse temperature 1 with buffers that are reused from sweep to sweep.

    Parameters
    ----------
    rbm : RestrictedBoltzmannMachine
        The model; its parameters are read afresh at every sweep.
    visible : torch.Tensor
        Initial states, shape (chains, n_visible); copied.

    Attributes
    ----------
    visible, hidden : torch.Tensor
        Current joint states, shapes (chains, n_visible) and (chains, n_hidden); overwritten by :meth:`advance`.
    """

    def __init__(self, rbm: RestrictedBoltzmannMachine, visible: torch.Tensor) -> None:
        if visible.dim() != 2:
            raise ValueError(f"visible must have shape (chains, {rbm.n_visible}), got {tuple(visible.shape)}")
        rbm._check("visible", visible, rbm.n_visible)
        self.rbm = rbm
        wide = compute_dtype(rbm.weight.dtype)
        self.visible = visible.detach().to(wide).clone(memory_format=torch.contiguous_format)
        self.hidden = self.visible.new_empty(visible.shape[0], rbm.n_hidden)

    @torch.no_grad()
    def advance(self, sweeps: int = 1, *, generator: torch.Generator | None) -> None:
        """Run `sweeps` sweeps; each draws h given v, then v given h."""
        left = check_count("sweeps", sweeps, 0)
        weight, visible_bias, hidden_bias = self._parameters()
        for name, values in (("weight", weight), ("visible_bias", visible_bias), ("hidden_bias", hidden_bias)):
            check_finite(name, values)  # noise drawn ahead would make 0 of a unit whose log-odds are NaN
        together = BLOCK // (self.visible.numel() + self.hidden.numel())
        small = len(self.visible) * weight.numel() < _SMALL
        with one_thread() if small else contextlib.nullcontext():
            while together > 1 and left > 1:
                now = min(left, together)
                self._advance_together(now, generator)
                left -= now
            for _ in range(left):
                torch.addmm(hidden_bias, self.visible, weight, out=self.hidden)
                bernoulli(self.hidden, generator=generator, out=self.hidden)
                torch.addmm(visible_bias, self.hidden, weight.T, out=self.visible)
                bernoulli(self.visible, generator=generator, out=self.visible)

    def _parameters(self) -> list[torch.Tensor]:
        """Weight, visible and hidden biases as they are now, in the type of the states."""
        rbm = self.rbm
        return [held.to(self.visible.dtype) for held in (rbm.weight, rbm.visible_bias, rbm.hidden_bias)]

    def _advance_together(self, sweeps: int, generator: torch.Generator | None) -> None:
        """Run `sweeps` sweeps whose noise is drawn at once: where there is little of it, calls cost more than numbers.

        A unit is 1 where its log-odds plus logistic noise are above 0, which has probability sigmoid(log-odds).
        """
        weight, visible_bias, hidden_bias = self._parameters()
        options: Any = {"generator": generator, "dtype": self.visible.dtype, "device": self.visible.device}
        hidden = logistic((sweeps, *self.hidden.shape), **options).add_(hidden_bias)
        visible = logistic((sweeps, *self.visible.shape), **options).add_(visible_bias)
        back = weight.T
        for noise_hidden, noise_visible in zip(hidden.unbind(), visible.unbind()):
            torch.addmm(noise_hidden, self.visible, weight, out=self.hidden).gt_(0)
            torch.addmm(noise_visible, self.hidden, back, out=self.visible).gt_(0)


class PersistentChains(nn.Module):
    """Chains that go on from where they stopped, across updates of the model and across checkpoints.

    Parameters
    ----------
    n_chains, n_visible, n_hidden : int
        Number of chains and units of either side.
    seed : int, default=0
        Seed of the chains' own generator, whose state is part of ``state_dict()`` too: training resumed from a
        checkpoint draws the very samples that it would have drawn without a stop.
    dtype : torch.dtype, default=torch.float32
        Type of the states, that of the model.
    device : torch.device, str or None
        Device of the states.

    References
    ----------
    Tieleman 2008, "Training restricted Boltzmann machines using approximations to the likelihood gradient".

    Examples
    --------
    >>> rbm = RestrictedBoltzmannMachine(4, 3)
    >>> chains = PersistentChains(10, 4, 3, seed=1)
    >>> visible, hidden = chains.advance(rbm, sweeps=5)
    >>> visible.shape, hidden.shape
    (torch.Size([10, 4]), torch.Size([10, 3]))
    """

    visible: torch.Tensor
    hidden: torch.Tensor

    def __init__(
        self,
        n_chains: int,
        n_visible: int,
        n_hidden: int,
        *,
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("n_chains", n_chains), ("n_visible", n_visible), ("n_hidden", n_hidden)):
            check_count(name, value)
        self._generator = torch.Generator().manual_seed(seed)
        visible = bernoulli(torch.zeros(n_chains, n_visible, dtype=dtype), generator=self._generator)
        self.register_buffer("visible", visible.to(device))
        self.register_buffer("hidden", torch.zeros(n_chains, n_hidden, dtype=dtype, device=device))

    def get_extra_state(self) -> torch.Tensor:
        """Return the generator's state, as part of ``state_dict()``."""
        return self._generator.get_state()

    def set_extra_state(self, state: torch.Tensor) -> None:
        """Take the generator's state from ``load_state_dict()``."""
        self._generator.set_state(state.cpu())

    def advance(self, rbm: RestrictedBoltzmannMachine, sweeps: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
        """Run `sweeps` sweeps under the model as it is now and return copies of the joint states (v, h)."""
        sampler = GibbsSampler(rbm, self.visible)
        sampler.hidden.copy_(self.hidden)
        sampler.advance(sweeps, generator=self._generator)
        self.visible.copy_(sampler.visible)
        self.hidden.copy_(sampler.hidden)
        return sampler.visible, sampler.hidden
