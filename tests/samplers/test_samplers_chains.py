"""Chains: the transition kernels of the code itself, enumerated, and what they converge to."""

from __future__ import annotations

import math

import pytest
import torch
from rbm_enumeration import generator, joint_probabilities, joint_states, random_rbm

from sparsecbm.samplers import partition
from sparsecbm.samplers.chains import (
    GibbsSampler,
    ParallelTempering,
    PersistentChains,
    annealing,
    effective_sample_size,
    gibbs,
    gibbs_sweep,
    population_annealing,
    split_r_hat,
    tempering,
)
from sparsecbm.samplers.rbm import RestrictedBoltzmannMachine, binary_states


class Forced:
    """Stands in for ``bernoulli``: gives the outcomes asked for and multiplies up their probabilities."""

    def __init__(self, *outcomes: torch.Tensor) -> None:
        self.outcomes = list(outcomes)
        self.probability = torch.ones((), dtype=torch.float64)

    def __call__(self, logits, *, generator, out=None):
        outcome = self.outcomes.pop(0)
        sign = 2 * outcome - 1
        self.probability = self.probability * torch.sigmoid(sign * logits).prod(-1)
        return outcome.clone() if out is None else out.copy_(outcome)


def all_moves(rbm: RestrictedBoltzmannMachine) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Every (v, h', v'), one row each, in the order of a (v, h', v') table."""
    sides = [binary_states(0, 1 << n, n, dtype=torch.float64, device=None) for n in (rbm.n_visible, rbm.n_hidden)]
    grid = torch.cartesian_prod(*[torch.arange(len(s)) for s in (sides[0], sides[1], sides[0])])
    return sides[0][grid[:, 0]], sides[1][grid[:, 1]], sides[0][grid[:, 2]]


def assert_stationary(kernel: torch.Tensor, rbm: RestrictedBoltzmannMachine, log_mass: torch.Tensor) -> None:
    """`kernel` is p(h', v' | v), shape (v, h', v'); `log_mass` of the joint states, shape (h, v)."""
    target = log_mass.view(-1).softmax(0).view(1 << rbm.n_hidden, 1 << rbm.n_visible)
    after = torch.einsum("v,vhw->hw", target.sum(0), kernel)
    assert torch.allclose(kernel.sum((1, 2)), torch.ones(len(kernel), dtype=torch.float64), atol=1e-12)
    assert (after - target).abs().max() < 1e-12


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_gibbs_sweep_leaves_the_model_stationary(beta, monkeypatch):
    rbm = random_rbm(3, 2)
    visible, hidden, moved = all_moves(rbm)
    forced = Forced(hidden, moved)
    monkeypatch.setattr(gibbs, "bernoulli", forced)
    new_visible, new_hidden = gibbs_sweep(rbm, visible, generator=None, beta=beta)
    assert torch.equal(new_visible, moved)
    assert torch.equal(new_hidden, hidden)
    assert_stationary(forced.probability.view(8, 4, 8), rbm, -beta * rbm.energy(*joint_states(rbm)).detach())


def test_gibbs_sampler_leaves_the_model_stationary(monkeypatch):
    rbm = random_rbm(3, 2, seed=1)
    visible, hidden, moved = all_moves(rbm)
    sampler = GibbsSampler(rbm, visible)
    forced = Forced(hidden, moved)
    monkeypatch.setattr(gibbs, "bernoulli", forced)
    sampler.advance(1, generator=None)
    assert_stationary(forced.probability.view(8, 4, 8), rbm, -rbm.energy(*joint_states(rbm)).detach())


def test_sweeps_whose_noise_is_drawn_at_once_follow_the_conditionals(monkeypatch):
    """A unit is 1 where its log-odds plus its own logistic noise are above 0."""
    rbm = random_rbm(3, 2, seed=1)
    drawn = []
    original = gibbs.logistic

    def spy(*arguments, **options):
        drawn.append(original(*arguments, **options))
        return drawn[-1].clone()

    monkeypatch.setattr(gibbs, "logistic", spy)
    monkeypatch.setattr(gibbs, "BLOCK", 4 * 5 * 50)  # four sweeps at a time
    visible = binary_states(0, 8, 3, dtype=torch.float64, device=None)[torch.arange(50) % 8]
    sampler = GibbsSampler(rbm, visible)
    sampler.advance(6, generator=generator(4))
    assert [tuple(held.shape) for held in drawn] == [(4, 50, 2), (4, 50, 3), (2, 50, 2), (2, 50, 3)]
    for noise_hidden, noise_visible in zip(torch.cat(drawn[::2]), torch.cat(drawn[1::2])):
        hidden = (rbm.hidden_logits(visible) + noise_hidden > 0).double()
        visible = (rbm.visible_logits(hidden) + noise_visible > 0).double()
    assert torch.equal(sampler.visible, visible)
    assert torch.equal(sampler.hidden, hidden)


@pytest.mark.parametrize("t", [0.2, 0.7, 1.0])
def test_annealing_sweep_leaves_the_path_stationary(t, monkeypatch):
    rbm = random_rbm(3, 2, seed=2)
    base = torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)
    path = partition._Path(rbm, base)
    visible, hidden, moved = all_moves(rbm)
    forced = Forced(hidden, moved)
    monkeypatch.setattr(partition, "bernoulli", forced)
    path.sweep(path.input(visible), t, None)
    v, h = joint_states(rbm)
    log_mass = (1 - t) * (v @ base) - t * rbm.energy(v, h).detach()
    assert_stationary(forced.probability.view(8, 4, 8), rbm, log_mass)
    # and f_t is the marginal of that mass
    states = binary_states(0, 8, 3, dtype=torch.float64, device=None)
    f = path.log_mass(states, path.input(states), t)
    assert torch.allclose(f, log_mass.view(4, 8).logsumexp(0))


def test_exchange_leaves_the_replicas_stationary(monkeypatch):
    """Every pair of joint states of two neighbours; with free energies in place of joint ones this fails."""
    rbm = random_rbm(2, 2, scale=2.0)
    betas = [0.0, 0.4, 1.0]
    v, h = joint_states(rbm)
    pairs = torch.cartesian_prod(torch.arange(16), torch.arange(16))
    ladder = ParallelTempering(rbm, 256, betas, generator=generator())
    ladder.visible = torch.stack([v[pairs[:, 0]], v[pairs[:, 0]], v[pairs[:, 1]]])
    ladder.hidden = torch.stack([h[pairs[:, 0]], h[pairs[:, 0]], h[pairs[:, 1]]])
    ladder._odd = 1  # the pair of 0.4 and 1.0
    log_accept = []
    original = tempering.swap_log_acceptance

    def spy(*arguments):
        log_accept.append(original(*arguments))
        return log_accept[-1]

    monkeypatch.setattr(tempering, "swap_log_acceptance", spy)
    always = lambda shape, **_: torch.full(shape, torch.inf, dtype=torch.float64)  # noqa: E731
    monkeypatch.setattr(tempering, "exponential", always)
    ladder.swap()
    assert torch.equal(ladder.visible[1], v[pairs[:, 1]])  # an accepted exchange is an exchange
    assert torch.equal(ladder.hidden[2], h[pairs[:, 0]])
    accept = log_accept[0][0].exp().view(16, 16)
    target = joint_probabilities(rbm, 0.4)[:, None] * joint_probabilities(rbm, 1.0)[None, :]
    after = target * (1 - accept) + (target * accept).T
    assert (after - target).abs().max() < 1e-12


def total_variation(rbm, visible, hidden) -> float:
    units = rbm.n_visible + rbm.n_hidden
    numbers = (torch.cat([visible, hidden], -1).double() @ 2.0 ** torch.arange(units, dtype=torch.float64)).long()
    seen = torch.bincount(numbers, minlength=1 << units).double() / len(numbers)
    return 0.5 * (seen - joint_probabilities(rbm)).abs().sum().item()


def bimodal_rbm(n: int = 3, strength: float = 10.0) -> RestrictedBoltzmannMachine:
    """All units on or all off, with the same total mass and an energy barrier between."""
    weight = torch.full((n, n), strength, dtype=torch.float64)
    bias = torch.full((n,), -strength * n / 2, dtype=torch.float64)
    return RestrictedBoltzmannMachine.from_parameters(weight, bias, bias.clone())


def test_parallel_tempering_crosses_where_gibbs_does_not():
    rbm = bimodal_rbm(2, 8.0)
    sweeps, chains = 60, 10_000
    start = torch.zeros(chains, 2, dtype=torch.float64)
    plain = GibbsSampler(rbm, start)
    plain.advance(sweeps, generator=generator(1))
    ladder = ParallelTempering(rbm, chains, torch.linspace(0, 1, 6), generator=generator(2))
    ladder.visible.zero_()
    visible, hidden = ladder.advance(sweeps)
    assert total_variation(rbm, plain.visible, plain.hidden) >= 0.05
    # 10,000 draws of two equal modes have a total variation of about 0.004 by chance; 4.5 sigma is 0.022.
    assert total_variation(rbm, visible, hidden) < 0.025
    assert ((ladder.swap_rate > 0.1) & (ladder.swap_rate <= 1)).all()


def test_gibbs_reaches_an_easy_model():
    rbm = random_rbm(3, 3, scale=0.5)
    sampler = GibbsSampler(rbm, torch.zeros(40_000, 3))
    sampler.advance(30, generator=generator(3))
    # 64 cells of 40,000 draws: the mean total variation by chance is about 0.013.
    assert total_variation(rbm, sampler.visible, sampler.hidden) < 0.02


def test_population_annealing():
    rbm = random_rbm(3, 3)
    result = population_annealing(rbm, 20_000, torch.linspace(0, 1, 11), generator=generator(4))
    assert result.log_partition == pytest.approx(rbm.log_partition().item(), abs=0.03)
    assert total_variation(rbm, result.visible, result.hidden) < 0.04
    assert 1 <= result.family_size < 20


def test_systematic_resampling_counts():
    """Each index comes floor or ceil of its share times."""
    log_weights = torch.randn(500, generator=generator(), dtype=torch.float64)
    chosen = annealing.systematic_resample(log_weights, generator=generator(5))
    share = 500 * log_weights.softmax(0)
    counts = torch.bincount(chosen, minlength=500)
    assert (counts >= share.floor() - 1e-9).all()
    assert (counts <= share.ceil() + 1e-9).all()


def test_persistent_chains_survive_a_checkpoint(tmp_path):
    rbm = random_rbm(5, 4).float()
    chains = PersistentChains(50, 5, 4, seed=3)
    chains.advance(rbm, 3)
    torch.save(chains.state_dict(), tmp_path / "chains.pt")
    ahead = chains.advance(rbm, 4)
    resumed = PersistentChains(50, 5, 4, seed=99)
    resumed.load_state_dict(torch.load(tmp_path / "chains.pt", weights_only=True))
    again = resumed.advance(rbm, 4)
    assert torch.equal(ahead[0], again[0])
    assert torch.equal(ahead[1], again[1])
    # They do go on: another call does not start afresh.
    assert torch.equal(resumed.visible, again[0])
    assert not torch.equal(resumed.advance(rbm, 1)[0], again[0])


def test_chains_do_not_touch_the_global_generator():
    state = torch.get_rng_state()
    PersistentChains(5, 3, 2, seed=1).advance(RestrictedBoltzmannMachine(3, 2, generator=generator()), 2)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("betas", "message"),
    [
        ([0.0, 0.5, 0.5, 1.0], "betas must rise strictly from 0 to 1, got 0.5 then 0.5 at positions 1 and 2"),
        ([0.1, 1.0], "betas must rise from 0 to 1, got 0.1 to 1"),
        ([0.0, 0.9], "betas must rise from 0 to 1, got 0 to 0.9"),
        ([1.0, 0.0], "betas must rise from 0 to 1, got 1 to 0"),
        ([0.0, math.nan, 1.0], "betas must rise strictly"),
        ([0.0], "at least two values"),
    ],
)
def test_bad_betas(betas, message):
    rbm = RestrictedBoltzmannMachine(3, 2, generator=generator())
    visible = torch.zeros(2, 3)
    calls = [
        lambda: ParallelTempering(rbm, 2, betas, generator=generator()),
        lambda: population_annealing(rbm, 10, betas, generator=generator()),
        lambda: partition.annealed_importance_sampling(rbm, betas, 2, generator=generator()),
        lambda: partition.reverse_annealed_importance_sampling(rbm, betas, visible, generator=generator()),
    ]
    for call in calls:
        with pytest.raises(ValueError) as error:
            call()
        assert message in str(error.value)


def test_bad_shapes():
    rbm = RestrictedBoltzmannMachine(3, 2, generator=generator())
    with pytest.raises(ValueError, match="visible must have 3 units"):
        GibbsSampler(rbm, torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"visible must have shape .chains, 3."):
        GibbsSampler(rbm, torch.zeros(3))
    with pytest.raises(ValueError, match="n_chains must be an integer of at least 1"):
        PersistentChains(0, 3, 2)


# ---- diagnostics --------------------------------------------------------------------------------------------------


def autoregression(rho: float, chains: int, length: int) -> torch.Tensor:
    noise = torch.randn(chains, length, generator=generator(6), dtype=torch.float64)
    draws = [noise[:, 0] / math.sqrt(1 - rho**2)]
    for t in range(1, length):
        draws.append(rho * draws[-1] + noise[:, t])
    return torch.stack(draws, 1)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_effective_sample_size_of_an_autoregression(rho):
    draws = autoregression(rho, 8, 4000)
    expected = draws.numel() * (1 - rho) / (1 + rho)
    assert effective_sample_size(draws).item() == pytest.approx(expected, rel=0.2)
    assert split_r_hat(draws).item() == pytest.approx(1, abs=0.02)


def test_r_hat_sees_chains_apart_and_chains_that_drift():
    draws = autoregression(0.0, 4, 1000)
    apart = draws + torch.tensor([0.0, 0.0, 3.0, 3.0]).unsqueeze(-1)
    drifting = draws + torch.linspace(0, 8, 1000)
    assert split_r_hat(apart) > 1.5
    assert split_r_hat(drifting) > 1.5
    assert effective_sample_size(apart) < 100
    both = torch.stack([draws, apart], -1)
    assert torch.allclose(split_r_hat(both)[0], split_r_hat(draws))
    assert split_r_hat(torch.ones(2, 10)).item() == 1
    stuck = torch.tensor([[0.0] * 10, [1.0] * 10])
    assert split_r_hat(stuck).item() == math.inf
    with pytest.raises(ValueError, match="draws must have shape"):
        split_r_hat(torch.zeros(4, 3))
