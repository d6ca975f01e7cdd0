"""Gates: exact zeros, hard limits, gradients, and noise that is what it says."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparsecbm._base.errors import InputError
from sparsecbm.bottleneck import GATES, make_gate
from sparsecbm.samplers.concrete import straight_through

UNITS = st.integers(0, 2**16).map(lambda seed: torch.randn(20, 15, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=40)
@given(
    units=UNITS,
    k=st.integers(1, 20),
    name=st.sampled_from(["top_k", "gumbel_top_k", "soft_threshold"]),
    ties=st.booleans(),
)
def test_at_most_k_are_active(units: torch.Tensor, k: int, name: str, ties: bool) -> None:
    if ties:
        units = units.round()
    gate = make_gate(name, 15, {"max_active_concepts": k, "nonnegative": False})
    assert int(gate(units).ne(0).sum(1).max()) <= k
    noise = gate.draw_noise(20, torch.Generator().manual_seed(0))
    assert int(gate.relax(units, 0.5, noise).ne(0).sum(1).max()) <= k


@settings(max_examples=20)
@given(units=UNITS, name=st.sampled_from(sorted(set(GATES) - {"dense", "presence"})))
def test_nonnegative_gates_have_no_negative_and_no_negative_zero(units: torch.Tensor, name: str) -> None:
    options = {"max_active_concepts": 4} if "top_k" in name else {}
    activations = make_gate(name, 15, {**options, "nonnegative": True})(units).detach()
    assert float(activations.min()) >= 0
    active = activations > 0
    assert bool((units[active] > 0).all())


def test_top_k_keeps_the_largest() -> None:
    units = torch.tensor([[0.5, 3.0, -4.0, 1.0]])
    assert make_gate("top_k", 4, {"max_active_concepts": 2})(units).tolist() == [[0.0, 3.0, 0.0, 1.0]]
    signed = make_gate("top_k", 4, {"max_active_concepts": 2, "nonnegative": False})
    assert signed(units).tolist() == [[0.0, 3.0, -4.0, 0.0]]


def test_training_without_noise_is_the_inference_rule(rng: np.random.Generator) -> None:
    units = torch.from_numpy(rng.normal(size=(30, 12))).float()
    for name in ("top_k", "soft_threshold", "binary_concrete"):
        options = {"max_active_concepts": 3} if name != "binary_concrete" else {}
        gate = make_gate(name, 12, options)
        torch.testing.assert_close(gate.relax(units, 0.3, None), gate(units))


def test_soft_threshold_is_the_proximal_map(rng: np.random.Generator) -> None:
    gate = make_gate("soft_threshold", 1, {"nonnegative": False})
    with torch.no_grad():
        gate.log_threshold.fill_(np.log(0.7))
    grid = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    for u in rng.normal(scale=1.5, size=20):
        best = grid[(0.5 * (grid - u) ** 2 + 0.7 * grid.abs()).argmin()]
        assert gate(torch.tensor([[u]])).item() == pytest.approx(float(best), abs=2e-4)


def test_gumbel_top_1_draws_the_softmax() -> None:
    scores = torch.tensor([0.5, 1.0, 2.0, 0.1])
    gate = make_gate("gumbel_top_k", 4, {"max_active_concepts": 1})
    n, tau = 40_000, 0.7
    noise = gate.draw_noise(n, torch.Generator().manual_seed(3))
    counts = gate.relax(scores.expand(n, 4), tau, noise).ne(0).sum(0).detach().numpy()
    expected = n * torch.softmax(scores / tau, 0).numpy()
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > 1e-3


def test_binary_concrete_is_bernoulli_at_every_temperature() -> None:
    gate = make_gate("binary_concrete", 1, {})
    n = 40_000
    units = torch.full((n, 1), 1.7)
    p = float(torch.sigmoid(gate.logits(units[:1]))[0, 0])
    for seed, tau in enumerate((1e-2, 0.5, 5.0)):
        noise = gate.draw_noise(n, torch.Generator().manual_seed(seed))
        active = int(gate.relax(units, tau, noise).ne(0).sum())
        assert stats.binomtest(active, n, p).pvalue > 1e-3
    assert float(gate.expected_active(units[:1])[0]) == pytest.approx(p)


@pytest.mark.parametrize("name", sorted(GATES))
def test_gradients_reach_units_and_gate(name: str) -> None:
    options = {"max_active_concepts": 3} if "top_k" in name else {}
    gate = make_gate(name, 10, options)
    units = torch.randn(16, 10, generator=torch.Generator().manual_seed(1)).mul(2).requires_grad_()
    out = gate.relax(units, 0.5, gate.draw_noise(16, torch.Generator().manual_seed(2)))
    (out * torch.randn(16, 10, generator=torch.Generator().manual_seed(3))).sum().backward()
    assert torch.isfinite(units.grad).all()
    assert units.grad.abs().sum() > 0
    for parameter in gate.parameters():
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0


def test_bad_gates_are_named() -> None:
    with pytest.raises(InputError, match="max_active_concepts"):
        make_gate("top_k", 4, {"max_active_concepts": 0})
    with pytest.raises(InputError, match="did you mean 'top_k'"):
        make_gate("topk", 4, {})


@pytest.mark.parametrize("noisy", [False, True])
def test_top_k_in_one_pass_is_its_definition_bit_for_bit(noisy: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    gate = make_gate("gumbel_top_k", 40, {"max_active_concepts": 5, "nonnegative": True})
    with torch.no_grad():
        gate.gain.normal_(generator=generator)
    units = torch.randn(30, 40, generator=generator).requires_grad_()
    noise = gate.draw_noise(30, generator) if noisy else None
    scores = gate.scores(units) if noise is None else gate.scores(units) + 0.4 * noise
    top = scores.detach().topk(6, dim=1)
    hard = torch.zeros_like(units).scatter_(1, top.indices[:, :-1], 1.0)
    soft = torch.sigmoid((scores - top.values[:, -2:].mean(1, keepdim=True)) / 0.4)
    defined = units.clamp_min(0.0) * straight_through(hard, soft)
    pull = torch.randn(30, 40, generator=generator)
    wanted = torch.autograd.grad(defined, (units, gate.gain), pull)
    relaxed = gate.relax(units, 0.4, noise)
    assert torch.equal(relaxed, defined)
    for found, expected in zip(torch.autograd.grad(relaxed, (units, gate.gain), pull), wanted):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", sorted(set(GATES) - {"dense"}))
@pytest.mark.parametrize("nonnegative", [True, False])
def test_a_silent_concept_is_never_active_and_takes_nobodys_place(name: str, nonnegative: bool) -> None:
    given = {"max_active_concepts": 2, "nonnegative": nonnegative}
    options = {key: value for key, value in given.items() if key in inspect.signature(GATES[name]).parameters}
    few, silent = make_gate(name, 4, options), torch.tensor([True, False, False, False, False, True])
    many = few.spread(6, torch.arange(1, 5))
    units = 3 * torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    units[:, silent] = 9.0
    torch.testing.assert_close(many(units)[:, 1:5], few(units[:, 1:5]))
    assert not many(units)[:, silent].any()
    hushed = make_gate(name, 6, options)
    hushed.silence(silent)
    noise = hushed.draw_noise(50, torch.Generator().manual_seed(1))
    units.requires_grad_(True)
    activations = hushed.relax(units, 0.5, noise)
    assert not activations[:, silent].any()
    assert activations.any()
    (activations.square().sum() + hushed.expected_active(units).sum()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in (units, *hushed.parameters()) if p.grad is not None)


def test_presence_is_a_probability_and_moves_with_its_concept() -> None:
    gate = make_gate("presence", 2, {})
    gate.load_state_dict({"slope": torch.tensor([2.0, 0.5]), "intercept": torch.tensor([-1.0, 0.0])})
    many = gate.spread(3, torch.tensor([2, 0]))
    units = torch.tensor([[1.0, -3.0], [-40.0, 40.0]])
    assert gate(units)[0].tolist() == pytest.approx([1 / (1 + np.exp(-1.0)), 1 / (1 + np.exp(1.5))])
    torch.testing.assert_close(many(torch.tensor([[-3.0, 9.0, 1.0]]))[0, [2, 0]], gate(units)[0])


def test_concepts_compete_by_importance() -> None:
    gate = make_gate("top_k", 4, {"max_active_concepts": 2})
    gate.weigh(torch.tensor([1.0, 0.1, 0.0, 2.0]))
    assert gate(torch.tensor([[1.0, 5.0, 9.0, 0.6]])).tolist() == [[1.0, 0.0, 0.0, pytest.approx(0.6)]]
    # A place is left empty rather than given to a concept of no importance.
    assert gate(torch.tensor([[1.0, -5.0, 9.0, -1.0]])).tolist() == [[1.0, 0.0, 0.0, 0.0]]
