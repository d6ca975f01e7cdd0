"""Restricted Boltzmann machine against enumeration over every joint state."""

from __future__ import annotations

import pytest
import torch
from rbm_enumeration import chi_square, generator, joint_probabilities, joint_states, random_rbm

from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine, binary_states

ALPHA = 1e-3 / 100


def test_energy_by_hand():
    rbm = RestrictedBoltzmannMachine.from_parameters(
        torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([0.1, 0.2]), torch.tensor([-0.3, 0.4])
    )
    assert rbm.energy(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0])).item() == pytest.approx(-(0.3 + 0.4 + 1.0))
    relaxed = rbm.energy(torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.25]))
    assert relaxed.item() == pytest.approx(-(0.05 - 0.15 + 0.1 + 0.25 - 0.25), abs=1e-6)


def test_energy_is_multilinear():
    """So the integral of exp(-E) over the unit cube is at most 2^-n Z (REFERENCES section 4)."""
    rbm = random_rbm(3, 2)
    visible, hidden = (torch.rand(200_000, n, dtype=torch.float64, generator=generator(n)) for n in (3, 2))
    corners = joint_states(rbm)
    weights = torch.stack(
        [((v * visible + (1 - v) * (1 - visible)).prod(-1)) * ((h * hidden + (1 - h) * (1 - hidden)).prod(-1))
         for v, h in zip(*corners, strict=True)], -1
    )  # fmt: skip
    assert torch.allclose(rbm.energy(visible, hidden), weights @ rbm.energy(*corners))
    assert (-rbm.energy(visible, hidden)).exp().mean() <= (-rbm.energy(*corners)).exp().mean()


@pytest.mark.parametrize(("n_visible", "n_hidden"), [(5, 3), (3, 6), (1, 1)])
def test_enumeration(n_visible, n_hidden):
    rbm = random_rbm(n_visible, n_hidden)
    visible, hidden = joint_states(rbm)
    energies = rbm.energy(visible, hidden)
    exact = (-energies).logsumexp(0)
    assert torch.allclose(rbm.log_partition(chunk=4), exact)
    assert torch.allclose(rbm.log_partition(), exact)
    table = -energies.view(1 << n_hidden, 1 << n_visible)  # the visible units are the low bits
    v_states = binary_states(0, 1 << n_visible, n_visible, dtype=torch.float64, device=None)
    h_states = binary_states(0, 1 << n_hidden, n_hidden, dtype=torch.float64, device=None)
    assert torch.allclose(-rbm.free_energy_visible(v_states), table.logsumexp(0))
    assert torch.allclose(-rbm.free_energy_hidden(h_states), table.logsumexp(1))
    assert torch.allclose(rbm.hidden_mean(v_states), table.softmax(0).T @ h_states)
    assert torch.allclose(rbm.visible_mean(h_states), table.softmax(1) @ v_states)
    assert rbm.log_prob(v_states, exact).exp().sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("n_visible", "n_hidden"), [(4, 5), (5, 3)])
def test_gradient_of_log_partition_is_the_moments(n_visible, n_hidden):
    rbm = random_rbm(n_visible, n_hidden)
    rbm.log_partition(chunk=8).backward()
    visible, hidden = joint_states(rbm)
    p = joint_probabilities(rbm)
    assert torch.allclose(rbm.visible_bias.grad, p @ visible)
    assert torch.allclose(rbm.hidden_bias.grad, p @ hidden)
    assert torch.allclose(rbm.weight.grad, visible.T @ (p.unsqueeze(-1) * hidden))


@pytest.mark.parametrize("sum_out_hidden", [False, True])
def test_surrogate_gradient_is_that_of_log_partition_in_expectation(sum_out_hidden):
    rbm = random_rbm(4, 3, 0.7)
    exact = torch.autograd.grad(rbm.log_partition(), list(rbm.parameters()))
    # In expectation, exactly: each joint state weighted by its probability.
    visible, hidden = joint_states(rbm)
    p = joint_probabilities(rbm)
    total = [torch.zeros_like(g) for g in exact]
    for weight, v, h in zip(p, visible, hidden, strict=True):
        surrogate = rbm.log_partition_surrogate(v[None], h[None], sum_out_hidden=sum_out_hidden)
        for sum_, g in zip(total, torch.autograd.grad(surrogate, list(rbm.parameters())), strict=True):
            sum_ += weight * g
    for seen, expected in zip(total, exact, strict=True):
        assert torch.allclose(seen, expected)


def test_likelihood_surrogate_ascends_the_likelihood():
    rbm = random_rbm(4, 3, 0.7)
    data = (torch.rand(50, 4, generator=generator(), dtype=torch.float64) > 0.5).double()
    loss = -rbm.log_prob(data, rbm.log_partition()).mean()
    exact = torch.autograd.grad(loss, list(rbm.parameters()))
    negative, _ = rbm.sample_exact(200_000, generator=generator(1))
    seen = torch.autograd.grad(rbm.likelihood_surrogate(data, negative), list(rbm.parameters()))
    for a, b in zip(seen, exact, strict=True):
        assert (a - b).abs().max() < 6 * 0.5 / 200_000**0.5


@pytest.mark.parametrize(("n_visible", "n_hidden"), [(3, 4), (4, 3)])
def test_exact_samples(n_visible, n_hidden):
    rbm = random_rbm(n_visible, n_hidden)
    visible, hidden = rbm.sample_exact(200_000, generator=generator(2))
    numbers = (torch.cat([visible, hidden], -1) @ 2.0 ** torch.arange(7, dtype=torch.float64)).long()
    expected = 200_000 * joint_probabilities(rbm)
    seen = torch.bincount(numbers, minlength=128).double()
    assert chi_square(seen, expected) > ALPHA


def test_large_logits_do_not_overflow():
    rbm = RestrictedBoltzmannMachine.from_parameters(torch.full((3, 4), 500.0), torch.zeros(3), torch.zeros(4))
    assert rbm.log_partition().item() == pytest.approx(6000.0)
    assert rbm.free_energy_visible(torch.ones(3)).item() == pytest.approx(-6000.0)


def test_bad_input():
    with pytest.raises(
        ValueError, match=r"26 units, too many to enumerate .at most 25.; use annealed_importance_sampling"
    ):
        RestrictedBoltzmannMachine(26, 30).log_partition()
    with pytest.raises(ValueError, match=r"visible must have 3 units in its last dimension, got shape .2,"):
        RestrictedBoltzmannMachine(3, 2).energy(torch.zeros(2), torch.zeros(2))
    with pytest.raises(ValueError, match="hidden must have 2 units"):
        RestrictedBoltzmannMachine(3, 2).visible_mean(torch.zeros(3))
    with pytest.raises(ValueError, match="n_visible must be an integer of at least 1, got 0"):
        RestrictedBoltzmannMachine(0, 2)
    with pytest.raises(ValueError, match="weight must be finite, got nan"):
        RestrictedBoltzmannMachine.from_parameters(torch.full((1, 1), torch.nan), torch.zeros(1), torch.zeros(1))
    with pytest.raises(ValueError, match="must have shapes"):
        RestrictedBoltzmannMachine.from_parameters(torch.zeros(2, 3), torch.zeros(3), torch.zeros(2))
    with pytest.raises(ValueError, match="hidden samples are needed"):
        RestrictedBoltzmannMachine(3, 2).log_partition_surrogate(torch.zeros(1, 3))
