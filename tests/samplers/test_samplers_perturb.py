"""Perturb-and-MAP: the tricks' predicted errors, exact maxima, bounds, and the sequential sampler."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from rbm_enumeration import chi_square
from scipy import integrate, stats

from sparsecbm.samplers.perturb import (
    TRICKS,
    PairwiseModel,
    SequentialSampler,
    grid_model,
    gumbel_max_sample,
    lower_bound,
    make_trick,
    min_cut_map,
    perturbed_maxima,
    perturbed_values,
    upper_bound,
)

ALPHA = 1e-3 / 100


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def all_states(n: int, k: int = 2) -> torch.Tensor:
    return torch.tensor(list(itertools.product(range(k), repeat=n)))


# ---- full rank ----------------------------------------------------------------------------------------------------


def test_gumbel_max_sampling():
    log_potentials = torch.tensor([0.0, 2.0, -1.0, 1.0])
    counts = torch.bincount(gumbel_max_sample(log_potentials, 200_000, generator=generator(1)), minlength=4)
    expected = 200_000 * log_potentials.double().softmax(0)
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > ALPHA


def test_bfloat16_potentials_are_perturbed_in_float32():
    """In bfloat16 the largest of 300 perturbed values would often be tied, and argmax would take the first."""
    log_potentials = torch.zeros(300, dtype=torch.bfloat16)
    counts = torch.bincount(gumbel_max_sample(log_potentials, 60_000, generator=generator(2)), minlength=300)
    assert stats.chisquare(counts.numpy()).pvalue > ALPHA


def test_perturbed_maxima_are_minus_log_exponential():
    log_potentials = torch.randn(30, generator=generator(), dtype=torch.float64)
    values = perturbed_maxima(log_potentials, 100_000, generator=generator(2))
    t = torch.exp(-values - 0.5772156649015329)
    assert stats.kstest(t.numpy(), stats.expon(scale=math.exp(-log_potentials.logsumexp(0))).cdf).pvalue > ALPHA


@pytest.mark.parametrize("count", [2, 10, 200])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gumbel", {}),
        ("exponential", {}),
        ("weibull", {"alpha": 0.5}),
        ("weibull", {"alpha": 2.0}),
        ("weibull", {"alpha": 0.005}),
        ("frechet", {"alpha": -0.1}),
        ("frechet", {"alpha": -0.45}),
        ("pareto", {}),
        ("tail", {"t": 0.1}),
    ],
)
def test_predicted_errors(name, options, count):
    """Bias and mean squared error over 5,000 repetitions; verify_samplers.py does more."""
    far = stats.norm.isf(ALPHA / 2) / math.sqrt(5000)
    log_potentials = torch.zeros(3, dtype=torch.float64) + math.log(7.0)
    log_z, trick = math.log(21.0), make_trick(name, **options)
    values = perturbed_maxima(log_potentials, 5000 * count, generator=generator(3)).view(5000, count)
    error = trick.log_partition(values) - log_z
    squared = error**2
    assert abs(squared.mean() - trick.mse(count, log_z)) < far * squared.std()
    assert abs(error.mean() - trick.bias(count, log_z)) < far * error.std()
    if count >= 10 and name != "tail":
        assert abs((trick.log_partition(values, debias=True) - log_z).mean()) < far * error.std()


def test_quadrature_equals_the_closed_form():
    """The Weibull trick with alpha 1 is the Exponential trick, whose errors are in closed form."""
    for count in (1, 3, 10, 1000, 10**6):
        ours, exact = make_trick("weibull", alpha=1.0), make_trick("exponential")
        assert ours.mse(count) == pytest.approx(exact.mse(count), rel=1e-5)
        assert ours.bias(count) == pytest.approx(exact.bias(count), rel=1e-5, abs=1e-10)


@pytest.mark.parametrize("z", [0.5, 1.1, 1.9, 5.0])
def test_pareto_errors_of_one_value(z):
    """M = 1 by quadrature over T; finite also where the variance of exp(T) is not."""
    trick, log_z = make_trick("pareto"), math.log(z)

    def moment(power):
        inner = lambda v: (  # noqa: E731
            (math.log1p(1 / math.expm1(math.exp(v))) - log_z) ** power * z * math.exp(v - z * math.exp(v))
        )
        return integrate.quad(inner, -40, 6, limit=400)[0]

    assert trick.bias(1, log_z) == pytest.approx(moment(1), abs=1e-7)
    assert trick.mse(1, log_z) == pytest.approx(moment(2), abs=1e-7)
    estimate = trick.log_partition(torch.linspace(-3, 3, 200, dtype=torch.float64).unsqueeze(1), debias=True)
    assert estimate.isfinite().all()


@pytest.mark.parametrize("count", [2, 3, 10, 20, 50])
@pytest.mark.parametrize("exponent", [0.7, 3.0, 5.0])
def test_tail_debiased_at_small_counts(count, exponent):
    """Expectations summed over the binomial: less bias than without, down to M = 2, though never none."""
    trick, share = make_trick("tail"), math.exp(-exponent)
    values = torch.where(torch.arange(count) < torch.arange(count + 1).unsqueeze(1), -9.0, 9.0).double()
    weights = torch.tensor(stats.binom.pmf(range(count + 1), count, share))
    plain, better = (
        float(weights @ (trick.log_partition(values, debias=debias) - math.log(exponent))) for debias in (False, True)
    )
    assert plain == pytest.approx(trick.bias(count, math.log(exponent)), abs=1e-9)
    assert abs(better) < abs(plain) or abs(better) < 0.03


def test_published_figures():
    """REFERENCES section 5: at M = 100, 0.01645 against 0.01008; Weibull's error is least at alpha = 1."""
    assert make_trick("gumbel").mse(100) == pytest.approx(0.01645, abs=5e-6)
    assert make_trick("exponential").mse(100) == pytest.approx(0.01008, abs=5e-6)
    errors = {alpha: make_trick("weibull", alpha=alpha).mse(10**6) for alpha in (0.5, 0.9, 1.0, 1.1, 2.0)}
    assert min(errors, key=errors.get) == 1.0
    assert make_trick("weibull", alpha=1.0).mse(100) == pytest.approx(make_trick("exponential").mse(100), rel=1e-4)
    assert make_trick("frechet", alpha=-1e-5).mse(100) == pytest.approx(make_trick("gumbel").mse(100), rel=1e-3)


def test_weibull_one_is_exponential():
    values = torch.randn(4, 50, dtype=torch.float64, generator=generator())
    ours = make_trick("weibull", alpha=1.0).log_partition(values)
    assert torch.allclose(ours, make_trick("exponential").log_partition(values))


def test_tail_stays_finite():
    trick = make_trick("tail", t=1.0)
    assert trick.log_partition(torch.tensor([[50.0] * 10, [-50.0] * 10])).isfinite().all()


# ---- exact maxima and partition functions --------------------------------------------------------------------------


def random_model(n: int, k: int, density: float, seed: int) -> PairwiseModel:
    source = generator(seed)
    pairs = [p for p in itertools.combinations(range(n), 2) if torch.rand((), generator=source) < density]
    edges = torch.tensor([p if torch.rand((), generator=source) < 0.5 else p[::-1] for p in pairs]).view(-1, 2)
    unary = torch.randn(n, k, dtype=torch.float64, generator=source)
    return PairwiseModel(unary, edges, torch.randn(len(pairs), k, k, dtype=torch.float64, generator=source))


@pytest.mark.parametrize(("n", "k", "density"), [(1, 3, 0.0), (5, 3, 0.5), (6, 2, 1.0), (4, 4, 0.0)])
def test_elimination_equals_enumeration(n, k, density):
    model = random_model(n, k, density, seed=n)
    phi = model.log_potential(all_states(n, k))
    assert torch.allclose(model.max_value()[0], phi.max())
    assert torch.allclose(model.log_partition()[0], phi.logsumexp(0))
    value, states = model.map()
    assert torch.allclose(model.log_potential(states), value)
    batch = torch.randn(7, n, k, dtype=torch.float64, generator=generator())
    for row, best in zip(batch, model.max_value(batch), strict=True):
        assert torch.allclose(
            PairwiseModel(row, model.edges, model.pairwise).log_potential(all_states(n, k)).max(), best
        )


@pytest.mark.parametrize("seed", range(8))
def test_min_cut_equals_elimination(seed):
    model = grid_model(4, 5, field=1.0, coupling=1.0, attractive=True, generator=generator(seed))
    value, states = min_cut_map(model)
    assert torch.allclose(value, model.max_value()[0])
    assert torch.equal(states, model.map()[1][0])
    unary = torch.randn(20, 2, dtype=torch.float64, generator=generator(seed))
    assert torch.allclose(min_cut_map(model, unary)[0], model.max_value(unary[None])[0])


def test_grid_is_a_spin_model():
    model = grid_model(2, 2, field=1.0, coupling=2.0, attractive=False, generator=generator())
    assert model.edges.tolist() == [[0, 1], [2, 3], [0, 2], [1, 3]]
    h = model.unary[:, 1]
    coupling = model.pairwise[:, 1, 1]
    for states in all_states(4):
        s = 2.0 * states - 1
        expected = (h * s).sum() + sum(
            j * s[a] * s[b] for j, (a, b) in zip(coupling, model.edges.tolist(), strict=True)
        )
        assert torch.allclose(model.log_potential(states), expected)


# ---- bounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attractive", [True, False])
def test_bounds_on_a_grid(attractive):
    model = grid_model(5, 5, field=1.0, coupling=1.0, attractive=attractive, generator=generator(5))
    log_z = model.log_partition().item()
    added = perturbed_values(model, 4000, generator=generator(6))
    averaged = perturbed_values(model, 4000, generator=generator(7), average=True)
    for alpha in (-0.15, -0.1, -0.05, 0.0, 0.05):
        upper = upper_bound(added, 25, alpha)
        assert upper.value + 3 * upper.standard_error >= log_z
        lower = lower_bound(averaged, 25, alpha)
        assert lower.value - 3 * lower.standard_error <= log_z
        assert lower.value < upper.value
    # Slightly negative alpha is tighter (REFERENCES section 5).
    assert upper_bound(added, 25, -0.1).value < upper_bound(added, 25, 0.0).value


def test_bounds_are_exact_for_one_variable():
    model = PairwiseModel(
        torch.tensor([[0.3, -1.0, 2.0]], dtype=torch.float64),
        torch.empty(0, 2, dtype=torch.int64),
        torch.empty(0, 3, 3),
    )
    values = perturbed_values(model, 100_000, generator=generator(8))
    for alpha in (-0.2, 0.0, 1.0):
        for bound in (upper_bound(values, 1, alpha), lower_bound(values, 1, alpha)):
            assert bound.value == pytest.approx(model.log_partition().item(), abs=5 * bound.standard_error)


# ---- sequential sampler -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [0.0, -0.1])
def test_sequential_sampler(alpha):
    model = grid_model(2, 3, field=1.0, coupling=1.0, attractive=False, generator=generator(9))
    sampler = SequentialSampler(model, n_perturbations=2000, alpha=alpha, margin=0.1, generator=generator(10))
    result = sampler.sample(2500)
    assert result.violations == 0
    states = all_states(6)
    probability = model.log_potential(states).softmax(0)
    numbers = (result.states @ torch.tensor([32, 16, 8, 4, 2, 1])).numpy()
    seen = torch.bincount(torch.tensor(numbers), minlength=64).double()
    expected = 2500 * probability
    assert chi_square(seen, expected) > ALPHA
    acceptance = math.exp(model.log_partition().item() - sampler.log_bound)
    assert stats.binomtest(2500, result.attempts, acceptance).pvalue > ALPHA


def test_sequential_sampler_raises_its_margin_where_bounds_break_their_order():
    """Bounds from 30 perturbations without margin: fresh starts with more, and exact samples from the last one."""
    model = grid_model(2, 3, field=1.0, coupling=1.0, attractive=False, generator=generator(9))
    noisy = SequentialSampler(model, n_perturbations=30, margin=0.0, generator=generator(12))
    result = noisy.sample(4000)
    assert result.violations == noisy.violations > 0
    assert noisy.margin > 0
    numbers = result.states @ torch.tensor([32, 16, 8, 4, 2, 1])
    expected = 4000 * model.log_potential(all_states(6)).softmax(0)
    assert chi_square(torch.bincount(numbers, minlength=64).double(), expected) > ALPHA
    acceptance = math.exp(model.log_partition().item() - noisy.log_bound)
    assert stats.binomtest(4000, result.attempts, acceptance).pvalue > ALPHA


def test_sequential_sampler_gives_up():
    model = grid_model(2, 2, field=0.1, coupling=0.1, attractive=False, generator=generator(11))
    with pytest.raises(ValueError, match=r"3 walks gave . of 50 samples"):
        SequentialSampler(model, margin=2.0, generator=generator()).sample(50, max_attempts=3)


# ---- bad input ----------------------------------------------------------------------------------------------------

EDGE = torch.tensor([[0, 1]])
BAD = [
    (lambda: make_trick("gumbell"), "unknown trick 'gumbell'; known: exponential, frechet, gumbel"),
    (lambda: make_trick("weibull", alpha=-1.0), "alpha must be finite and above 0, got -1.0"),
    (lambda: make_trick("frechet", alpha=-0.5), "alpha must lie strictly between -1/2 and 0"),
    (lambda: make_trick("tail", t=0.0), "t must be finite and above 0, got 0.0"),
    (lambda: make_trick("gumbel").log_partition(torch.tensor([math.nan])), "values must be finite"),
    (lambda: make_trick("gumbel").mse(0), "count must be an integer of at least 1, got 0"),
    (lambda: gumbel_max_sample(torch.tensor([-math.inf]), 1, generator=None), "must be finite, got -inf"),
    (lambda: upper_bound(torch.zeros(3), 25, -0.2), "alpha must be above -1/sqrt(n) = -0.2000 for n = 25, got -0.2"),
    (lambda: lower_bound(torch.zeros(3), 4, -4.0), "alpha must be above -n = -4, got -4.0"),
    (lambda: PairwiseModel(torch.zeros(2, 2), EDGE, torch.zeros(1, 2, 3)), "must have shapes (n, K), (E, 2)"),
    (lambda: PairwiseModel(torch.zeros(2, 2), EDGE * 0, torch.zeros(1, 2, 2)), "variables of 0 to 1, got (0, 0)"),
    (lambda: PairwiseModel(torch.zeros(2, 2), EDGE.repeat(2, 1), torch.zeros(2, 2, 2)), "edges must be distinct pairs"),
    (lambda: PairwiseModel(torch.full((2, 2), math.nan), EDGE, torch.zeros(1, 2, 2)), "unary must be finite, got nan"),
    (lambda: random_model(22, 2, 1.0, 0), "renumber the variables, or use min_cut_map"),
    (lambda: SequentialSampler(random_model(2, 2, 0.0, 0), margin=math.inf, generator=None), "margin must be finite"),
    (lambda: min_cut_map(random_model(2, 3, 0.0, 0)), "two states a variable, got 3; use PairwiseModel.map"),
    (
        lambda: min_cut_map(PairwiseModel(torch.zeros(2, 2), EDGE, torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))),
        "needs attractive edges, got a repulsive one between variables 0 and 1",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input(call, message):
    with pytest.raises(ValueError) as error:
        call()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_trick_has_a_name():
    assert set(TRICKS) == {"gumbel", "exponential", "weibull", "frechet", "pareto", "tail"}
