"""Reported likelihoods against enumeration: values, errors, intervals; log Z by every way there is."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from vae_models import make_model, pixels

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.samplers import noise
from sparsecbm.vae import (
    DiscreteVAE,
    LogPartition,
    estimate_log_likelihood,
    estimate_log_partition,
    exact_log_likelihood,
    load_vae,
    make_objective,
    save_vae,
)
from sparsecbm.vae.annealing import annealed_weights
from sparsecbm.vae.priors import rbm as rbm_room
from sparsecbm.vae.weights import importance_weights


@pytest.mark.parametrize("which", ["factorial", "rbm", "hierarchical rbm", "hierarchical categorical"])
def test_importance_sampling_finds_the_exact_likelihood(which: str) -> None:
    model, x = make_model(which), pixels(12)
    exact = exact_log_likelihood(model, x)
    estimate = estimate_log_likelihood(model, x, 4000, generator=torch.Generator().manual_seed(0))
    assert estimate.log_likelihood == pytest.approx(float(exact.mean()), abs=5 * estimate.importance_error + 1e-3)
    elbo = make_objective("exact")(model, x).bound.mean() - model.prior.log_partition()
    assert estimate.elbo == pytest.approx(elbo.item(), abs=0.1)
    assert estimate.elbo < estimate.log_likelihood
    assert estimate.interval[0] < estimate.log_likelihood < estimate.interval[1]
    assert estimate.population_interval[0] < estimate.interval[0]
    assert 1 <= estimate.effective_sample_size <= 4000


def test_few_effective_samples_support_no_interval() -> None:
    """A posterior far off: the estimate is a lower bound, well under the truth, and says that it is no more."""
    model, x = make_model("rbm"), pixels(12)
    with torch.no_grad():
        model.posterior.networks[0].layers[-1].bias += 6.0
    truth = exact_log_likelihood(model, x).mean().item()
    estimate = estimate_log_likelihood(model, x, 200, generator=torch.Generator().manual_seed(0))
    assert estimate.effective_sample_size < 150
    assert estimate.interval is None
    assert estimate.population_interval is None
    assert estimate.log_likelihood < truth - 1.96 * estimate.importance_error
    assert str(estimate).startswith(f"at least {estimate.log_likelihood:.2f} nats")
    assert estimate.to_json()["interval"] is None


def test_intervals_cover_where_there_are_any() -> None:
    """120 small models with exact likelihoods, 2,000 samples: where the samples support an interval it holds the truth.

    200 models at 8,000 samples: 94.3% of 194.
    """
    covered = []
    for seed in range(120):
        model, x = make_model("rbm" if seed % 2 else "factorial", seed=seed), pixels(6, seed=seed)
        found = estimate_log_likelihood(model, x, 2000, generator=torch.Generator().manual_seed(seed)).interval
        if found is not None:
            covered.append(found[0] <= exact_log_likelihood(model, x).mean().item() <= found[1])
    assert 60 <= len(covered) < 120
    assert np.mean(covered) > 0.9


def test_chunks_do_not_matter_and_all_samples_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = make_model("factorial"), pixels(5)
    monkeypatch.setattr("sparsecbm.vae.weights._ROW_NUMBERS", 200)  # 4 pictures, 5 samples at a time
    weights = importance_weights(model, x, 2003, generator=torch.Generator().manual_seed(0))
    exact = exact_log_likelihood(model, x)
    assert weights.log_mean.shape == weights.mean_log.shape == weights.relative_variance.shape == (5,)
    assert ((weights.log_mean - exact).abs() < 5 * weights.relative_variance.sqrt() + 1e-3).all()


@pytest.mark.parametrize("kind", ["hierarchical rbm", "categorical"])
def test_annealed_weights_have_the_right_mean_both_ways(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    model = make_model(kind).float().eval()
    states = model.prior.sample(6, generator=generator)
    x = model.likelihood.sample(model.decode(states).detach(), generator=generator)
    exact = exact_log_likelihood(model, x) + model.prior.log_partition()
    assert model.posterior.training is False
    up = annealed_weights(model, x, steps=8, chains=800, generator=generator)
    assert ((up.log_mean - exact).abs() < 5 * up.relative_variance.sqrt() + 1e-3).all()
    assert (up.mean_log < exact + 5e-3).all()
    # The mean of the weights back is 1 / p(x) over exact posterior samples, here by enumeration.
    every = model.latents.states(like=x)
    log_joint = model.prior.log_mass(every).unsqueeze(1) + model.likelihood.table(x, model.decode(every))
    chosen = torch.multinomial(log_joint.softmax(0).T, 200, replacement=True, generator=generator)
    posterior = every[chosen].flatten(0, 1)
    back = annealed_weights(
        model, x.repeat_interleave(200, 0), steps=8, chains=2, generator=generator, states=posterior
    ).log_mean.view(6, 200)
    inverse = back.logsumexp(1) - math.log(200)
    error = (back - inverse[:, None]).exp().std(1) / math.sqrt(200)
    assert ((inverse + exact).abs() < 5 * error + 1e-3).all()


def test_annealing_serves_where_importance_samples_do_not() -> None:
    generator = torch.Generator().manual_seed(0)
    model = DiscreteVAE(20, groups=(10,), generator=generator).eval()
    with torch.no_grad():
        weight = model.decoder.layers[0].weight
        weight.copy_(1.5 * noise.normal(tuple(weight.shape), generator=generator))
        x = model.likelihood.sample(model.decode(model.prior.sample(20, generator=generator)), generator=generator)
    exact = float(exact_log_likelihood(model, x).mean())
    plain = estimate_log_likelihood(model, x, 200, generator=generator)
    found = estimate_log_likelihood(model, x, 200, generator=generator, anneal=100)
    assert plain.interval is None
    assert plain.log_likelihood < exact - 0.1
    assert found.interval is not None
    assert found.interval[0] < exact < found.interval[1]
    assert found.interval[1] - found.interval[0] < 0.3
    assert found.bracket is not None
    assert abs(found.bracket.upper - found.bracket.lower) < 0.5
    assert found.to_json()["bracket"]["n_pictures"] == 16
    assert found.elbo < found.log_likelihood
    enough = estimate_log_likelihood(make_model("factorial"), pixels(2), 2000, generator=generator, anneal=100)
    assert enough.steps == 0


def test_training_mode_is_given_back_and_not_used() -> None:
    model, x = make_model("hierarchical rbm"), pixels(3)
    model.train()
    before = [value.clone() for value in model.buffers()]
    importance_weights(model, x, 10, generator=torch.Generator().manual_seed(0))
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers()))


def test_log_partition_every_way(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    assert estimate_log_partition(make_model("factorial").prior, generator=None) == LogPartition(0.0, 0.0, "normalised")
    model = DiscreteVAE(9, groups=(24,), prior="rbm", generator=generator)
    model.prior.rbm.weight.data = 0.6 * noise.normal((12, 12), generator=generator)
    exact = estimate_log_partition(model.prior, generator=generator)
    assert exact.method == "enumeration"
    monkeypatch.setattr(rbm_room, "ENUMERABLE", 4)
    annealed = estimate_log_partition(model.prior, generator=generator, betas=300, chains=300)
    assert annealed.method == "ais"
    assert annealed.value == pytest.approx(exact.value, abs=4 * annealed.standard_error + 1e-3)
    assert annealed.reverse == pytest.approx(exact.value, abs=0.3)
    assert annealed.value == max(annealed.forward, annealed.reverse)  # a likelihood takes the larger one off
    assert annealed.standard_error >= abs(annealed.forward - annealed.reverse) / 2
    # Its error is part of the interval.
    monkeypatch.setattr("sparsecbm.vae.evaluation.EFFECTIVE_SAMPLES", 1)
    estimate = estimate_log_likelihood(model, pixels(5).float(), 50, generator=generator, log_partition=annealed)
    half = estimate.log_likelihood - estimate.interval[0]  # the upper end is raised by a bias beside
    assert half == pytest.approx(1.959964 * math.hypot(annealed.standard_error, estimate.importance_error))


def test_samples_of_the_prior_follow_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exact and annealed samples of a small machine: moments within 5 standard errors."""
    model = make_model({"groups": (6,), "prior": "rbm"}).float()
    states = model.latents.states(like=torch.zeros(1))
    mass = (model.prior.log_mass(states) - model.prior.log_partition()).exp().float()
    expected = mass @ states
    for enumerable, room in ((20, 1.0), (2, 3.0)):  # annealed replicas are correlated
        monkeypatch.setattr(rbm_room, "ENUMERABLE", enumerable)
        found = model.prior.sample(4000, generator=torch.Generator().manual_seed(0)).mean(0)
        assert ((found - expected).abs() < 5 * room * 0.5 / math.sqrt(4000)).all()
    assert model.sample(7, generator=torch.Generator().manual_seed(0)).shape == (7, 9)


@pytest.mark.parametrize("samples", [0, -1, 2.5])
def test_bad_samples_are_named(samples: float) -> None:
    with pytest.raises(InputError, match="samples="):
        importance_weights(make_model("factorial"), pixels(1), samples, generator=None)


def test_a_model_comes_back_from_its_folder(tmp_path) -> None:
    from sparsecbm._base.errors import StoredFileError
    from sparsecbm.vae import load_vae, save_vae

    model = make_model("hierarchical rbm").float()
    save_vae(tmp_path, model, note="x")
    back = load_vae(tmp_path)
    x = pixels(3).float()
    assert torch.equal(exact_log_likelihood(model, x), exact_log_likelihood(back, x))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(StoredFileError, match="does not match the checksum"):
        load_vae(tmp_path)
    with pytest.raises(StoredFileError, match="no model at"):
        load_vae(tmp_path / "none")


def test_a_grid_shows_every_picture() -> None:
    from sparsecbm.vae.pictures import picture_grid

    images = np.eye(6)[:, :4]
    grid = picture_grid(images, (2, 2), columns=3)
    assert grid.dtype == np.uint8
    scale = 28
    assert (grid == 0).sum() == 4 * scale**2  # one dark pixel in each of the first four
    assert (grid == 255).sum() == 20 * scale**2


def test_weights_that_are_no_numbers_are_neither_stored_nor_read(tmp_path: Path) -> None:
    from sparsecbm._base.model_files import read_model, write_model

    model = make_model("rbm").float()
    save_vae(tmp_path, model)
    for break_it in (lambda held: held.fill_(torch.nan), lambda held: held.fill_(torch.inf)):
        broken = make_model("rbm").float()
        break_it(broken.prior.rbm.weight.data)
        with pytest.raises(InputError, match=r"prior.rbm.weight"):
            save_vae(tmp_path, broken)
        with pytest.raises(InputError, match=r"no likelihood|log-likelihood is nan"):
            estimate_log_likelihood(broken, pixels(2).float(), 5, generator=torch.Generator().manual_seed(0))
    arrays, described = read_model(tmp_path)
    for change in (lambda held: held * np.nan, lambda held: held.astype(np.int32)):
        write_model(tmp_path, {**arrays, "prior.rbm.weight": change(arrays["prior.rbm.weight"])}, described)
        with pytest.raises(StoredFileError, match=r"does not hold together \(weights 'prior.rbm.weight'"):
            load_vae(tmp_path)
