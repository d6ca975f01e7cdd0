"""The compiled loops: the same words, noise to the rounding, Concrete samples, and what happens without a compiler."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from scipy import stats

from sparsecbm.samplers import BinaryConcrete, Concrete, _bits, native, noise

ALPHA = 1e-3 / 100


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def loops():
    try:
        return native.compile_library()
    except OSError as error:
        pytest.skip(str(error))


@pytest.fixture
def compiled(loops, monkeypatch):
    """Call it with True or False to switch the compiled loops on or off."""
    return lambda on: monkeypatch.setattr(native, "library", lambda: loops if on else None)


def both(compiled, draw):
    """Run `draw(generator)` in plain PyTorch and compiled; both must leave the generator in one state."""
    results, states = [], []
    for on in (False, True):
        compiled(on)
        source = generator(3)
        results.append(draw(source))
        states.append(source.get_state())
    assert torch.equal(*states)
    return results


def test_words_are_the_same(compiled):
    def draw(source):
        stream = _bits.WordStream(source, None, 1000)
        return torch.cat([stream.next(count)[0].clone() for count in (1000, 1, 999)])

    assert torch.equal(*both(compiled, draw))


@pytest.mark.parametrize("name", ["exponential", "uniform", "normal"])
def test_what_is_made_of_words_alone_is_the_same(compiled, name):
    assert torch.equal(*both(compiled, lambda source: getattr(noise, name)((3, 1001), generator=source)))


@pytest.mark.parametrize("name", ["logistic", "gumbel"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_noise_agrees(compiled, monkeypatch, name, dtype):
    monkeypatch.setattr(noise, "BLOCK", 4096)
    plain, fast = both(compiled, lambda source: getattr(noise, name)((7, 3001), generator=source, dtype=dtype))
    assert fast.dtype == dtype
    if dtype == torch.float64:
        assert torch.equal(plain, fast)
    else:
        torch.testing.assert_close(fast, plain, rtol=2 * torch.finfo(dtype).eps, atol=2e-7)


def test_noise_is_the_formula_at_both_ends(compiled, loops, monkeypatch):
    """Against float64 on the same integers, the extreme ones among them: a few units in the last place."""
    k = torch.tensor([0, 1, 2, 2**30, 2**31 - 3, 2**31 - 2, 2**31 - 1, 12345], dtype=torch.int64)
    # The mixer is a bijection, so a key exists for every word; invert it: the loops then meet these integers.
    mask = (1 << 64) - 1
    inverse = [pow(factor, -1, 1 << 64) for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)]

    def unshift(z: int, shift: int) -> int:
        out = z
        for _ in range(64 // shift):
            out = z ^ (out >> shift)
        return out

    odds_against = ((2**31 - 1 - k).double() + 0.5) / (k.double() + 0.5)
    exact = {"logistic": odds_against.log(), "gumbel": -odds_against.log1p().log()}
    for name, expected in exact.items():
        seen = torch.empty(len(k))
        for i, low in enumerate(k.tolist()):
            z = unshift(low, 31) * inverse[1] & mask
            z = unshift(z, 27) * inverse[0] & mask
            native_key = unshift(z, 30)  # position 0: word = mix(key)
            out = torch.empty(1)
            compiled(True)
            native.write(name, native_key, 0, out)
            seen[i] = out
        torch.testing.assert_close(seen.double(), expected, rtol=3e-7, atol=3e-7)
    assert exact["gumbel"].max() > 22  # the ends were there
    assert exact["logistic"].abs().max() > 22


@pytest.mark.parametrize(
    ("shape", "sample_shape"),
    [
        ((7, 1601), (3,)),
        ((3, 5), ()),
        ((21, 7), (200,)),
        ((1, 9001), (2,)),
        ((4, 1), ()),
        ((0, 3), ()),
        ((2, 3, 4), (5,)),
    ],
)
def test_concrete_agrees(compiled, monkeypatch, shape, sample_shape):
    """Odd rows, stretches that begin inside a word, repeated batches, single classes, no rows."""
    monkeypatch.setattr(noise, "BLOCK", 4096)
    logits = torch.randn(shape, generator=generator())
    temperature = torch.rand(shape[:-1], generator=generator(1)) + 0.3
    q = Concrete(temperature, logits=logits)
    plain, fast = both(compiled, lambda source: q.draw(sample_shape, generator=source))
    assert torch.equal(plain.hard, fast.hard)
    torch.testing.assert_close(fast.value, plain.value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(fast.value.logsumexp(-1), torch.zeros(fast.value.shape[:-1]), rtol=0, atol=1e-5)


def test_gradients_agree(compiled):
    logits = torch.randn(30, 40, generator=generator(), requires_grad=True)
    temperature = torch.tensor(0.7, requires_grad=True)

    def draw(source):
        y = Concrete(temperature, logits=logits).rsample((2,), generator=source)
        return torch.autograd.grad((y.exp() * torch.arange(40.0)).sum(), [logits, temperature])

    plain, fast = both(compiled, draw)
    for a, b in zip(plain, fast, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-4)


def test_the_number_of_threads_does_not_matter(compiled):
    compiled(True)
    q = Concrete(0.5, logits=torch.randn(300, 701, generator=generator()))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = q.rsample(generator=generator(4))
        torch.set_num_threads(3)
        assert torch.equal(q.rsample(generator=generator(4)), one)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 10.0])
def test_hard_marginals_and_law(compiled, temperature):
    compiled(True)
    logits = torch.tensor([-3.0, 0.0, 1.0, 1.5, -0.5])
    hard = Concrete(temperature, logits=logits).draw((200_000,), generator=generator(2)).hard
    expected = 200_000 * logits.double().softmax(-1)
    assert stats.chisquare(hard.double().sum(0).numpy(), expected.numpy()).pvalue > ALPHA
    y = BinaryConcrete(temperature, logits=torch.tensor(1.3)).sample((100_000,), generator=generator(7))
    law = stats.logistic(loc=1.3 / temperature, scale=1 / temperature)
    assert stats.kstest(y.double().numpy(), law.cdf).pvalue > ALPHA


def test_extremes_stay_finite(compiled):
    compiled(True)
    logits = torch.tensor([1e4, -1e4, 0.0, 3.0]).repeat(2000, 1)
    for temperature in (1e-3, 1.0, 1e3):
        assert Concrete(temperature, logits=logits).rsample(generator=generator()).isfinite().all()


def test_bad_logits_end_as_they_do_in_pytorch(compiled):
    """With validation off: a NaN or +inf spoils its row, -inf excludes its entry."""
    logits = torch.zeros(4, 3)
    logits[0, 1], logits[1, 1], logits[2, 1] = math.nan, math.inf, -math.inf
    plain, fast = both(compiled, lambda s: Concrete(1.0, logits=logits, validate_args=False).rsample(generator=s))
    assert torch.equal(plain.isnan(), fast.isnan())
    assert torch.equal(plain.isinf(), fast.isinf())
    assert fast[2, 1] == -math.inf


@pytest.fixture
def fresh_switch():
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def test_off_unless_asked(fresh_switch, monkeypatch):
    for value in (None, "", "0"):
        monkeypatch.delenv(native.SWITCH, raising=False)
        if value is not None:
            monkeypatch.setenv(native.SWITCH, value)
        native.library.cache_clear()
        assert native.library() is None


@pytest.mark.parametrize(
    ("compiler", "message"),
    [("no-such-cc", r"no C compiler found \(looked for no-such-cc\)"), ("false", "false: exit status 1")],
)
def test_without_a_compiler(fresh_switch, monkeypatch, compiler, message):
    """One warning, and the draws of plain PyTorch."""
    reference = noise.gumbel(5, generator=generator())
    native.library.cache_clear()
    monkeypatch.setenv(native.SWITCH, "1")
    monkeypatch.setenv("CC", compiler)
    with pytest.warns(RuntimeWarning, match=message):
        draws = noise.gumbel(5, generator=generator())
    assert torch.equal(draws, reference)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        noise.gumbel(5, generator=generator())


def test_the_switch_compiles(loops, fresh_switch, monkeypatch):
    monkeypatch.setenv(native.SWITCH, "1")
    assert native.library() is not None
    assert noise.gumbel(5, generator=generator()).isfinite().all()
