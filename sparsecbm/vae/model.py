"""The discrete-latent variational autoencoder."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, Counts
from sparsecbm.vae.latents import make_latents
from sparsecbm.vae.likelihoods import make_likelihood
from sparsecbm.vae.networks import Stack
from sparsecbm.vae.posterior import Posterior
from sparsecbm.vae.priors import make_prior

__all__ = ["DiscreteVAE"]


class DiscreteVAE(nn.Module):
    """p(z) p(x | z) with discrete z, and the approximate posterior q(z | x).

    Parameters
    ----------
    n_pixels : int
        Width of x.
    groups : sequence of int, default=(32,)
        Latent variables in each group of the posterior: (32,) is factorial, (16, 16) hierarchical. For the tasks
        ``structured`` and ``autoencoder``, the widths of the stochastic layers.
    latents : {"bernoulli", "categorical", "spike_exponential", "power"}, default="bernoulli"
        The last two are Bernoulli latents with another relaxation (temperature at most 1).
    categories : int or None
        Values of a categorical latent, 10 by default.
    prior : {"bernoulli", "categorical", "rbm"}, default="bernoulli"
        Of the latents.
    prior_options : dict or None
        Keywords of the prior's constructor, such as ``learn: false`` of the factorial ones.
    likelihood : {"bernoulli", "gaussian"}, default="bernoulli"
        Of binary pixels, or of intensities in [0, 1] with normal noise whose size the state decides.
    hidden : sequence of int, default=()
        Hidden tanh layers of encoder and decoder; none makes both linear.
    batch_norm : bool, default=True
        Of the hidden layers.
    pixel_means : torch.Tensor or None
        Mean of each pixel over the training set: taken off the encoder's input, and what the decoder says at first.
    generator : torch.Generator or None
        Source of the initial weights; PyTorch's global generator is never used when it is given.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> vae = DiscreteVAE(16, groups=(4, 4), prior="rbm", generator=generator)
    >>> draw = vae.posterior(torch.zeros(3, 16), samples=5, mode="hard", generator=generator)
    >>> draw.state.shape, vae.log_likelihood(torch.zeros(3, 16), draw.state).shape
    (torch.Size([5, 3, 8]), torch.Size([5, 3]))
    """

    centre: Tensor

    def __init__(
        self,
        n_pixels: int,
        *,
        groups: Counts = (32,),
        latents: str = "bernoulli",
        categories: Count | None = None,
        prior: str = "bernoulli",
        prior_options: dict[str, Any] | None = None,
        likelihood: str = "bernoulli",
        hidden: tuple[Count, ...] = (),
        batch_norm: bool = True,
        pixel_means: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(n_pixels, int) or n_pixels < 1:
            raise InputError(f"n_pixels={n_pixels!r}: expected a positive integer")
        if pixel_means is not None and pixel_means.shape != (n_pixels,):
            raise InputError(f"pixel_means has shape {tuple(pixel_means.shape)}: expected ({n_pixels},)")
        self.n_pixels = n_pixels
        self.latents = make_latents(latents, sum(groups), categories)
        nets: Any = {"batch_norm": batch_norm, "generator": generator}
        self.posterior = Posterior(n_pixels, self.latents, groups, hidden=hidden, pixel_means=pixel_means, **nets)
        self.likelihood = make_likelihood(likelihood)
        bias = None if pixel_means is None else self.likelihood.bias(pixel_means)
        outputs = n_pixels + self.likelihood.extra
        self.decoder = Stack(self.latents.width, outputs, hidden=tuple(hidden)[::-1], output_bias=bias, **nets)
        self.prior = make_prior(prior, self.latents, generator=generator, **(prior_options or {}))
        self.register_buffer("centre", self.latents.mean(torch.zeros(self.latents.width)), persistent=False)
        self._options = {
            "n_pixels": n_pixels,
            "groups": list(groups),
            "latents": latents,
            "categories": categories,
            "prior": prior,
            "prior_options": self.prior.options(),
            "likelihood": likelihood,
            "hidden": list(hidden),
            "batch_norm": batch_norm,
        }

    def options(self) -> dict[str, Any]:
        """What to build the same model with: JSON values."""
        return dict(self._options)

    def decode(self, state: Tensor) -> Tensor:
        """Return what the likelihood takes, of states (..., width) -> (..., n_pixels + likelihood.extra).

        The decoder sees a state less its mean under zero logits (1/2 of a bit): the same models, better conditioned.
        """
        return self.decoder(state - self.centre)

    def log_likelihood(self, x: Tensor, state: Tensor) -> Tensor:
        """Return log p(x | z), x (B, n_pixels) and states (..., B, width) -> (..., B)."""
        return self.likelihood.log_prob(x, self.decode(state))

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None) -> Tensor:
        """Draw states from the prior and return the expected pixels they give, shape (count, n_pixels)."""
        return self.likelihood.mean(self.decode(self.prior.sample(count, generator=generator)))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, *, generator: torch.Generator | None) -> Tensor:
        """Return the expected pixels given one hard posterior sample of each row, shape of `x`."""
        return self.likelihood.mean(self.decode(self.posterior(x, mode="hard", generator=generator).state[0]))
