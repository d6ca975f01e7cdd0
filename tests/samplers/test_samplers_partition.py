"""Annealed importance sampling both ways, the bridge, and the adaptive ladder, against exact log Z."""

from __future__ import annotations

import math

import pytest
import torch
from rbm_enumeration import generator, random_rbm

from sparsecbm.samplers.partition import (
    PartitionEstimate,
    adaptive_betas,
    annealed_importance_sampling,
    base_rate_bias,
    bridge_estimate,
    reverse_annealed_importance_sampling,
)
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine


@pytest.fixture(scope="module")
def model():
    rbm = RestrictedBoltzmannMachine(10, 40, scale=0.6, generator=generator(1))
    with torch.no_grad():
        return rbm, rbm.log_partition().item()


def test_forward_reverse_and_bridge(model):
    rbm, exact = model
    betas = torch.linspace(0, 1, 200, dtype=torch.float64)
    forward = annealed_importance_sampling(rbm, betas, 400, generator=generator(2))
    visible, _ = rbm.sample_exact(400, generator=generator(3))
    reverse = reverse_annealed_importance_sampling(rbm, betas, visible, generator=generator(4))
    bridge = bridge_estimate(forward, reverse)
    for estimate in (forward, reverse, bridge):
        assert abs(estimate.log_partition - exact) < 5 * estimate.standard_error
        assert estimate.standard_error < 0.05
    assert forward.log_weights.dtype == torch.float64
    assert 200 < forward.effective_sample_size <= 400
    assert bridge.standard_error < max(forward.standard_error, reverse.standard_error)


def test_sandwich_over_seeds(model):
    """The mean log weights bound log Z from below forward and from above in reverse, without any slack."""
    rbm, exact = model
    betas = torch.linspace(0, 1, 40, dtype=torch.float64)
    held = 0
    for seed in range(20):
        source = generator(100 + seed)
        forward = annealed_importance_sampling(rbm, betas, 100, generator=source)
        reverse = reverse_annealed_importance_sampling(
            rbm, betas, rbm.sample_exact(100, generator=source)[0], generator=source
        )
        held += forward.bound <= exact <= reverse.bound
    assert held >= 19


def test_one_step_is_plain_importance_sampling():
    """With betas (0, 1) the weights are the model's mass over the base's: unbiased."""
    rbm = random_rbm(3, 2)
    base = torch.tensor([0.2, -0.4, 0.1], dtype=torch.float64)
    estimate = annealed_importance_sampling(rbm, [0.0, 1.0], 50_000, generator=generator(5), base_bias=base)
    assert estimate.log_partition == pytest.approx(rbm.log_partition().item(), abs=5 * estimate.standard_error)
    assert estimate.log_base == pytest.approx(torch.nn.functional.softplus(base).sum().item() + 2 * math.log(2))


def test_base_rates_help():
    """A model with strong visible biases: starting from its means makes the weights more even."""
    source = generator(6)
    rbm = RestrictedBoltzmannMachine.from_parameters(
        0.3 * torch.randn(8, 6, generator=source), 3 * torch.randn(8, generator=source), torch.zeros(6)
    )
    data, _ = rbm.sample_exact(5000, generator=source)
    betas = torch.linspace(0, 1, 10, dtype=torch.float64)
    plain = annealed_importance_sampling(rbm, betas, 500, generator=generator(7))
    informed = annealed_importance_sampling(rbm, betas, 500, generator=generator(7), base_bias=base_rate_bias(data))
    assert informed.effective_sample_size > plain.effective_sample_size
    assert informed.log_partition == pytest.approx(rbm.log_partition().item(), abs=5 * informed.standard_error)


def test_bridge_of_gaussian_works():
    """Works of two Gaussians that obey Crooks' relation: x ~ N(C +- s^2 / 2, s^2)."""
    log_ratio, sd = 7.0, 3.0
    source = generator(8)
    noise = torch.randn(2, 20_000, dtype=torch.float64, generator=source)
    forward = PartitionEstimate(0.0, 0.0, 1.0, 0.0, log_ratio - sd**2 / 2 + sd * noise[0], 1.5)
    reverse = PartitionEstimate(0.0, 0.0, 1.0, 0.0, -(log_ratio + sd**2 / 2 + sd * noise[1][:5000]), 1.5)
    bridge = bridge_estimate(forward, reverse)
    assert bridge.log_partition == pytest.approx(log_ratio + 1.5, abs=4 * bridge.standard_error)
    assert 0 < bridge.standard_error < 0.05
    with pytest.raises(ValueError, match="share a base distribution"):
        bridge_estimate(forward, PartitionEstimate(0.0, 0.0, 1.0, 0.0, reverse.log_weights, 2.0))


def test_adaptive_ladder(model):
    rbm, exact = model
    ladder = adaptive_betas(rbm, generator=generator(9), target=0.98)
    assert ladder[0] == 0
    assert ladder[-1] == 1
    assert (ladder.diff() > 0).all()
    finer = adaptive_betas(rbm, generator=generator(9), target=0.998)
    assert len(finer) > 1.5 * len(ladder)
    estimate = annealed_importance_sampling(rbm, finer, 400, generator=generator(10))
    assert abs(estimate.log_partition - exact) < 5 * estimate.standard_error
    even = annealed_importance_sampling(
        rbm, torch.linspace(0, 1, len(finer), dtype=torch.float64), 400, generator=generator(10)
    )
    assert estimate.effective_sample_size > 0.8 * even.effective_sample_size


def test_bad_input(model):
    rbm, _ = model
    with pytest.raises(ValueError, match=r"target must lie strictly between 0 and 1, got 1.0"):
        adaptive_betas(rbm, generator=generator(), target=1.0)
    with pytest.raises(ValueError, match="more than max_betas=3 values needed"):
        adaptive_betas(rbm, generator=generator(), target=0.9999, max_betas=3)
    with pytest.raises(ValueError, match="base_bias must be 10 finite values"):
        annealed_importance_sampling(rbm, [0.0, 1.0], 3, generator=generator(), base_bias=torch.zeros(3))
    with pytest.raises(ValueError, match="n_chains must be an integer of at least 1, got 0"):
        annealed_importance_sampling(rbm, [0.0, 1.0], 0, generator=generator())
    with pytest.raises(ValueError, match="visible must have shape"):
        reverse_annealed_importance_sampling(rbm, [0.0, 1.0], torch.zeros(3, 4), generator=generator())
    with pytest.raises(ValueError, match="data must have shape"):
        base_rate_bias(torch.zeros(4))
