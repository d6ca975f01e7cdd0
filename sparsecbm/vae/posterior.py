"""The approximate posterior q(z | x): independent variables, or autoregressive groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError, unknown
from sparsecbm.samplers import straight_through
from sparsecbm.vae.latents import Latents
from sparsecbm.vae.networks import Stack

__all__ = ["MODES", "Posterior", "PosteriorDraw"]

MODES = ("relaxed", "straight_through", "hard")


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
        if mode not in MODES:
            raise unknown("mode", mode, MODES)
        relaxed = mode != "hard"
        if relaxed and not (temperature is not None and temperature > 0):
            raise InputError(f"temperature={temperature!r}: relaxed samples need a positive number")
        x = x - self.pixel_means
        if relaxed and noise is None:
            noise = self.latents.noise((samples, len(x)), generator=generator, like=x)
        states: list[Tensor] = []
        logits: list[Tensor] = []
        values: list[Tensor] = []
        start = 0
        for group, network in zip(self.groups, self.networks):
            now = network(x, torch.cat(states, -1)) if states else network(x).unsqueeze(0)
            if noise is None:
                states.append(group.sample(now.expand(samples, -1, -1), generator=generator))
            else:
                drawn = noise[..., start : start + group.width]
                if relaxed and temperature is not None:
                    value = group.value(now, drawn, temperature)
                    values.append(value)
                    soft = group.soft(value)
                    states.append(soft if mode == "relaxed" else straight_through(group.hard(value), soft))
                else:
                    states.append(group.hard(now + drawn))
            logits.append(now)
            start += group.width
        if len(states) == 1:
            return PosteriorDraw(states[0], logits[0], values[0] if values else None, temperature)
        logits[0] = logits[0].expand(samples, -1, -1)
        whole = torch.cat(values, -1) if values else None
        return PosteriorDraw(torch.cat(states, -1), torch.cat(logits, -1), whole, temperature)

    def given(self, x: Tensor, state: Tensor) -> PosteriorDraw:
        """Return the posterior's view of given discrete states (K, B, width): their conditional logits."""
        x = x - self.pixel_means
        logits, start = [], 0
        for group, network in zip(self.groups, self.networks):
            now = network(x, state[..., :start]) if start else network(x).unsqueeze(0)
            logits.append(now)
            start += group.width
        if len(logits) > 1:
            logits[0] = logits[0].expand(len(state), -1, -1)
        return PosteriorDraw(state, torch.cat(logits, -1))
