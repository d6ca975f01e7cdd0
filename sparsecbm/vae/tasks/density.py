"""Density estimation: a discrete VAE trained on an objective."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsecbm._base.errors import InputError
from sparsecbm.vae.evaluation import estimate_log_likelihood, estimate_log_partition
from sparsecbm.vae.model import DiscreteVAE
from sparsecbm.vae.objectives import Objective
from sparsecbm.vae.tasks.base import StepContext, Task


class DensityTask(Task):
    """Maximise an objective of a :class:`DiscreteVAE`; with an RBM prior and objective ``mass`` this is GumBolt.

    Parameters
    ----------
    model : DiscreteVAE
    objective : Objective
    negative : torch.nn.Module or None
        For the gradient of log Z, as :meth:`Prior.negative_phase` gives it; needed where the prior is not normalised.
    validation_samples : int, default=10
        Hard samples a picture in validation.
    """

    def __init__(
        self,
        model: DiscreteVAE,
        objective: Objective,
        negative: nn.Module | None = None,
        *,
        validation_samples: int = 10,
    ) -> None:
        super().__init__()
        if (negative is None) != model.prior.normalised:
            need = "needs a negative phase" if negative is None else "is normalised: it takes no negative phase"
            raise InputError(f"prior {model.prior.name!r} {need}")
        objective.check(model)
        self.model, self.objective, self.negative = model, objective, negative
        self.validation_samples = validation_samples
        self._log_partition: float | None = None

    def draw(self, rows: int, *, generator: torch.Generator, like: Tensor) -> dict[str, Tensor]:
        if not self.objective.draws:
            return {}
        shape = (self.objective.samples, rows)
        return {"latents": self.model.latents.noise(shape, generator=generator, like=like)}

    def forward(
        self, batch: Mapping[str, Tensor], noise: Mapping[str, Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        value = self.objective(
            self.model,
            batch["x"],
            temperature=context.temperature,
            beta=context.beta,
            noise=noise.get("latents"),
        )
        loss = -value.surrogate.sum() * context.scale
        if self.negative is not None:
            loss = loss + context.beta * self.model.prior.log_partition_surrogate(self.negative)
        record = {
            "bound": value.bound.sum() * context.scale,
            "log_likelihood": value.log_likelihood.sum() * context.scale,
            "log_ratio": value.log_ratio.sum() * context.scale,
        }
        return loss, record

    def nats(self, record: Mapping[str, float]) -> float:
        if self._log_partition is None:
            self._log_partition = self._estimate(torch.Generator().manual_seed(0))
        return record["bound"] - record["beta"] * self._log_partition

    def settle(self, entry: dict[str, float], generator: torch.Generator) -> None:
        self._log_partition = self._estimate(generator)
        entry["bound"] -= entry["beta"] * self._log_partition
        entry["kl"] = self._log_partition - entry.pop("log_ratio")
        if self.negative is not None:
            entry["log_partition"] = self._log_partition

    def _estimate(self, generator: torch.Generator) -> float:
        return estimate_log_partition(self.model.prior, generator=generator, betas=200, chains=128, reverse=False).value

    def validate(self, data: Mapping[str, Tensor], *, generator: torch.Generator) -> dict[str, float]:
        log_partition = estimate_log_partition(
            self.model.prior, generator=generator, betas=200, chains=128, reverse=False
        )
        estimate = estimate_log_likelihood(
            self.model, data["x"], self.validation_samples, generator=generator, log_partition=log_partition
        )
        return {"score": estimate.log_likelihood, "elbo": estimate.elbo}
