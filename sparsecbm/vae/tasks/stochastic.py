"""Feed-forward networks with stochastic layers, p(y | x) = E_z p(y | z), and how gradients pass those layers."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError, unknown
from sparsecbm.vae.latents import ESTIMATORS, make_latents
from sparsecbm.vae.likelihoods import BernoulliLikelihood, bernoulli_log_likelihood
from sparsecbm.vae.networks import Stack
from sparsecbm.vae.objectives.base import log_mean_exp
from sparsecbm.vae.objectives.score_function import ScoreFunctionObjective
from sparsecbm.vae.tasks.base import StepContext, Task
from sparsecbm.vae.weights import Weights, weigh

__all__ = ["ESTIMATORS", "StochasticNetwork", "StochasticTask"]


class StochasticNetwork(nn.Module):
    """x -> z_1 -> ... -> z_L -> logits of y, every z_l drawn given the one before it.

    A state enters the next map less its mean under zero logits (1/2 of a bit): the same models, better conditioned.

    Parameters
    ----------
    n_inputs, n_outputs : int
    groups : sequence of int
        Latent variables of each stochastic layer.
    latents : {"bernoulli", "categorical"}
    categories : int or None
    hidden : sequence of int
        Deterministic tanh layers in each of the maps.
    batch_norm : bool
        Of the deterministic layers.
    input_means, output_means : torch.Tensor or None
        Taken off the input; first bias of the output.
    generator : torch.Generator or None
        Source of the initial weights.
    """

    input_means: Tensor
    centres: Tensor

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        *,
        groups: Sequence[int],
        latents: str = "bernoulli",
        categories: int | None = None,
        hidden: Sequence[int] = (),
        batch_norm: bool = False,
        input_means: Tensor | None = None,
        output_means: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not groups:
            raise InputError("groups=[]: expected the width of at least one stochastic layer")
        self.register_buffer("input_means", torch.zeros(n_inputs) if input_means is None else input_means.clone())
        self.groups = [make_latents(latents, n, categories) for n in groups]
        widths = [n_inputs, *(group.width for group in self.groups), n_outputs]
        centres = torch.cat([group.mean(torch.zeros(group.width)) for group in self.groups])
        self.register_buffer("centres", centres, persistent=False)
        biases = [None] * len(groups) + [None if output_means is None else BernoulliLikelihood().bias(output_means)]
        self.maps = nn.ModuleList(
            Stack(a, b, hidden=hidden, batch_norm=batch_norm, output_bias=bias, generator=generator)
            for (a, b), bias in zip(itertools.pairwise(widths), biases)
        )

    @property
    def width(self) -> int:
        """Numbers in the states of all layers."""
        return sum(group.width for group in self.groups)

    def noise(self, lead: tuple[int, ...], *, generator: torch.Generator | None, like: Tensor) -> Tensor:
        """Draw the standard noise of all layers, shape (*lead, width)."""
        return torch.cat([group.noise(lead, generator=generator, like=like) for group in self.groups], -1)

    def forward(
        self,
        x: Tensor,
        samples: int = 1,
        *,
        estimator: str = "score_function",
        temperature: float | None = None,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return logits of y, (samples, B, n_outputs), and log p(z | x) of the states, (samples, B).

        Without `noise` the samples are hard and drawn from `generator`.
        """
        h = (x - self.input_means).unsqueeze(0)
        log_mass, start = torch.zeros((), device=x.device), 0
        for group, step in zip(self.groups, self.maps):
            logits = step(h)
            if noise is None:
                h = group.sample(logits.expand(samples, -1, -1), generator=generator)
            else:
                h, _ = group.state(logits, noise[..., start : start + group.width], estimator, temperature)
            if estimator == "score_function" and noise is not None:
                log_mass = log_mass + group.log_mass(logits, h)
            h = h - self.centres[start : start + group.width]
            start += group.width
        return self.maps[-1](h), log_mass


class StochasticTask(Task):
    """Maximise ``log 1/K sum_k p(y | z_k)`` with y and x cut from each picture.

    Parameters
    ----------
    network : StochasticNetwork
    estimator : str
        One of `ESTIMATORS`.
    samples : int, default=1
        K.
    validation_samples : int, default=100
        Hard samples in validation.
    """

    def __init__(
        self, network: StochasticNetwork, *, estimator: str = "relaxed", samples: int = 1, validation_samples: int = 100
    ) -> None:
        super().__init__()
        if estimator not in ESTIMATORS:
            raise unknown("estimator", estimator, ESTIMATORS)
        self.network, self.estimator, self.samples = network, estimator, samples
        self.validation_samples = validation_samples
        self.score = ScoreFunctionObjective(samples) if estimator == "score_function" else None

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Cut pictures (B, n_pixels) into input and target."""
        raise NotImplementedError

    def draw(self, rows: int, *, generator: torch.Generator, like: Tensor) -> dict[str, Tensor]:
        return {"latents": self.network.noise((self.samples, rows), generator=generator, like=like)}

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        x, y = self.parts(batch["x"])
        logits, log_mass = self.network(
            x, self.samples, estimator=self.estimator, temperature=context.temperature, noise=noise["latents"]
        )
        log_likelihood = bernoulli_log_likelihood(y, logits)
        surrogate = log_mean_exp(log_likelihood)
        bound = surrogate.detach()
        if self.score is not None:
            signal, _ = self.score.signal(log_likelihood.detach())
            surrogate = surrogate + (signal * log_mass).sum(0)
        return -surrogate.sum() * context.scale, {"bound": bound.sum() * context.scale}

    def log_likelihood(self, x: Tensor, samples: int, *, generator: torch.Generator) -> Tensor:
        """Return ``log 1/K sum_k p(y | z_k)`` of each picture with hard samples, float64, shape (B,)."""
        return self.importance(x, samples, generator=generator).log_mean

    def importance(self, x: Tensor, samples: int, *, generator: torch.Generator) -> Weights:
        """Weigh hard samples of each picture: ``p(y | z)``."""

        def log_weights(rows: Tensor, count: int) -> Tensor:
            given, y = self.parts(rows)
            return bernoulli_log_likelihood(y, self.network(given, count, generator=generator)[0])

        return weigh(x, samples, max(x.shape[1], self.network.width), log_weights)

    @torch.no_grad()
    def predict(self, x: Tensor, *, generator: torch.Generator) -> Tensor:
        """Return whole pictures: what is given of `x`, and the pixel probabilities of one hard sample of the rest."""
        given, y = self.parts(x)
        made = self.network(given, generator=generator)[0][0].sigmoid()
        return made if y.shape == x.shape else torch.cat([given, made], 1)

    def validate(self, data: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, float]:
        return {"score": float(self.log_likelihood(data["x"], self.validation_samples, generator=generator).mean())}
