"""A prior and an objective from outside the package: a file and a line each, through the same configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparsecbm._base.parts import NEGATIVE_PHASES, OBJECTIVES, PRIORS
from sparsecbm.config import VaeConfig, build_config
from sparsecbm.runs import vae_run
from sparsecbm.samplers import noise
from sparsecbm.vae import LogPartition, NegativePhase, Objective, Prior, exact_log_likelihood, load_vae


class ChainPrior(Prior):
    """p(z) ~ exp(sum_i coupling_i z_i z_(i+1)), log Z by passing along the chain."""

    name = "chain"
    kinds = ("bernoulli",)
    normalised = False
    linear = False

    def __init__(self, latents: Any, *, start: float = 0.5, generator: torch.Generator | None = None) -> None:
        super().__init__(latents)
        self.start = start
        self.coupling = nn.Parameter(torch.full((latents.n - 1,), start))

    def log_mass(self, state: Tensor) -> Tensor:
        return (state[..., :-1] * state[..., 1:] * self.coupling).sum(-1)

    def log_partition(self) -> Tensor:
        off = on = torch.zeros((), dtype=torch.float64)
        for coupling in self.coupling.double():
            off, on = torch.logaddexp(off, on), torch.logaddexp(off, on + coupling)
        return torch.logaddexp(off, on)

    def estimate_log_partition(self, **_: Any) -> LogPartition:
        return LogPartition(self.log_partition().item(), 0.0, "passing along the chain")

    def negative_phase(self, name: str, *, seed: int, **options: Any) -> NegativePhase:
        return NEGATIVE_PHASES.make("chain", seed=seed)

    @torch.no_grad()
    def sample(self, count: int, *, generator: torch.Generator | None) -> Tensor:
        states = self.latents.states(like=self.coupling)
        chances = self.log_mass(states).softmax(0).cumsum(0)
        return states[torch.searchsorted(chances, noise.uniform(count, generator=generator) * chances[-1])]

    def options(self) -> dict[str, Any]:
        return {"start": self.start}


class ChainNegative(NegativePhase):
    def __init__(self, *, seed: int) -> None:
        super().__init__()

    def forward(self, prior: ChainPrior) -> Tensor:
        return prior.log_partition().float()


class WeightedMass(Objective):
    """The mass objective with its ratio times a weight."""

    name = "weighted"

    def __init__(self, samples: int = 1, *, straight_through: bool = False, weight: float = 1.0) -> None:
        super().__init__(samples, straight_through=straight_through)
        self.weight = weight

    def log_ratio(self, model: Any, draw: Any) -> Tensor:
        return self.weight * (model.prior.log_mass(draw.state) - model.latents.log_mass(draw.logits, draw.state))


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for table, name, part in (
        (PRIORS, "chain", ChainPrior),
        (NEGATIVE_PHASES, "chain", ChainNegative),
        (OBJECTIVES, "weighted", WeightedMass),
    ):
        monkeypatch.setattr(table, "_parts", dict(table._parts))
        table.register(name, part)


def test_parts_from_outside_train_and_are_measured_and_stored(outside: None, tmp_path: Path) -> None:
    config = build_config(
        {
            "data": {"max_train": 200, "max_validation": 40, "max_test": 20},
            "model": {"groups": [6], "prior": "chain", "prior_options": {"start": 0.25}},
            "objective": {"name": "weighted", "options": {"weight": 0.9}},
            "training": {"epochs": 4, "evaluate_every": 2, "adam_eps": 1e-8},
            "evaluation": {"samples": 4000, "pictures": 4},
            "output": str(tmp_path),
        },
        kind=VaeConfig,
    )
    metrics = vae_run(config).metrics
    assert metrics["test"]["log_partition"]["method"] == "passing along the chain"
    model = load_vae(tmp_path / "model")
    assert isinstance(model.prior, ChainPrior)
    assert not torch.equal(model.prior.coupling, torch.full((5,), 0.25))  # the negative phase and the data taught it
    states = model.latents.states(like=model.prior.coupling)
    assert torch.allclose(model.prior.log_partition(), model.prior.log_mass(states).double().logsumexp(0), atol=1e-5)
    assert np.isfinite(float(exact_log_likelihood(model, torch.zeros(2, 64)).sum()))
