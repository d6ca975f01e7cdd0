"""Other relaxations of Bernoulli latents against their closed-form CDFs and gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import kstest
from torch import Tensor

from sparsecbm._base.errors import InputError
from sparsecbm.vae import DiscreteVAE, make_latents, make_objective

TEMPERATURE = 0.3


def given_one(name: str, zeta: np.ndarray) -> np.ndarray:
    """The CDF of zeta given z = 1."""
    if name == "power":
        return 1 - (1 - zeta) ** TEMPERATURE
    return np.expm1(zeta / TEMPERATURE) / np.expm1(1 / TEMPERATURE)


def given_zero(name: str, zeta: np.ndarray) -> np.ndarray:
    return zeta**TEMPERATURE if name == "power" else np.ones_like(zeta)


def draws(name: str, logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    latents = make_latents(name, len(logits))
    drawn = latents.noise((count,), generator=torch.Generator().manual_seed(0), like=logits)
    state, value = latents.state(logits, drawn, "relaxed", TEMPERATURE)
    assert value is not None
    return state, value


@pytest.mark.parametrize("name", ["spike_exponential", "power"])
def test_samples_follow_the_mixture_and_so_do_their_gradients(name: str) -> None:
    logits = torch.tensor([-1.5, 0.2, 2.0], dtype=torch.float64, requires_grad=True)
    zeta, _ = draws(name, logits, 60_000)
    p = logits.detach().sigmoid().numpy()
    for column, chance in zip(zeta.detach().T.numpy(), p):
        if name == "spike_exponential":
            assert (column > 0).mean() == pytest.approx(chance, abs=0.01)
            assert kstest(column[column > 0], lambda x: given_one(name, x)).pvalue > 1e-3
        else:
            mixture = lambda x, c=chance: (1 - c) * given_zero(name, x) + c * given_one(name, x)  # noqa: E731
            assert kstest(column, mixture).pvalue > 1e-3
    # E zeta^2 is linear in p(z = 1): the integral of 2 zeta (1 - CDF) over [0, 1] under either.
    under = [
        quad(lambda x, cdf=cdf: 2 * x * (1 - cdf(name, np.float64(x))), 0, 1)[0] for cdf in (given_zero, given_one)
    ]
    (gradient,) = torch.autograd.grad(zeta.square().mean(0).sum(), logits)
    assert gradient.numpy() == pytest.approx(p * (1 - p) * (under[1] - under[0]), abs=0.004)


def test_the_power_density_is_the_derivative_of_its_cdf() -> None:
    latents, value = make_latents("power", 1), torch.linspace(-60, 60, 4001, dtype=torch.float64)
    for logit in (-2.0, 0.5):
        logits = torch.full((4001, 1), logit, dtype=torch.float64)
        density = latents.log_density(logits, value[:, None], TEMPERATURE).exp()
        p, zeta = 1 / (1 + np.exp(-logit)), value.sigmoid().numpy()
        cdf = (1 - p) * given_zero("power", zeta) + p * given_one("power", zeta)
        found = torch.cumulative_trapezoid(density, value)
        assert found.numpy() == pytest.approx(cdf[1:] - cdf[0], abs=1e-4)


@pytest.mark.parametrize("name", ["spike_exponential", "power"])
def test_extremes_stay_finite_and_hard_samples_belong_to_relaxed_ones(name: str) -> None:
    logits = torch.tensor([-90.0, -3.0, 0.0, 3.0, 90.0], requires_grad=True)
    latents = make_latents(name, 5)
    drawn = torch.cat([torch.linspace(-80.1, 79.9, 641), -logits.detach()]).unsqueeze(-1).expand(-1, 5)
    for temperature in (0.02, 1 / 7, 1.0):
        state, value = latents.state(logits, drawn, "relaxed", temperature)
        (gradient,) = torch.autograd.grad(state.sum(), logits)
        assert value is not None
        assert value.isfinite().all()
        assert gradient.isfinite().all()
        assert ((state >= 0) & (state <= 1)).all()
    drawn = latents.noise((20_000,), generator=torch.Generator().manual_seed(0), like=logits.detach())
    apart = latents.state(logits, drawn, "relaxed", 0.02)[0].round() != latents.hard(logits + drawn)
    # Power functions overlap: 1 - (1/2)^t of each lies on the other's half.
    assert apart.double().mean() == pytest.approx(0.0138 if name == "power" else 0, abs=0.002)


def test_what_does_not_fit_is_refused() -> None:
    x = torch.zeros(2, 4)
    for name, objective, temperature in (("spike_exponential", "density", 0.5), ("power", "analytic", 1.5)):
        vae = DiscreteVAE(4, groups=(2,), latents=name, generator=torch.Generator().manual_seed(0))
        with pytest.raises(InputError, match=r"density at their spike|at most 1"):
            make_objective(objective)(vae, x, temperature=temperature, generator=torch.Generator().manual_seed(0))
        with pytest.raises(InputError, match="use 'analytic'"):
            make_objective("mass").check(vae)
        make_objective("mass", straight_through=True).check(vae)
