"""Noise: distribution, tails, types, generators, independence of threads and blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparsecbm.samplers import Concrete, _bits, noise

ALPHA = 1e-3 / 100  # Bonferroni: a hundred statistical checks in this folder, one in a thousand that any of them fails
DISTRIBUTIONS = {
    "logistic": stats.logistic,
    "gumbel": stats.gumbel_r,
    "exponential": stats.expon,
    "uniform": stats.uniform,
    "normal": stats.norm,
}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distribution(name, dtype):
    draws = getattr(noise, name)(300_000, generator=generator(1), dtype=dtype)
    assert draws.dtype == dtype
    assert stats.kstest(draws.numpy(), DISTRIBUTIONS[name].cdf).pvalue > ALPHA


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_bfloat16_is_float32_noise_rounded_once(name):
    function = getattr(noise, name)
    wide = function(100_000, generator=generator(2))
    short = function(100_000, generator=generator(2), dtype=torch.bfloat16)
    expected = wide.bfloat16()
    if name == "uniform":  # kept below 1
        expected = expected.clamp(max=1 - torch.finfo(torch.bfloat16).eps / 2)
    assert torch.equal(short, expected)
    # What bf16 uniforms would cost: REFERENCES section 7 has a maximum of 4.8 and a variance of 1.53 for Gumbel noise.
    if name == "gumbel":
        assert short.float().max() > 9
        assert short.float().var().item() == pytest.approx(math.pi**2 / 6, rel=0.03)


def test_bfloat16_against_the_rounded_distribution():
    draws = noise.gumbel(200_000, generator=generator(3), dtype=torch.bfloat16).double().numpy()
    # KS at the rounding boundaries, where the rounded variable's distribution function is the exact one.
    edges = torch.linspace(-2.5, 12, 400).bfloat16().double().unique().numpy()
    middles = (edges[1:] + edges[:-1]) / 2
    empirical = np.searchsorted(np.sort(draws), middles) / len(draws)
    adjacent = np.diff(edges) <= np.spacing(edges[:-1].astype(np.float32)) * 2**17
    gap = np.abs(empirical - stats.gumbel_r.cdf(middles))[adjacent].max()
    assert gap < stats.kstwo.isf(ALPHA, len(draws))


@pytest.mark.parametrize("name", ["logistic", "gumbel", "exponential"])
def test_tail_counts(name):
    """Counts beyond far quantiles are Poisson with the exact mean: nothing truncated, nothing inflated."""
    draws = getattr(noise, name)(4_000_000, generator=generator(4))
    for quantile in (1e-4, 1e-5, 2e-6):
        law = DISTRIBUTIONS[name]
        upper = int((draws > law.isf(quantile)).sum())
        lower = int((draws < law.ppf(quantile)).sum())
        for seen in (upper, lower):
            expected = quantile * len(draws)
            assert stats.poisson.cdf(seen, expected) > ALPHA
            assert stats.poisson.sf(seen - 1, expected) > ALPHA


def test_both_ends_are_precise():
    """With the largest and smallest integers, each end has the value of the exact formula to float32 rounding."""
    pairs = noise.UniformPairs(generator(), torch.float32, None, 4)
    words = torch.tensor([0, 1, 2**31 - 1, 2**31 - 2], dtype=torch.int32).view(torch.int64)
    pairs._stream.next = lambda count: (words, torch.empty_like(words))
    odds = pairs.odds(torch.empty(4)).double()
    small = 2.0**-32
    exact = torch.tensor([1 / small - 1, 1 / (3 * small) - 1, small / (1 - small), 3 * small / (1 - 3 * small)])
    assert torch.allclose(odds, exact.double(), rtol=3e-7, atol=0)


def test_uniform_is_open():
    draws = noise.uniform(3_000_000, generator=generator(5))
    assert 0 < draws.min() < 1e-5
    assert 1 - 1e-5 < draws.max() < 1
    for dtype in (torch.float16, torch.bfloat16):
        short = noise.uniform(200_000, generator=generator(5), dtype=dtype)
        assert short.min() > 0
        assert short.max() < 1


def test_float16_stays_finite_and_positive():
    assert noise.exponential(1_000_000, generator=generator(), dtype=torch.float16).min() > 0
    assert noise.gumbel(1_000_000, generator=generator(), dtype=torch.float16).isfinite().all()


def test_bernoulli_probabilities():
    logits = torch.tensor([-12.0, -5.0, -1.0, 0.0, 0.3, 4.0, 12.0])
    count = 400_000
    ones = noise.bernoulli(logits.expand(count, 7).contiguous(), generator=generator(6)).sum(0)
    for seen, p in zip(ones.tolist(), logits.double().sigmoid().tolist(), strict=True):
        assert stats.binomtest(int(seen), count, p).pvalue > ALPHA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_bernoulli_extremes_types_and_out(dtype):
    logits = torch.tensor([-1e4, 1e4, 0.0]).to(dtype)
    draw = noise.bernoulli(logits, generator=generator())
    assert draw.dtype == dtype
    assert draw[:2].tolist() == [0.0, 1.0]
    many = torch.zeros(200_001, dtype=dtype)
    reference = noise.bernoulli(many, generator=generator(7))
    assert noise.bernoulli(many, generator=generator(7), out=many) is many
    assert torch.equal(many, reference)
    assert set(reference.tolist()) == {0.0, 1.0}
    with pytest.raises(ValueError, match="out must be contiguous"):
        noise.bernoulli(many, generator=generator(), out=torch.empty(3, dtype=dtype))


def test_bernoulli_refuses_what_has_no_probability():
    for count in (3, 300_000):
        with pytest.raises(ValueError, match="got nan"):
            noise.bernoulli(torch.tensor([0.0] * count + [math.nan]), generator=generator())
    for logits, message in ((torch.tensor([0, 1]), "logits must be floating-point"), ([0.0], "must be a torch.Tensor")):
        with pytest.raises(ValueError, match=message):
            noise.bernoulli(logits, generator=generator())
    certain = torch.tensor([math.inf, -math.inf])
    assert noise.bernoulli(certain, generator=generator()).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("shape", [(), (0, 3), (4, 0)])
def test_bernoulli_of_any_shape(shape):
    for logits in (torch.zeros(shape), torch.zeros(1).expand(shape or (1,))):
        assert noise.bernoulli(logits, generator=generator()).shape == logits.shape
    strided = torch.zeros(6, 4)[::2, ::2].requires_grad_()
    draw = noise.bernoulli(strided, generator=generator())
    assert draw.shape == (3, 2)
    assert not draw.requires_grad


def test_integers_of_other_libraries():
    expected = noise.gumbel((3, 2), generator=generator())
    for shape in ((np.int64(3), np.int32(2)), (torch.tensor(3), np.uint8(2)), [3, 2]):
        assert torch.equal(noise.gumbel(shape, generator=generator()), expected)
    assert noise.gumbel(np.int64(3), generator=generator()).shape == (3,)


def test_bernoulli_keeps_the_order_of_a_transposed_input():
    logits = torch.tensor([[-1e4, 1e4, 1e4], [1e4, -1e4, -1e4]])
    assert torch.equal(noise.bernoulli(logits.T, generator=generator()), (logits.T > 0).float())


def test_generator_state_is_enough():
    source = generator(8)
    noise.gumbel(7, generator=source)
    state = source.get_state()
    first = noise.logistic((3, 5), generator=source)
    source.set_state(state)
    assert torch.equal(noise.logistic((3, 5), generator=source), first)
    assert not torch.equal(noise.logistic((3, 5), generator=source), first)
    global_state = torch.get_rng_state()
    noise.gumbel(100, generator=source)
    assert torch.equal(torch.get_rng_state(), global_state)


def test_none_is_the_default_generator():
    torch_state = torch.get_rng_state()
    try:
        torch.manual_seed(3)
        first = noise.gumbel(10, generator=None)
        torch.manual_seed(3)
        assert torch.equal(noise.gumbel(10, generator=None), first)
    finally:
        torch.set_rng_state(torch_state)


def test_independent_of_threads_and_blocks(monkeypatch):
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = noise.gumbel((7, 30_011), generator=generator(9))
        torch.set_num_threads(2)
        assert torch.equal(noise.gumbel((7, 30_011), generator=generator(9)), one)
    finally:
        torch.set_num_threads(threads)
    monkeypatch.setattr(noise, "BLOCK", 1024)
    assert torch.equal(noise.gumbel((7, 30_011), generator=generator(9)), one)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_stretches_shared_among_threads(monkeypatch, mode):
    """Several threads, a hundred stretches: the same numbers, settings as they were, errors where they belong."""
    logits = torch.linspace(-3, 3, 100_002).view(3, -1)

    def draw():
        concrete = Concrete(0.5, logits=logits.view(-1, 3)).draw(generator=generator(3))
        return noise.bernoulli(logits, generator=generator(1)), noise.gumbel(logits.shape, generator=generator(2)), (
            concrete.value, concrete.hard,
        )  # fmt: skip

    expected = draw()
    monkeypatch.setattr(noise, "BLOCK", 1024)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with mode():
            torch.testing.assert_close(draw(), expected, rtol=1e-6, atol=1e-6)
            with pytest.raises(ValueError, match="nan"):
                noise.bernoulli(logits.where(logits < 2.99, torch.nan), generator=generator(1))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_words_are_splitmix64():
    """The stream against a plain implementation of SplitMix64's mixer (Steele, Lea & Flood 2014)."""
    stream = _bits.WordStream(generator(10), None, 5)
    first, second = stream.next(5)[0].tolist(), stream.next(3)[0].tolist()
    mask = (1 << 64) - 1
    for i, word in enumerate(first + second):
        z = (i * 0x9E3779B97F4A7C15 ^ int(stream._key)) & mask
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        mixed = z ^ (z >> 31)
        flip = (1 << 31) - 1 << 33 if z >> 63 else 0  # the sign bit, copied over the 31 highest
        assert word == mixed ^ flip


def test_bits_are_balanced_and_uncorrelated():
    words = _bits.WordStream(generator(11), None, 200_000).next(200_000)[0]
    bits = (words.unsqueeze(-1) >> torch.arange(63) & 1).double() - 0.5
    z = bits.sum(0) / (0.5 * math.sqrt(len(words)))
    assert z.abs().max() < stats.norm.isf(ALPHA / 63)
    correlation = (bits[:-1].T @ bits[1:]) / (0.25 * math.sqrt(len(words) - 1))
    within = (bits.T @ bits).fill_diagonal_(0) / (0.25 * math.sqrt(len(words)))
    assert max(correlation.abs().max(), within.abs().max()) < stats.norm.isf(ALPHA / 63**2)


def test_nearby_seeds_give_unrelated_noise():
    draws = torch.stack([noise.gumbel(20_000, generator=generator(seed)) for seed in range(8)])
    correlation = torch.corrcoef(draws).fill_diagonal_(0)
    assert correlation.abs().max() < stats.norm.isf(ALPHA / 28) / math.sqrt(20_000)


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
    name=st.sampled_from(sorted(DISTRIBUTIONS)),
    seed=st.integers(0, 2**32),
)
def test_any_shape_and_type(shape, dtype, name, seed):
    draws = getattr(noise, name)(tuple(shape), generator=generator(seed), dtype=dtype)
    assert draws.shape == torch.Size(shape)
    assert draws.dtype == dtype
    assert draws.isfinite().all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (-1,)}, "shape must be non-negative integers, got (-1,)"),
        ({"shape": (2.5,)}, "shape must be non-negative integers"),
        ({"shape": True}, "shape must be non-negative integers, got (True,)"),
        ({"shape": 3, "dtype": torch.int64}, "dtype must be a floating-point torch.dtype, got torch.int64"),
        ({"shape": 3, "generator": 0}, "generator must be a torch.Generator or None, got 0"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError) as error:
        noise.gumbel(**{"generator": generator(), **arguments})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
