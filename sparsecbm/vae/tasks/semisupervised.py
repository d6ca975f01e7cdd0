"""Semi-supervised classification with a Gaussian and a categorical latent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm._base.parameters import Count, NonNegative, PartialShare, Whole
from sparsecbm._base.parts import CLASSIFIERS
from sparsecbm.samplers import noise as sampler_noise
from sparsecbm.vae.convolutional import side_of
from sparsecbm.vae.data import binarise
from sparsecbm.vae.latents import CategoricalLatents
from sparsecbm.vae.likelihoods import BernoulliLikelihood, bernoulli_log_likelihood
from sparsecbm.vae.networks import Stack
from sparsecbm.vae.tasks.base import StepContext, Task

__all__ = ["LabelledVAE", "SemiSupervisedTask", "choose_labelled"]


def choose_labelled(labels: Tensor, count: int, n_classes: int, *, generator: torch.Generator) -> Tensor:
    """Return `count` row numbers, as evenly over the classes as can be, at random within each."""
    if not n_classes <= count <= len(labels):
        raise InputError(f"labels={count}: expected from {n_classes} (one a class) to {len(labels)} (all)")
    order = sampler_noise.uniform(len(labels), generator=generator).argsort()
    rows = [order[labels[order] == k] for k in range(n_classes)]
    ranked = [(place, k, int(row)) for k, held in enumerate(rows) for place, row in enumerate(held)]
    return torch.tensor([row for _, _, row in sorted(ranked)[:count]])


class LabelledVAE(nn.Module):
    """p(y) p(z) p(x | y, z) with uniform classes y and Gaussian z (model M2 of Kingma et al. 2014).

    Parameters
    ----------
    n_pixels, n_classes : int
    continuous : int, default=50
        Gaussian latents beside the class, task ``semisupervised``.
    hidden : sequence of int, default=(256,)
        Tanh layers of classifier, encoder and decoder.
    classifier : {"stack", "convolutional"}, default="stack"
        Of the task ``semisupervised``.
    batch_norm : bool, default=False
    pixel_means : torch.Tensor or None
    generator : torch.Generator or None
        Source of the initial weights.
    """

    pixel_means: Tensor

    def __init__(
        self,
        n_pixels: int,
        n_classes: int,
        *,
        continuous: Count = 50,
        hidden: Sequence[int] = (256,),
        classifier: str = "stack",
        batch_norm: bool = False,
        pixel_means: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.n_pixels, self.n_classes, self.continuous = n_pixels, n_classes, continuous
        self.register_buffer("pixel_means", torch.zeros(n_pixels) if pixel_means is None else pixel_means.clone())
        options: Any = {"hidden": tuple(hidden), "batch_norm": batch_norm, "generator": generator}
        self.classifier = CLASSIFIERS.make(classifier, n_pixels, n_classes, **options)
        self.encoder = Stack(n_pixels, 2 * continuous, n_given=n_classes, **options)
        bias = None if pixel_means is None else BernoulliLikelihood().bias(pixel_means)
        self.decoder = Stack(continuous, n_pixels, n_given=n_classes, output_bias=bias, **options)

    def class_logits(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Return logits of q(y | x), (B, n_pixels) -> (B, n_classes); `keep` as in :meth:`Stack.forward`."""
        return self.classifier(x - self.pixel_means, keep=keep)

    def bound(self, x: Tensor, y: Tensor, normal: Tensor) -> Tensor:
        """Return log p(x | y, z) - KL(q(z | x, y) || p(z)), y (..., B or 1, n_classes) one-hot or relaxed -> (..., B).

        The KL of the Gaussian is in closed form; `normal` is standard noise (..., B, continuous).
        """
        mean, log_scale = self.encoder(x - self.pixel_means, y).chunk(2, -1)
        z = mean + log_scale.exp() * normal
        kl = (0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale).sum(-1)
        return bernoulli_log_likelihood(x, self.decoder(z, y)) - kl

    @torch.no_grad()
    def sample(self, rows: int, *, generator: torch.Generator) -> Tensor:
        """Return pixel probabilities, shape (rows * n_classes, n_pixels): a style a row, every class in it."""
        device = self.pixel_means.device
        z = sampler_noise.normal((rows, 1, self.continuous), generator=generator, device=device)
        y = torch.eye(self.n_classes, device=device).expand(rows, -1, -1)
        return self.decoder(z.expand(-1, self.n_classes, -1), y).sigmoid().flatten(0, 1)


class SemiSupervisedTask(Task):
    """Train a :class:`LabelledVAE` on many pictures and few labels.

    Parameters
    ----------
    model : LabelledVAE
    labelled_x : torch.Tensor, shape (L, n_pixels)
        Binary, or with `dynamic` intensities from 0 to 255.
    labelled_y : torch.Tensor of int64, shape (L,)
    marginalise : bool, default=False
        Sum over the classes of an unlabelled picture, a pass of encoder and decoder a class (Kingma et al. 2014),
        instead of one pass with a relaxed class (Jang et al. 2017, section 4.3).
    straight_through : bool, default=False
        With the relaxation: hard classes forward.
    label_weight : float, default=50
        Weight of the mean cross-entropy of labelled pictures beside the mean bound of unlabelled ones.
    bound_weight : float, default=0.1
        Weight of the mean bound of labelled pictures. At 1 a hundred of them count as much as all the others together,
        and the decoder learns them by heart.
    labelled_batch : int, default=50
        Labelled pictures a step.
    shift : int, default=0
        Most pixels by which each labelled picture is moved, either way; what leaves at one side comes in at the other.
    dropout : float, default=0
        Share of what the classifier's first dense layer takes that is left out, anew for each picture of a step.
    dynamic : bool, default=False
        Whether labelled pictures are binarised afresh at every step, as the trainer does with the others.
    """

    labelled_x: Tensor
    labelled_y: Tensor

    def __init__(
        self,
        model: LabelledVAE,
        labelled_x: Tensor,
        labelled_y: Tensor,
        *,
        marginalise: bool = False,
        straight_through: bool = False,
        label_weight: NonNegative = 50.0,
        bound_weight: NonNegative = 0.1,
        labelled_batch: Count = 50,
        shift: Whole = 0,
        dropout: PartialShare = 0.0,
        dynamic: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.marginalise, self.straight_through = model, marginalise, straight_through
        self.label_weight, self.bound_weight = label_weight, bound_weight
        self.labelled_batch, self.dynamic = min(labelled_batch, len(labelled_y)), dynamic
        self.dropout = dropout
        self.shift, self.side = shift, side_of(model.n_pixels) if shift else 0
        self.classes = CategoricalLatents(1, model.n_classes)
        self.register_buffer("labelled_x", labelled_x.float())
        self.register_buffer("labelled_y", labelled_y)

    def draw(self, rows: int, *, generator: torch.Generator, like: Tensor) -> dict[str, Tensor]:
        options: Any = {"generator": generator, "device": like.device}
        passes = self.model.n_classes if self.marginalise else 1
        width, known, count = self.model.continuous, self.labelled_batch, len(self.labelled_y)
        chosen = (sampler_noise.uniform((known, 1), **options) * count).long().clamp_(max=count - 1)
        drawn = {
            "normal": sampler_noise.normal((passes, rows, width), **options),
            "shared_normal": sampler_noise.normal((known, width), **options),
            "shared_rows": chosen,
        }
        if self.dynamic:
            drawn["shared_uniforms"] = sampler_noise.uniform((known, self.labelled_x.shape[1]), **options)
        if self.shift:
            drawn["shared_shift"] = sampler_noise.uniform((known, 2), **options)
        if self.dropout:
            width = self.model.classifier.n_inputs
            drawn["dropout"] = sampler_noise.uniform((rows, width), **options)
            drawn["shared_dropout"] = sampler_noise.uniform((known, width), **options)
        if not self.marginalise:
            drawn["classes"] = self.classes.noise((rows,), generator=generator, like=like)
        return drawn

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        model, x = self.model, batch["x"]
        chosen = noise["shared_rows"].squeeze(-1)
        known, labels = self.labelled_x[chosen], self.labelled_y[chosen]
        if self.dynamic:
            known = binarise(known, noise["shared_uniforms"])
        if self.shift:
            known = self._shifted(known, noise["shared_shift"])
        keep = None
        if self.dropout:
            keep = (torch.cat([noise["dropout"], noise["shared_dropout"]]) >= self.dropout) / (1 - self.dropout)
        logits, known_logits = model.class_logits(torch.cat([x, known]), keep).split([len(x), len(known)])
        # The decoder learns what classes are before it teaches them.
        taught = logits.detach().lerp(logits, context.beta)
        bound = self.unlabelled(x, taught, noise, context.temperature)
        one_hot = F.one_hot(labels, model.n_classes).to(x.dtype)
        known_bound = model.bound(known, one_hot, noise["shared_normal"]) - math.log(model.n_classes)
        cross_entropy = F.cross_entropy(known_logits, labels)
        loss = self.label_weight * cross_entropy - bound.sum() * context.scale - self.bound_weight * known_bound.mean()
        return loss, {"bound": bound.detach().sum() * context.scale, "cross_entropy": cross_entropy.detach()}

    def _shifted(self, x: Tensor, uniforms: Tensor) -> Tensor:
        moves = (uniforms * (2 * self.shift + 1)).long().clamp_(max=2 * self.shift) - self.shift
        rows, columns = ((torch.arange(self.side, device=x.device) - moves[..., None]) % self.side).unbind(1)
        places = rows[:, :, None] * self.side + columns[:, None, :]
        return x.gather(1, places.flatten(1))

    def unlabelled(self, x: Tensor, logits: Tensor, noise: Mapping[str, Tensor], temperature: float) -> Tensor:
        """Return the bound of pictures whose class is unknown, shape (B,), given logits of q(y | x)."""
        model = self.model
        if self.marginalise:
            every = torch.eye(model.n_classes, dtype=x.dtype, device=x.device).unsqueeze(1)
            bound = (logits.softmax(-1).T * model.bound(x, every, noise["normal"])).sum(0)
        else:
            estimator = "straight_through_relaxed" if self.straight_through else "relaxed"
            y, _ = self.classes.state(logits, noise["classes"], estimator, temperature)
            bound = model.bound(x, y.unsqueeze(0), noise["normal"])[0]
        return bound + self.classes.entropy(logits) - math.log(model.n_classes)

    @torch.no_grad()
    def validate(self, data: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, float]:
        right = sum(
            int((self.model.class_logits(x).argmax(-1) == y).sum())
            for x, y in zip(data["x"].split(4096), data["y"].split(4096))
        )
        return {"score": right / len(data["y"])}
