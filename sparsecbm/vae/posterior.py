"""The approximate posterior q(z | x): independent variables, or autoregressive groups of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError, unknown
from sparsecbm.vae.latents import Latents
from sparsecbm.vae.networks import Stack

__all__ = ["Posterior", "PosteriorDraw"]

_ESTIMATOR = {"relaxed": "relaxed", "straight_through": "straight_through_relaxed", "hard": "score_function"}


@dataclass(frozen=True)
class PosteriorDraw:
    """Samples of the posterior, K of each of B rows.

    Attributes
    ----------
    state : torch.Tensor, shape (K, B, width)
        What decoder, prior and log-masses see: relaxed, hard, or hard with the relaxed gradient.
    logits : torch.Tensor, shape (K or 1, B, width)
        Of the groups in turn, each given the states of those before it.
    value : torch.Tensor or None, shape (K, B, width)
        The relaxed samples in logit or log space; None where the samples are hard.
    temperature : float or None
        Of the relaxation.
    """

    state: Tensor
    logits: Tensor
    value: Tensor | None = None
    temperature: float | None = None


class Posterior(nn.Module):
    """q(z | x) = prod_j q(z_j | z_1, ..., z_j-1, x); one group is a factorial posterior (Khoshaman & Amin 2018, eq. 2).

    Parameters
    ----------
    n_pixels : int
        Width of x.
    latents : Latents
        All latent variables.
    groups : sequence of int
        Variables in each group; their sum is ``latents.n``.
    hidden : sequence of int, default=()
        Hidden layers of each group's network.
    batch_norm : bool, default=True
    pixel_means : torch.Tensor or None
        Subtracted from x.
    generator : torch.Generator or None
        Source of the initial weights.
    """

    pixel_means: Tensor

    def __init__(
        self,
        n_pixels: int,
        latents: Latents,
        groups: Sequence[int],
        *,
        hidden: Sequence[int] = (),
        batch_norm: bool = True,
        pixel_means: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not groups or min(groups) < 1 or sum(groups) != latents.n:
            raise InputError(f"groups={list(groups)!r}: expected positive numbers that add up to {latents.n} latents")
        self.latents = latents
        self.groups = [latents.group(n) for n in groups]
        means = torch.zeros(n_pixels) if pixel_means is None else pixel_means.detach().float()
        self.register_buffer("pixel_means", means)
        networks, before = [], 0
        for group in self.groups:
            networks.append(
                Stack(
                    n_pixels,
                    group.width,
                    hidden=hidden,
                    n_given=before,
                    batch_norm=batch_norm,
                    generator=generator,
                )
            )
            before += group.width
        self.networks = nn.ModuleList(networks)

    @property
    def last_group(self) -> int:
        """Where the last group begins in a state."""
        return self.latents.width - self.groups[-1].width

    def forward(
        self,
        x: Tensor,
        samples: int = 1,
        *,
        mode: str = "relaxed",
        temperature: float | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> PosteriorDraw:
        """Draw `samples` states for each row of `x` (B, n_pixels).

        Parameters
        ----------
        mode : {"relaxed", "straight_through", "hard"}
        temperature : float
            Of the relaxation; not needed for hard samples.
        noise : torch.Tensor, optional
            Standard noise to use, shape (samples, B, width); drawn from `generator` where it is missing. The same
            noise gives relaxed and hard samples that belong together.
        """
        if mode not in _ESTIMATOR:
            raise unknown("mode", mode, _ESTIMATOR)
        relaxed = mode != "hard"
        if relaxed and not (temperature is not None and temperature > 0):
            raise InputError(f"temperature={temperature!r}: relaxed samples need a positive number")
        if relaxed and noise is None:
            noise = self.latents.noise((samples, len(x)), generator=generator, like=self.pixel_means)
        estimator = _ESTIMATOR[mode]
        values: list[Tensor] = []

        def choose(group: Latents, place: slice, logits: Tensor) -> Tensor:
            if noise is None:
                return group.sample(logits.expand(samples, -1, -1), generator=generator)
            state, value = group.state(logits, noise[..., place], estimator, temperature)
            if value is not None:
                values.append(value)
            return state

        state, logits = self._walk(x, choose)
        whole = values[0] if len(values) == 1 else torch.cat(values, -1) if values else None
        return PosteriorDraw(state, logits, whole, temperature)

    def given(self, x: Tensor, state: Tensor) -> PosteriorDraw:
        """Return the posterior's view of given discrete states (K, B, width): their conditional logits."""
        return PosteriorDraw(state, self._walk(x, lambda group, place, logits: state[..., place])[1])

    def _walk(self, x: Tensor, choose: Callable[[Latents, slice, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """States and logits of the groups in turn; `choose` makes a group's state of its place and its logits."""
        x = x - self.pixel_means
        states: list[Tensor] = []
        logits: list[Tensor] = []
        start = 0
        for group, network in zip(self.groups, self.networks):
            now = network(x, torch.cat(states, -1)) if states else network(x).unsqueeze(0)
            states.append(choose(group, slice(start, start + group.width), now))
            logits.append(now)
            start += group.width
        if len(states) == 1:
            return states[0], logits[0]
        logits[0] = logits[0].expand(len(states[0]), -1, -1)
        return torch.cat(states, -1), torch.cat(logits, -1)
