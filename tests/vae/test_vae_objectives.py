"""Every objective against sums over all states: values, limits, bounds, gradients."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from vae_models import MODELS, make_model, pixels, posterior_mass, states_of

from sparsecbm._base.errors import InputError
from sparsecbm.samplers import RestrictedBoltzmannMachine
from sparsecbm.vae import DiscreteVAE, exact_log_likelihood, make_negative_phase, make_objective
from sparsecbm.vae.likelihoods import bernoulli_log_likelihood
from sparsecbm.vae.objectives import OBJECTIVES, log_mean_exp

SAMPLED = ["mass", "density", "analytic", "score_function"]


def saturating_noise(model: DiscreteVAE, states: Tensor) -> Tensor:
    """Noise under which every state comes out whatever the logits are."""
    return 60.0 * (2.0 * states - 1.0)


@pytest.mark.parametrize("which", MODELS)
def test_the_reference_is_right(which: str) -> None:
    """ELBO + KL(q || p(z | x)) = log p(x), with the KL summed by hand."""
    model, x = make_model(which), pixels()
    log_z = model.prior.log_partition().item()
    states, q = states_of(model, x), posterior_mass(model, x)
    assert torch.allclose(q.sum(0), torch.ones(len(x), dtype=q.dtype), atol=1e-12)
    joint = model.log_likelihood(x, states) + model.prior.log_mass(states) - log_z
    evidence = joint.logsumexp(0)
    gap = (q * (q.log() - (joint - evidence))).sum(0)
    elbo = make_objective("exact")(model, x).bound - log_z
    assert torch.allclose(exact_log_likelihood(model, x), evidence, atol=1e-9)
    assert torch.allclose(elbo + gap, evidence, atol=1e-9)
    # The prior is a distribution.
    total = (model.prior.log_mass(model.latents.states(like=x)) - log_z).logsumexp(0)
    assert total.item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", SAMPLED)
@pytest.mark.parametrize("which", MODELS)
def test_hard_samples_give_the_exact_discrete_elbo(which: str, name: str) -> None:
    model, x, objective = make_model(which), pixels(), make_objective(name).eval()
    q = posterior_mass(model, x)
    values = [
        objective.value(model, x, model.posterior.given(x, state.unsqueeze(0))).bound for state in states_of(model, x)
    ]
    assert torch.allclose((q * torch.stack(values)).sum(0), make_objective("exact")(model, x).bound, atol=1e-5)


@pytest.mark.parametrize("straight_through", [False, True])
@pytest.mark.parametrize("name", ["mass", "analytic"])
@pytest.mark.parametrize("which", MODELS)
def test_zero_temperature_gives_the_exact_discrete_elbo(which: str, name: str, straight_through: bool) -> None:
    """Straight-through samples are hard forward, so they need no limit."""
    model, x = make_model(which), pixels()
    objective = make_objective(name, straight_through=straight_through)
    q, states = posterior_mass(model, x), states_of(model, x)
    temperature = 2 / 3 if straight_through else 1e-4
    values = [
        objective(model, x, temperature=temperature, noise=saturating_noise(model, state.unsqueeze(0))).bound
        for state in states
    ]
    assert torch.allclose((q * torch.stack(values)).sum(0), make_objective("exact")(model, x).bound, atol=1e-5)


@pytest.mark.parametrize("name", ["mass", "analytic"])
def test_relaxed_samples_approach_the_hard_ones_of_the_same_noise(name: str) -> None:
    model, x, objective = make_model("hierarchical rbm"), pixels(), make_objective(name, samples=3)
    drawn = model.latents.noise((3, len(x)), generator=torch.Generator().manual_seed(0), like=x)
    hard = objective(model, x, temperature=None, noise=drawn, hard=True).bound
    far, near = (
        float((objective(model, x, temperature=tau, noise=drawn).bound - hard).abs().max()) for tau in (1.0, 1e-5)
    )
    assert far > 0.1
    assert near < 1e-5


@pytest.mark.parametrize("temperature", [1e-3, 2 / 3])
def test_the_density_objective_pays_for_the_size_of_the_relaxed_sample(temperature: float) -> None:
    """Its KL is that of two logistics, d coth(d / 2) - 2 a unit, at every temperature: never below the discrete KL."""
    model, x = make_model("factorial"), pixels(2)
    draws = 200_000
    drawn = model.latents.noise((draws, 2), generator=torch.Generator().manual_seed(1), like=x)
    draw = model.posterior(x, draws, temperature=temperature, noise=drawn)
    sampled = -make_objective("density").log_ratio(model, draw)
    shift = draw.logits[0] - model.prior.logits
    logistic = (shift / torch.tanh(shift / 2) - 2).sum(-1)
    error = sampled.std(0) / math.sqrt(draws)
    assert ((sampled.mean(0) - logistic).abs() < 4 * error).all()
    discrete = -make_objective("exact")(model, x).log_ratio
    assert (logistic > discrete + 1e-3).all()


@pytest.mark.parametrize("which", ["factorial", "hierarchical rbm", "categorical"])
def test_importance_weighted_bounds_rise_and_stay_below_the_likelihood(which: str) -> None:
    """All K-tuples of states, K = 1, 2, 3: the bound itself, not an estimate."""
    small = {
        "factorial": {"groups": (3,)},
        "hierarchical rbm": {"groups": (2, 1), "prior": "rbm"},
        "categorical": {"groups": (1,), "latents": "categorical", "categories": 5, "prior": "categorical"},
    }
    model, x = make_model(small[which]), pixels()
    states, q = states_of(model, x), posterior_mass(model, x)
    log_z = model.prior.log_partition()
    evidence = exact_log_likelihood(model, x)
    for name in SAMPLED:
        bounds = []
        for samples in (1, 2, 3):
            objective = make_objective(name, samples=samples).eval()
            total = torch.zeros(len(x), dtype=x.dtype)
            for chosen in itertools.product(range(len(states)), repeat=samples):
                value = objective.value(model, x, model.posterior.given(x, states[list(chosen)])).bound
                total += q[list(chosen)].prod(0) * value
            bounds.append(total - log_z)
        assert torch.allclose(bounds[0], make_objective("exact")(model, x).bound - log_z, atol=1e-9)
        assert (bounds[0] < bounds[1]).all()
        assert (bounds[1] < bounds[2]).all()
        assert (bounds[2] < evidence).all()


def test_many_samples_approach_the_likelihood() -> None:
    model, x = make_model("hierarchical rbm"), pixels()
    evidence = exact_log_likelihood(model, x)
    means, errors = [], []
    for samples in (1, 5, 20, 50):
        objective = make_objective("mass", samples=samples)
        wide = x.repeat(2000, 1)
        value = objective(model, wide, temperature=None, hard=True, generator=torch.Generator().manual_seed(samples))
        value = value.bound.view(2000, len(x)) - model.prior.log_partition()
        means.append(value.mean(0))
        errors.append(value.std(0) / math.sqrt(2000))
    for low, high, low_error, high_error in zip(means, means[1:], errors, errors[1:]):
        assert (high - low > 4 * torch.hypot(low_error, high_error)).all()
    assert (means[-1] < evidence + 4 * errors[-1]).all()
    assert (evidence - means[-1] < 0.5).all()


def test_a_closed_form_kl_in_an_importance_weighted_bound_is_no_bound() -> None:
    """log E_q p(x | z) - KL may exceed log p(x): why `analytic` adds a difference of mean zero in its place."""
    model, x = make_model({"groups": (4,)}, seed=3), pixels(20)
    exceeded = 0
    for share in (0.1, 0.3, 0.5):  # from the prior's parameters towards the posterior's
        network = model.posterior.networks[0].layers[0]
        kept = network.weight.data.clone(), network.bias.data.clone()
        network.weight.data *= share
        network.bias.data = share * network.bias.data + (1 - share) * model.prior.logits.data
        q, states = posterior_mass(model, x), states_of(model, x)
        infinite = (q.log() + model.log_likelihood(x, states)).logsumexp(0)
        exceeded += int((infinite + make_objective("exact")(model, x).log_ratio > exact_log_likelihood(model, x)).sum())
        network.weight.data, network.bias.data = kept
    assert exceeded > 0


@pytest.mark.parametrize("name", ["persistent", "annealing", "tempering"])
def test_negative_phase_gradients_agree_with_the_exact_gradient(name: str) -> None:
    """The mean over many chains, against the enumerated gradient of log Z, Bonferroni over its entries."""
    model = make_model({"groups": (7,), "prior": "rbm"}, seed=1)
    rbm = model.prior.rbm
    parameters = list(rbm.parameters())
    exact = torch.autograd.grad(make_negative_phase("exact", rbm, seed=0)(rbm), parameters)
    chains = 1000 if name == "tempering" else 4000
    phase = make_negative_phase(name, rbm, seed=0, chains=chains, sweeps=30)
    estimates = [torch.autograd.grad(phase(rbm), parameters) for _ in range(8)][3:]
    for target, *found in zip(exact, *estimates):
        found = torch.stack(found)
        # Each entry is a mean over 5 x chains values in [0, 1]; annealed replicas are correlated, so leave room.
        error = 0.5 / math.sqrt(5 * chains) * (2 if name == "annealing" else 1)
        assert ((found.mean(0) - target).abs() < 4.0 * error).all()


def test_the_ladder_of_a_machine_that_mixes_badly_adapts() -> None:
    rbm = RestrictedBoltzmannMachine(6, 6, scale=0.1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():  # two modes, all off and all on
        rbm.weight += 3.0
        rbm.visible_bias -= 9.0
        rbm.hidden_bias -= 9.0
    phase = make_negative_phase("tempering", rbm, seed=0, chains=50, sweeps=10)
    for _ in range(60):
        phase(rbm)
    # Even steps would be rejected at .5 below beta .4 and at .05 above: the rungs go where the modes part.
    assert phase.betas[-2] < 0.55
    assert ((phase.betas[1:] - phase.betas[:-1]) > 0).all()
    assert phase.rejected.max() - phase.rejected.min() < 0.35


def test_the_gradient_of_gumbolt_is_that_of_the_objective_less_log_z() -> None:
    model, x = make_model("rbm"), pixels()
    drawn = model.latents.noise((5, len(x)), generator=torch.Generator().manual_seed(0), like=x)
    objective = make_objective("mass", samples=5)
    parameters = list(model.parameters())

    def full() -> Tensor:
        return objective(model, x, temperature=0.5, noise=drawn).surrogate.mean() - model.prior.log_partition()

    gradients = torch.autograd.grad(full(), parameters)
    step = 1e-6
    for parameter, gradient in zip(parameters, gradients):
        place = int(gradient.abs().argmax())
        flat = parameter.data.view(-1)
        kept = float(flat[place])
        flat[place] = kept + step
        above = float(full().detach())
        flat[place] = kept - step
        below = float(full().detach())
        flat[place] = kept
        assert (above - below) / (2 * step) == pytest.approx(float(gradient.view(-1)[place]), rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("samples", [1, 2, 3])
@pytest.mark.parametrize("options", [{"groups": (2,)}, {"groups": (1, 1), "prior": "rbm"}])
def test_score_function_gradients_are_unbiased(options: dict, samples: int) -> None:
    """Summed over all K-tuples, they are the gradient of the bound, whatever the baseline."""
    model, x = make_model(options), pixels(1)
    parameters = [p for p in model.parameters() if p.requires_grad]
    states = states_of(model, x)
    tuples = list(itertools.product(range(len(states)), repeat=samples))
    objective = make_objective("score_function", samples=samples).eval()
    objective.baseline.fill_(0.7)
    objective.steps.fill_(3.0)
    q = posterior_mass(model, x)
    bound = sum(
        q[list(chosen)].prod()
        * make_objective("mass", samples=samples)
        .value(model, x, model.posterior.given(x, states[list(chosen)]))
        .surrogate.sum()
        for chosen in tuples
    )
    expected = torch.autograd.grad(bound, parameters)
    found = [torch.zeros_like(p) for p in parameters]
    for chosen in tuples:
        surrogate = objective.value(model, x, model.posterior.given(x, states[list(chosen)])).surrogate.sum()
        for total, gradient in zip(found, torch.autograd.grad(surrogate, parameters)):
            total += q[list(chosen)].prod().detach() * gradient
    for a, b in zip(found, expected):
        assert torch.allclose(a, b, atol=1e-9)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("which", ["hierarchical rbm", "categorical"])
def test_rows_do_not_see_each_other_and_terms_are_sums(name: str, which: str) -> None:
    if name == "density" and which == "hierarchical rbm":
        which = "factorial"
    samples = 1 if name == "exact" else 3
    model, x, objective = make_model(which), pixels(5), make_objective(name, samples=samples).eval()
    drawn = model.latents.noise((samples, 5), generator=torch.Generator().manual_seed(0), like=x)
    whole = objective(model, x, temperature=0.5, noise=drawn)
    for row in range(5):
        alone = objective(model, x[row : row + 1], temperature=0.5, noise=drawn[:, row : row + 1])
        for field in ("surrogate", "bound", "log_likelihood", "log_ratio"):
            assert torch.allclose(getattr(alone, field)[0], getattr(whole, field)[row], atol=1e-10), field
    draw = model.posterior(x, samples, temperature=0.5, noise=drawn)
    logits = model.decode(draw.state)
    by_hand = torch.distributions.Bernoulli(logits=logits).log_prob(x.expand_as(logits)).sum(-1)
    assert torch.allclose(model.log_likelihood(x, draw.state), by_hand, atol=1e-10)


def test_the_likelihood_of_pixels_has_the_gradient_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    x = pixels(3).requires_grad_()
    logits = (20 * torch.randn(2, 3, 9, generator=generator, dtype=torch.float64)).requires_grad_()
    expected = (x * logits - F.softplus(logits)).sum(-1)
    value = bernoulli_log_likelihood(x, logits)
    assert torch.allclose(value, expected, rtol=1e-12)
    weights = torch.randn(2, 3, generator=generator, dtype=torch.float64)
    for one, other in zip(
        torch.autograd.grad((weights * value).sum(), (x, logits)),
        torch.autograd.grad((weights * expected).sum(), (x, logits)),
    ):
        assert torch.allclose(one, other, atol=1e-8)  # softplus is linear above 20 for autograd
    far = torch.tensor([[-300.0, 300.0]])
    assert bernoulli_log_likelihood(torch.tensor([[0.0, 1.0]]), far).item() == 0.0
    assert bernoulli_log_likelihood(torch.tensor([[1.0, 0.0]]), far).item() == -600.0


def test_beta_weighs_the_ratio_alone() -> None:
    model, x, objective = make_model("rbm"), pixels(), make_objective("mass")
    drawn = model.latents.noise((1, 4), generator=torch.Generator().manual_seed(0), like=x)
    value = objective(model, x, temperature=0.5, noise=drawn, beta=0.3)
    assert torch.allclose(value.bound, value.log_likelihood + 0.3 * value.log_ratio)


def test_the_relaxed_rbm_is_sub_normalised() -> None:
    """The integral of exp(-E) over the cube is at most 2^-n Z (each 1-d integral at most the mean of its ends)."""
    model = make_model({"groups": (4,), "prior": "rbm"}, seed=2)
    nodes = torch.linspace(0, 1, 24, dtype=torch.float64)
    nodes = (nodes[1:] + nodes[:-1]) / 2
    grid = torch.cartesian_prod(nodes, nodes, nodes, nodes)
    integral = model.prior.log_mass(grid).logsumexp(0).item() - math.log(len(grid))
    assert integral < model.prior.log_partition().item() - 4 * math.log(2)


def test_log_mean_exp() -> None:
    values = torch.tensor([[1000.0, 0.0], [1000.0, math.log(3.0)]])
    assert torch.allclose(log_mean_exp(values), torch.tensor([1000.0, math.log(2.0)]))


def test_what_does_not_fit_is_named() -> None:
    model, x = make_model("rbm"), pixels()
    with pytest.raises(InputError, match="no Concrete density"):
        make_objective("density")(model, x, temperature=0.5)
    with pytest.raises(InputError, match=r"unknown objective 'mas'.*did you mean 'mass'"):
        make_objective("mas")
    with pytest.raises(InputError, match="samples=0"):
        make_objective("mass", samples=0)
    with pytest.raises(InputError, match="straight_through"):
        make_objective("score_function", straight_through=True)
    with pytest.raises(InputError, match="sums over all states"):
        make_objective("exact", samples=5)
    with pytest.raises(InputError, match="temperature=0"):
        make_objective("mass")(model, x, temperature=0.0)
    with pytest.raises(InputError, match="prior 'rbm' is over bernoulli"):
        DiscreteVAE(9, groups=(3,), latents="categorical", prior="rbm")
    with pytest.raises(InputError, match="too many for an exact sum"):
        make_objective("exact")(DiscreteVAE(9, groups=(30,)), x.float())
    with pytest.raises(InputError, match="unknown prior 'rmb'"):
        DiscreteVAE(9, groups=(3,), prior="rmb")
