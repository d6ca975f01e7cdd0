"""Concrete distributions and relaxed top-k: closed forms, quadrature, torch.distributions, extremes, gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.distributions as D
from scipy import integrate, stats
from torch.distributions.relaxed_bernoulli import LogitRelaxedBernoulli
from torch.distributions.relaxed_categorical import ExpRelaxedCategorical

from sparsecbm.samplers import noise
from sparsecbm.samplers.concrete import BinaryConcrete, Concrete, straight_through
from sparsecbm.samplers.relaxed import RelaxedBernoulli, RelaxedOneHotCategorical
from sparsecbm.samplers.top_k import hard_top_k, relaxed_top_k

ALPHA = 1e-3 / 100
TEMPERATURES = [1e-3, 0.1, 0.5, 1.0, 10.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- hard samples -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_binary_hard_marginals(temperature):
    logits = torch.tensor([-4.0, -1.0, 0.0, 0.7, 3.0])
    draw = BinaryConcrete(temperature, logits=logits).draw((200_000,), generator=generator(1))
    for seen, p in zip(draw.hard.sum(0).tolist(), logits.double().sigmoid().tolist(), strict=True):
        expected = [200_000 * p, 200_000 * (1 - p)]
        assert stats.chisquare([seen, 200_000 - seen], expected).pvalue > ALPHA


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_categorical_hard_marginals(temperature):
    logits = torch.tensor([-3.0, 0.0, 1.0, 1.5, -0.5])
    draw = Concrete(temperature, logits=logits).draw((200_000,), generator=generator(2))
    assert torch.equal(draw.hard.sum(-1), torch.ones(200_000))
    expected = 200_000 * logits.double().softmax(-1)
    assert stats.chisquare(draw.hard.double().sum(0).numpy(), expected.numpy()).pvalue > ALPHA


def test_hard_and_soft_come_from_one_noise():
    binary = BinaryConcrete(0.3, logits=torch.randn(500, generator=generator())).draw(generator=generator(3))
    assert torch.equal(binary.hard, (binary.soft > 0.5).float())
    assert torch.equal(binary.soft, binary.value.sigmoid())
    concrete = Concrete(0.3, logits=torch.randn(50, 6, generator=generator())).draw(generator=generator(3))
    assert torch.equal(concrete.hard.argmax(-1), concrete.soft.argmax(-1))


@pytest.mark.parametrize("temperature", [1e-38, 1e6, 1e38])
def test_hard_samples_are_decided_before_the_scaling(temperature):
    """At huge temperatures relaxed states are equal to the last bit; an argmax of them took the first entry."""
    logits = torch.tensor([-1.0, 0.0, 0.5])
    draw = Concrete(temperature, logits=logits).draw((50_000,), generator=generator(20))
    expected = 50_000 * logits.double().softmax(-1)
    assert stats.chisquare(draw.hard.double().sum(0).numpy(), expected.numpy()).pvalue > ALPHA
    ones = BinaryConcrete(temperature, logits=logits[2:]).draw((50_000,), generator=generator(20)).hard.sum()
    assert stats.binomtest(int(ones), 50_000, logits[2].double().sigmoid().item()).pvalue > ALPHA


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_scores_beyond_the_largest_number(dtype):
    """What overflows is a probability of 0 or 1, in samples, densities and gradients; never NaN."""
    tiny, largest = 1.1 / torch.finfo(torch.promote_types(dtype, torch.float32)).max, torch.finfo(dtype).max
    logits = torch.tensor([[3.0, 0.0, -largest], [0.0, 1.0, 2.0]], dtype=dtype)
    for temperature in (tiny, 0.5):
        for build in (BinaryConcrete, Concrete):
            parameters = logits.clone().requires_grad_()
            q = build(temperature, logits=parameters)
            draw = q.draw((200,), generator=generator())
            assert all(held.isfinite().all() for held in (draw.value, draw.soft, q.rsample(generator=generator())))
            assert not q.log_prob(q.sample((200,), generator=generator(1))).isnan().any()
            assert torch.equal(draw.hard, build.hard(draw.value))
            (gradient,) = torch.autograd.grad((draw.soft * draw.hard).sum(), parameters)
            assert not gradient.isnan().any()


def test_same_noise_at_every_temperature_gives_the_same_hard_sample():
    logits = torch.randn(40, 5, generator=generator())
    draws = [Concrete(t, logits=logits).draw(generator=generator(4)).hard for t in TEMPERATURES]
    assert all(torch.equal(draws[0], other) for other in draws[1:])


# ---- samples are what the formula says ----------------------------------------------------------------------------


def test_rsample_is_the_formula_on_the_same_noise():
    logits = torch.randn(300, 700, generator=generator())
    for temperature in (0.5, torch.rand(300, 1, generator=generator()) + 0.1):
        y = BinaryConcrete(temperature, logits=logits).rsample(generator=generator(5))
        g = noise.logistic((300, 700), generator=generator(5))
        assert torch.allclose(y, (logits + g) / temperature, rtol=1e-6)
    for temperature in (0.5, torch.rand(300, generator=generator()) + 0.1):
        y = Concrete(temperature, logits=logits).rsample(generator=generator(5))
        g = noise.gumbel((300, 700), generator=generator(5))
        scale = temperature if isinstance(temperature, float) else temperature.unsqueeze(-1)
        assert torch.allclose(y, ((logits + g) / scale).log_softmax(-1), rtol=1e-5, atol=1e-5)


def test_sample_shape_repeats_the_batch_across_blocks():
    """Blocks that run over the end of the batch still meet the right logits."""
    logits = 50.0 * torch.eye(7).repeat_interleave(3, 0)  # 21 rows, each nearly certain
    hard = Concrete(1.0, logits=logits).draw((20_000,), generator=generator(6)).hard
    assert torch.equal(hard.argmax(-1), logits.argmax(-1).expand(20_000, 21))


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_logit_samples_follow_the_logistic_law(temperature):
    q = BinaryConcrete(temperature, logits=torch.tensor(1.3))
    y = q.sample((100_000,), generator=generator(7)).double()
    assert stats.kstest(y.numpy(), stats.logistic(loc=1.3 / temperature, scale=1 / temperature).cdf).pvalue > ALPHA
    assert torch.allclose(q.cdf(q.icdf(torch.tensor([0.1, 0.5, 0.9]))), torch.tensor([0.1, 0.5, 0.9]))
    assert y.mean().item() == pytest.approx(q.mean.item(), abs=5 * math.sqrt(q.variance.item() / 1e5))
    assert y.var().item() == pytest.approx(q.variance.item(), rel=0.03)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_probability_of_a_positive_sample(temperature):
    logits = torch.linspace(-5, 5, 11, dtype=torch.float64)
    q = BinaryConcrete(temperature, logits=logits)
    assert torch.allclose(1 - q.cdf(torch.zeros(())), logits.sigmoid(), atol=1e-12)


# ---- densities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0, 3.0])
def test_binary_density_integrates_to_one(temperature):
    q = BinaryConcrete(temperature, logits=torch.tensor(0.8, dtype=torch.float64))
    density = lambda y: q.log_prob(torch.tensor(y, dtype=torch.float64)).exp().item()  # noqa: E731
    reach = 45 / temperature
    total = integrate.quad(density, -reach, reach, points=[0.8 / temperature], limit=400)[0]
    assert total == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_categorical_density_integrates_to_one(temperature):
    """Over the two log-ratios of three classes, by the trapezoidal rule (geometric convergence)."""
    q = Concrete(temperature, logits=torch.tensor([0.3, -0.7, 1.1], dtype=torch.float64))
    line = torch.linspace(-40 / temperature, 40 / temperature, 1201, dtype=torch.float64)
    ratios = torch.cartesian_prod(line, line)
    y = torch.cat([ratios, torch.zeros(len(ratios), 1, dtype=torch.float64)], -1).log_softmax(-1)
    total = q.log_prob(y).exp().sum() * (line[1] - line[0]) ** 2
    assert total.item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.2, 0.5, 1.0, 2.0])
def test_log_prob_equals_torch_where_torch_is_right(temperature):
    logits = torch.randn(50, 4, generator=generator(), dtype=torch.float64)
    y = BinaryConcrete(temperature, logits=logits).sample(generator=generator(8))
    theirs = LogitRelaxedBernoulli(torch.tensor(temperature, dtype=torch.float64), logits=logits).log_prob(y)
    assert torch.allclose(BinaryConcrete(temperature, logits=logits).log_prob(y), theirs, atol=1e-6, rtol=0)
    y = Concrete(temperature, logits=logits).sample(generator=generator(8))
    tensor = torch.tensor(temperature, dtype=torch.float64)
    theirs = ExpRelaxedCategorical(tensor, logits=logits).log_prob(y)
    assert torch.allclose(Concrete(temperature, logits=logits).log_prob(y), theirs, atol=1e-6, rtol=0)
    simplex = D.RelaxedOneHotCategorical(tensor, logits=logits).log_prob(y.exp())
    assert torch.allclose(Concrete(temperature, logits=logits).log_prob(y) - y.sum(-1), simplex, atol=1e-5)


def test_two_classes_are_the_binary_distribution():
    logits = torch.randn(20, 2, generator=generator(), dtype=torch.float64)
    y = Concrete(0.7, logits=logits).sample(generator=generator(9))
    binary = BinaryConcrete(0.7, logits=logits[:, 0] - logits[:, 1])
    assert torch.allclose(Concrete(0.7, logits=logits).log_prob(y), binary.log_prob(y[:, 0] - y[:, 1]))
    assert torch.allclose(Concrete(0.7, logits=logits).entropy(), binary.entropy())


def test_where_torch_saturates():
    """Logits >= 17 (REFERENCES section 7): torch's sample has no gradient; log_prob(-200) is -inf there."""
    logits = torch.full((1000,), 40.0, requires_grad=True)
    y = BinaryConcrete(0.5, logits=logits).rsample(generator=generator())
    assert y.unique().numel() > 900
    (gradient,) = torch.autograd.grad(y.sum(), logits)
    assert torch.equal(gradient, torch.full((1000,), 2.0))
    value = torch.tensor([-200.0, 200.0, -1e7], requires_grad=True)
    logp = BinaryConcrete(0.5, logits=torch.zeros(3)).log_prob(value)
    (gradient,) = torch.autograd.grad(logp.sum(), value)
    assert logp.isfinite().all()
    assert gradient.isfinite().all()
    assert logp[0].item() == pytest.approx(math.log(0.5) - 100)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 10.0])
def test_extremes_are_finite(dtype, temperature):
    logits = torch.cat([torch.linspace(-1e4, 1e4, 4001), torch.randn(3999, generator=generator())]).to(dtype)
    for build, size in ((BinaryConcrete, (8000,)), (Concrete, (1600, 5))):
        parameters = logits.view(size).clone().requires_grad_()
        q = build(temperature, logits=parameters)
        draw = q.draw((20,), generator=generator(10))
        logp = q.log_prob(q.rsample((20,), generator=generator(10)))
        gradients = torch.autograd.grad(draw.value.sum() + draw.straight_through().sum() + logp.sum(), parameters)
        assert q.rsample(generator=generator()).dtype == dtype
        for values in (draw.value, draw.soft, logp, *gradients):
            assert values.isfinite().all()


# ---- gradients ----------------------------------------------------------------------------------------------------


def test_gradcheck_of_the_samples():
    logits = torch.randn(3, 4, dtype=torch.float64, generator=generator()).requires_grad_()
    binary_temperature = (torch.rand(3, 1, dtype=torch.float64, generator=generator()) + 0.5).requires_grad_()
    temperature = (torch.rand(3, dtype=torch.float64, generator=generator()) + 0.5).requires_grad_()

    def binary(logits, temperature):
        return BinaryConcrete(temperature, logits=logits).rsample((2,), generator=generator(11))

    def categorical(logits, temperature):
        return Concrete(temperature, logits=logits).rsample((2,), generator=generator(11))

    def interval(logits, temperature):
        return RelaxedBernoulli(temperature, logits=logits).rsample((2,), generator=generator(11))

    def simplex(logits, temperature):
        return RelaxedOneHotCategorical(temperature, logits=logits).rsample((2,), generator=generator(11))

    for function, t in (
        (binary, binary_temperature),
        (interval, binary_temperature),
        (categorical, temperature),
        (simplex, temperature),
    ):
        assert torch.autograd.gradcheck(function, (logits, t))
        assert torch.autograd.gradgradcheck(function, (logits, t))


def test_reparameterised_gradient_against_quadrature():
    """d/dl E[f(sigmoid(Y))] by samples, against finite differences of a quadrature over the logistic law."""

    def f(state):
        return (state - 0.3) ** 2 + state**3

    def expectation(logit, temperature):
        integrand = lambda x: f(1 / (1 + math.exp(-(logit + x) / temperature))) * stats.logistic.pdf(x)  # noqa: E731
        return integrate.quad(integrand, -35, 35, points=[-logit], limit=500)[0]

    for temperature, logit in itertools.product((0.3, 1.0), (-1.0, 0.5)):
        step = 1e-3
        exact = (expectation(logit + step, temperature) - expectation(logit - step, temperature)) / (2 * step)
        parameter = torch.full((200_000,), logit, dtype=torch.float64, requires_grad=True)
        state = BinaryConcrete(temperature, logits=parameter).rsample(generator=generator(12)).sigmoid()
        (gradient,) = torch.autograd.grad(f(state).sum(), parameter)
        error = gradient.std().item() / math.sqrt(len(gradient))
        assert abs(gradient.mean().item() - exact) < stats.norm.isf(ALPHA / 2) * error + 1e-5


def test_straight_through():
    soft = torch.rand(1000, generator=generator()).requires_grad_()
    hard = (soft > 0.5).float()
    out = straight_through(hard, soft)
    assert torch.equal(out, hard)
    (gradient,) = torch.autograd.grad((out * torch.arange(1000)).sum(), soft)
    assert torch.equal(gradient, torch.arange(1000).float())
    with pytest.raises(ValueError, match="one shape"):
        straight_through(hard[:3], soft)


# ---- closed forms -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_entropies(temperature):
    logits = torch.randn(4, dtype=torch.float64, generator=generator())
    for q in (BinaryConcrete(temperature, logits=logits[:1]), Concrete(temperature, logits=logits)):
        logp = q.log_prob(q.sample((100_000,), generator=generator(13))).view(-1)
        error = logp.std().item() / math.sqrt(len(logp))
        assert abs(q.entropy().item() + logp.mean().item()) < stats.norm.isf(ALPHA / 2) * error


def test_kl_divergences():
    a = torch.randn(6, 4, dtype=torch.float64, generator=generator())
    b = a + torch.randn(6, 4, dtype=torch.float64, generator=generator(1)) * torch.tensor(
        [[1e-9], [1e-3], [0.1], [1], [3], [8]]
    )
    for build in (BinaryConcrete, Concrete):
        p, q = build(0.6, logits=a), build(0.6, logits=b)
        exact = D.kl_divergence(p, q)
        assert (exact >= -1e-12).all()
        y = p.sample((50_000,), generator=generator(14))
        terms = p.log_prob(y) - q.log_prob(y)
        error = terms.std(0) / math.sqrt(50_000)
        assert ((terms.mean(0) - exact).abs() <= stats.norm.isf(ALPHA / 60) * error + 1e-9).all()
        assert torch.allclose(D.kl_divergence(p, p), torch.zeros_like(exact), atol=1e-10)
        near = D.kl_divergence(build(0.6 + 1e-9, logits=a), q)  # the quadrature beside the closed form
        assert torch.allclose(near, exact, atol=1e-6)
    two_a, two_b = a[:, :2], b[:, :2]
    categorical = D.kl_divergence(Concrete(0.6, logits=two_a), Concrete(0.6, logits=two_b))
    difference = [BinaryConcrete(0.6, logits=x[:, 0] - x[:, 1]) for x in (two_a, two_b)]
    assert torch.allclose(categorical, D.kl_divergence(*difference), atol=1e-9)


@pytest.mark.parametrize(("temperature_p", "temperature_q"), [(0.5, 2 / 3), (2.0, 0.1), (0.1, 2.0)])
def test_kl_between_unequal_temperatures(temperature_p: float, temperature_q: float) -> None:
    drawn = generator(16)
    a, b = (noise.normal((3, 4), generator=drawn, dtype=torch.float64) for _ in range(2))
    for build in (BinaryConcrete, Concrete):
        p, q = build(temperature_p, logits=a), build(temperature_q, logits=b)
        y = p.sample((20_000,), generator=drawn)
        terms = p.log_prob(y) - q.log_prob(y)
        error = terms.std(0) / math.sqrt(20_000)
        assert ((terms.mean(0) - D.kl_divergence(p, q)).abs() <= stats.norm.isf(ALPHA / 60) * error).all()
    two = [Concrete(t, logits=x[:, :2]) for t, x in ((temperature_p, a), (temperature_q, b))]
    one = [BinaryConcrete(t, logits=x[:, 0] - x[:, 1]) for t, x in ((temperature_p, a), (temperature_q, b))]
    assert torch.allclose(D.kl_divergence(*two), D.kl_divergence(*one), atol=1e-10)
    logits = a.clone().requires_grad_()
    if temperature_q == 2 / 3:
        q = Concrete(temperature_q, logits=b[:1])
        assert torch.autograd.gradcheck(lambda x: D.kl_divergence(Concrete(temperature_p, logits=x), q), logits[:1])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(RelaxedBernoulli, D.RelaxedBernoulli), (RelaxedOneHotCategorical, D.RelaxedOneHotCategorical)],
)
def test_states_on_the_interval_and_the_simplex(ours: type, theirs: type) -> None:
    logits = noise.normal((2, 3), generator=generator(17), dtype=torch.float64)
    q, reference = ours(0.7, logits=logits), theirs(torch.tensor(0.7, dtype=torch.float64), logits=logits)
    assert (q.batch_shape, q.event_shape) == (reference.batch_shape, reference.event_shape)
    state = q.rsample((5,), generator=generator(18))
    assert torch.equal(state, q.sample((5,), generator=generator(18)))
    assert q.support.check(state).all()
    assert torch.allclose(q.log_prob(state), reference.log_prob(state), atol=1e-10)
    assert torch.allclose(q.draw((5,), generator=generator(18)).soft, state)
    wide = q.expand((4, *q.batch_shape))
    assert type(wide) is ours
    assert wide.sample(generator=generator(19)).shape == (4, 2, 3)
    other = ours(0.4, logits=-logits)
    assert torch.allclose(D.kl_divergence(q, other), D.kl_divergence(q.base_dist, other.base_dist))
    certain = ours(0.1, logits=torch.tensor([60.0, -60.0]))
    assert certain.log_prob(certain.sample((100,), generator=generator(20))).isfinite().all()
    moved = torch.tensor([0.3, -0.2], requires_grad=True)
    ours(0.5, logits=moved).rsample(generator=generator(21)).square().sum().backward()
    assert moved.grad.abs().sum() > 0


def test_categorical_draws_by_the_inverse_distribution_function() -> None:
    logits = torch.tensor([[0.0, 1.0, -1.0, 2.0], [3.0, -800.0, 0.0, 0.0]])
    drawn = noise.categorical(logits.expand(40_000, 2, 4), generator=generator(22))
    for row in range(2):
        counts = torch.bincount(drawn[:, row], minlength=4)
        expected = logits[row].double().softmax(-1) * 40_000
        seen = expected > 1e-6
        assert counts[~seen].sum() == 0
        assert stats.chisquare(counts[seen], expected[seen] * (counts.sum() / expected[seen].sum())).pvalue > ALPHA
    assert noise.categorical(torch.zeros(3), generator=generator()).shape == ()
    with pytest.raises(ValueError, match="at least one class"):
        noise.categorical(torch.zeros(2, 0), generator=None)


def test_kl_is_smooth_through_equal_logits():
    d = torch.linspace(-0.2, 0.2, 401, dtype=torch.float64, requires_grad=True)
    kl = D.kl_divergence(
        BinaryConcrete(1.0, logits=d), BinaryConcrete(1.0, logits=torch.zeros(401, dtype=torch.float64))
    )
    assert torch.allclose(kl, d**2 / 6 - d**4 / 360 + d**6 / 15120 - d**8 / 604800, atol=1e-12)
    assert torch.autograd.grad(kl.sum(), d)[0].isfinite().all()


# ---- as torch.distributions ---------------------------------------------------------------------------------------


def test_shapes_and_expand():
    q = BinaryConcrete(torch.tensor([[0.5], [1.0]]), logits=torch.zeros(3))
    assert q.batch_shape == (2, 3)
    assert q.event_shape == ()
    assert q.expand((4, 2, 3)).rsample((5,), generator=generator()).shape == (5, 4, 2, 3)
    c = Concrete(torch.tensor([0.5, 1.0]), logits=torch.zeros(3))
    assert (c.batch_shape, c.event_shape) == ((2,), (3,))
    expanded = c.expand((4, 2))
    assert isinstance(expanded, Concrete)
    assert expanded.rsample((5,), generator=generator()).shape == (5, 4, 2, 3)
    assert expanded.log_prob(torch.zeros(4, 2, 3)).shape == (4, 2)
    assert D.Independent(q, 1).log_prob(torch.zeros(2, 3)).shape == (2,)
    assert torch.allclose(c.rsample((9,), generator=generator()).logsumexp(-1), torch.zeros(9, 2), atol=1e-6)
    assert c.discrete.probs.shape == (2, 3)
    assert q.discrete.probs.shape == (2, 3)


def test_transforms_to_the_unit_interval():
    """With torch's SigmoidTransform on top, densities are those of RelaxedBernoulli."""
    q = BinaryConcrete(0.5, logits=torch.tensor([0.4, -1.0]))
    state = torch.tensor([0.2, 0.7])
    ours = D.TransformedDistribution(q, D.SigmoidTransform()).log_prob(state)
    assert torch.allclose(ours, D.RelaxedBernoulli(torch.tensor(0.5), logits=q.logits).log_prob(state), atol=1e-5)


def test_probs_and_logits_are_two_names():
    p = torch.tensor([0.1, 0.6, 0.3])
    assert torch.allclose(BinaryConcrete(1.0, probs=p).probs, p)
    assert torch.allclose(Concrete(1.0, probs=p * 7).probs, p)


BAD = [
    (lambda: BinaryConcrete(0.0, logits=torch.zeros(2)), "temperature must be finite and above 0, got 0.0"),
    (lambda: Concrete(-1.0, logits=torch.zeros(2)), "temperature must be finite and above 0, got -1.0"),
    (lambda: BinaryConcrete(math.nan, logits=torch.zeros(2)), "temperature must be finite and above 0, got nan"),
    (lambda: BinaryConcrete(1.0, logits=torch.tensor([0.0, math.nan])), "logits must be finite, got nan"),
    (lambda: Concrete(1.0, logits=torch.tensor([0.0, -math.inf])), "logits must be finite, got -inf"),
    (lambda: BinaryConcrete(1.0, probs=torch.tensor([0.0, 0.5])), "probs must lie strictly between 0 and 1, got 0.0"),
    (lambda: Concrete(1.0, probs=torch.tensor([0.0, 0.5])), "probs must be finite and above 0, got 0.0"),
    (lambda: BinaryConcrete(1.0), "exactly one of probs and logits, got neither"),
    (lambda: BinaryConcrete(1.0, torch.ones(1), torch.ones(1)), "exactly one of probs and logits, got both"),
    (lambda: Concrete(1.0, logits=torch.tensor(0.0)), "at least one class"),
    (lambda: BinaryConcrete(1.0, logits=torch.zeros(2, dtype=torch.int64)), "logits must be floating-point"),
    (lambda: BinaryConcrete(1e-40, logits=torch.zeros(2)), "temperature must be at least 2.9e-39"),
    (lambda: Concrete(torch.tensor([0.5, 1e-40]), logits=torch.zeros(2)), "temperature must be at least 2.9e-39"),
    (lambda: Concrete("warm", logits=torch.zeros(2)), "temperature must be a number, got 'warm'"),
    (lambda: Concrete(1.0, logits=torch.zeros(2)).rsample(2.5), "shape must be non-negative integers, got (2.5,)"),
    (lambda: Concrete(1.0, logits=torch.zeros(2)).rsample(generator=3), "generator must be a torch.Generator or None"),
    (lambda: relaxed_top_k(torch.zeros(3), True, 1.0), "k must be an integer from 1 to the 3 entries"),
    (lambda: relaxed_top_k(torch.zeros(3), 1, 1e-40), "temperature must be at least 2.9e-39"),
    (lambda: relaxed_top_k(torch.zeros(3), 1, torch.ones((), requires_grad=True)), "no gradient reaches it here"),
    (lambda: relaxed_top_k([0.0, 1.0], 1, 1.0), "logits must be a torch.Tensor, got list"),
    (lambda: relaxed_top_k(torch.zeros(3), 4, 1.0), "k must be an integer from 1 to the 3 entries of a row, got 4"),
    (lambda: relaxed_top_k(torch.zeros(3), 0, 1.0), "k must be an integer from 1 to the 3 entries"),
    (lambda: relaxed_top_k(torch.zeros(3), 1, 0.0), "temperature must be finite and above 0, got 0.0"),
    (lambda: relaxed_top_k(torch.zeros(3), 1, 1.0, method="x"), "unknown relaxation 'x'; known: capped, successive"),
    (lambda: hard_top_k(torch.tensor([0.0, math.nan]), 1), "logits must be finite, got nan"),
]


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


# ---- top-k --------------------------------------------------------------------------------------------------------


def test_hard_top_k_draws_without_replacement():
    """Unordered pairs of 4 against the Plackett-Luce probabilities."""
    logits = torch.tensor([0.0, 1.0, -0.5, 0.7])
    p = logits.double().softmax(-1).tolist()
    count = 100_000
    draws = hard_top_k(logits.expand(count, 4), 2, generator=generator(15))
    assert torch.equal(draws.sum(-1), torch.full((count,), 2.0))
    numbers = (draws @ torch.tensor([1.0, 2.0, 4.0, 8.0])).long()
    seen, expected = [], []
    for i, j in itertools.combinations(range(4), 2):
        seen.append(int((numbers == 2**i + 2**j).sum()))
        expected.append(count * (p[i] * p[j] / (1 - p[i]) + p[j] * p[i] / (1 - p[j])))
    assert sum(seen) == count
    assert stats.chisquare(seen, expected).pvalue > ALPHA


@pytest.mark.parametrize("method", ["capped", "successive"])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_relaxed_top_k(k, method):
    logits = torch.randn(50, 6, dtype=torch.float64, generator=generator())
    hard = hard_top_k(logits, k, generator=generator(16))
    sums = torch.full((50,), float(k), dtype=torch.float64)
    for temperature in (1e-7, 1e-2, 1.0, 10.0):
        soft = relaxed_top_k(logits, k, temperature, generator(16), method=method)
        assert torch.allclose(soft.sum(-1), sums)
        if method == "capped":
            assert soft.max() <= 1
    assert torch.allclose(relaxed_top_k(logits, k, 1e-7, generator(16), method=method), hard, atol=1e-3)
    if k == 1 and method == "successive":
        g = noise.gumbel((50, 6), generator=generator(16), dtype=torch.float64)
        warm = relaxed_top_k(logits, k, 1.0, generator(16), method=method)
        assert torch.allclose(warm, (logits + g).softmax(-1))


def test_capped_top_k_solves_its_problem():
    """No feasible direction raises <keys, y> + temperature * sum of binary entropies: equal gradients."""
    keys = torch.randn(20, 7, dtype=torch.float64, generator=generator())
    y = relaxed_top_k(keys, 3, 0.8, noise=False)
    gradient = keys + 0.8 * (torch.log1p(-y) - y.log())
    assert torch.allclose(gradient, gradient[:, :1].expand_as(gradient), atol=1e-8)


@pytest.mark.parametrize("method", ["capped", "successive"])
def test_relaxed_top_k_gradients(method):
    logits = torch.randn(4, 5, dtype=torch.float64, generator=generator()).requires_grad_()
    function = lambda x: relaxed_top_k(x, 3, 0.7, generator(17), method=method)  # noqa: E731
    assert torch.autograd.gradcheck(function, (logits,))
    weights = torch.randn(4, 5, dtype=torch.float64, generator=generator(1))
    hard = hard_top_k(logits, 3, 0.7, generator(17), method=method)
    assert torch.equal(hard.detach().sum(-1), torch.full((4,), 3.0, dtype=torch.float64))
    (straight,) = torch.autograd.grad((hard * weights).sum(), logits)
    (relaxed,) = torch.autograd.grad((function(logits) * weights).sum(), logits)
    assert torch.allclose(straight, relaxed)


@pytest.mark.parametrize("method", ["capped", "successive"])
@pytest.mark.parametrize("temperature", [1e-38, 1e-20, 1e-7, 1e-3, 1e38])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_relaxed_top_k_sums_to_k(temperature, dtype, method):
    """Also with ties at the k-th place, and however coarse the type."""
    logits = (10 * torch.randn(50, 15, generator=generator())).round().to(dtype)
    keys = logits.requires_grad_()
    for noise_ in (False, True):
        soft = relaxed_top_k(keys, 7, temperature, generator(), noise=noise_, method=method)
        assert torch.allclose(
            soft.float().sum(-1), torch.full((50,), 7.0), atol=0 if dtype == torch.float32 else 0.1, rtol=1e-6
        )
        assert soft.min() >= 0
        if temperature >= 1e-7:
            (gradient,) = torch.autograd.grad(soft.float().square().sum(), keys)
            assert gradient.isfinite().all()


@pytest.mark.parametrize("method", ["capped", "successive"])
def test_second_derivatives_of_relaxed_top_k(method):
    logits = torch.randn(3, 5, dtype=torch.float64, generator=generator()).requires_grad_()
    function = lambda x: relaxed_top_k(x, 2, 0.7, generator(17), method=method)  # noqa: E731
    assert torch.autograd.gradgradcheck(function, (logits,))


@pytest.mark.parametrize("method", ["capped", "successive"])
@pytest.mark.parametrize("temperature", [1e-3, 0.5, 10.0])
def test_top_k_extremes(temperature, method):
    logits = torch.linspace(-1e4, 1e4, 40).repeat(3, 1).requires_grad_()
    soft = relaxed_top_k(logits, 5, temperature, generator(), method=method)
    (gradient,) = torch.autograd.grad((soft * torch.arange(40)).sum(), logits)
    assert soft.isfinite().all()
    assert gradient.isfinite().all()
    if method == "capped" and temperature < 10:
        assert torch.allclose(soft[:, -5:], torch.ones(3, 5))


def test_top_k_without_noise():
    logits = torch.tensor([0.1, 3.0, 2.0, -1.0])
    assert hard_top_k(logits, 2, noise=False).tolist() == [0, 1, 1, 0]
    assert torch.allclose(relaxed_top_k(logits, 2, 0.01, noise=False), torch.tensor([0.0, 1, 1, 0]), atol=1e-6)
