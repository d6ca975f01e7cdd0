"""The tasks beside density estimation: stochastic networks, semi-supervised classification, the toy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sparsecbm._base.errors import InputError
from sparsecbm.samplers import noise
from sparsecbm.vae import DiscreteVAE, Trainer, TrainingOptions, exact_log_likelihood, make_objective
from sparsecbm.vae.latents import make_latents
from sparsecbm.vae.likelihoods import bernoulli_log_likelihood
from sparsecbm.vae.tasks import (
    ESTIMATORS,
    AutoencoderTask,
    GradientQuality,
    LabelledVAE,
    SemiSupervisedTask,
    StepContext,
    StochasticNetwork,
    StructuredTask,
    choose_labelled,
    gradient_quality,
    measure_exactly,
    state_pictures,
)

CONTEXT = StepContext(temperature=0.5, beta=1.0, scale=1.0)


def coins(n: int = 200, seed: int = 0) -> np.ndarray:
    """Pictures of 8 pixels whose lower half is all 0 or all 1, by a coin that the upper half does not tell."""
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.integers(0, 2, (n, 4)), rng.integers(0, 2, (n, 1)).repeat(4, 1)], 1).astype(np.uint8)


def network(groups=(3,), n_in: int = 4, n_out: int = 4, seed: int = 0, **options) -> StochasticNetwork:
    return StochasticNetwork(n_in, n_out, groups=groups, generator=torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("options", [{}, {"latents": "categorical", "categories": 3}])
def test_stochastic_networks_give_every_estimator_a_gradient(estimator: str, options: dict) -> None:
    task = StructuredTask(network((3, 2), **options), estimator=estimator, samples=2)
    x = torch.from_numpy(coins(20)).float()
    drawn = task.draw(20, generator=torch.Generator().manual_seed(0), like=x)
    loss, record = task({"x": x}, drawn, CONTEXT)
    loss.backward()
    assert torch.isfinite(loss)
    assert record["bound"] < 0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_the_stochastic_likelihood_is_the_enumerated_one() -> None:
    net = network((3,))
    task = StructuredTask(net)
    x = torch.from_numpy(coins(6)).float()
    given, y = task.parts(x)
    states = make_latents("bernoulli", 3).states(like=x)
    logits = net.maps[0](given)
    q = (states.unsqueeze(1) * logits - torch.nn.functional.softplus(logits)).sum(-1)
    out = net.maps[1](states - 0.5)
    log_y = out @ y.T - torch.nn.functional.softplus(out).sum(-1, keepdim=True)
    exact = (q + log_y).logsumexp(0)
    found = task.log_likelihood(x, 20_000, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(found.float(), exact, atol=0.03)


def test_score_function_of_a_stochastic_network_is_unbiased() -> None:
    """Against the gradient of the enumerated mean of log p(y | z), within 5 standard errors."""
    net = network((2,))
    task = StructuredTask(net, estimator="score_function")
    x = torch.from_numpy(coins(1)).float()
    given, y = task.parts(x)
    weight = net.maps[0].layers[0].weight
    states = make_latents("bernoulli", 2).states(like=x)
    logits = net.maps[0](given)
    q = (states * logits - torch.nn.functional.softplus(logits)).sum(-1).exp()
    out = net.maps[1](states - 0.5)
    log_y = (out * y - torch.nn.functional.softplus(out)).sum(-1)
    (exact,) = torch.autograd.grad((q * log_y).sum(), weight)
    # Many rows of one picture are many samples of one gradient.
    rows, blocks = 50_000, 20  # 5 standard errors are 3% of the gradient
    wide = x.repeat(rows, 1)
    found = []
    for block in range(blocks):
        drawn = task.draw(rows, generator=torch.Generator().manual_seed(block), like=x)
        task.score.steps.zero_()
        task.score.baseline.zero_()
        loss, _ = task({"x": wide}, drawn, StepContext(0.5, 1.0, 1 / rows))
        found.append(-torch.autograd.grad(loss, weight)[0])
    found = torch.stack(found)
    assert ((found.mean(0) - exact).abs() < 5 * found.std(0) / math.sqrt(blocks) + 1e-6).all()


LEARN = TrainingOptions(
    epochs=80, batch_size=50, evaluate_every=80, adam_eps=1e-8, learning_rate=2e-2, weight_decay=0.0
)


def test_structured_prediction_learns_that_there_are_two_answers() -> None:
    task = StructuredTask(network((3,)), estimator="relaxed", samples=5)
    history = Trainer(task, LEARN, seed=0, device="cpu", progress=False).fit({"x": coins()}, {"x": coins(60, 1)})
    # One coin is log 2 = 0.69 nats; without the latents the four pixels are four coins, 2.77.
    assert history[-1]["val_score"] > -2.0
    whole = task.predict(torch.from_numpy(coins(5)).float(), generator=torch.Generator().manual_seed(0))
    assert torch.equal(whole[:, :4], torch.from_numpy(coins(5)).float()[:, :4])


def test_the_binary_autoencoder_uses_its_code() -> None:
    task = AutoencoderTask(network((6,), 8, 8, hidden=(16,)), estimator="straight_through_relaxed")
    history = Trainer(task, LEARN, seed=0, device="cpu", progress=False).fit({"x": coins()}, {"x": coins(60, 1)})
    assert history[-1]["val_score"] > -3.0  # eight pixels are eight coins without the code, 5.5 nats


def blobs(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of 3 x 4 pixels, a block each, with noise."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = np.eye(3, dtype=np.int64)[y].repeat(4, axis=1)
    return (x ^ (rng.random(x.shape) < 0.15)).astype(np.uint8), y


def semisupervised(**options) -> SemiSupervisedTask:
    generator = torch.Generator().manual_seed(0)
    x, y = blobs(300)
    rows = choose_labelled(torch.from_numpy(y), 6, 3, generator=generator)
    model = LabelledVAE(12, 3, continuous=2, hidden=(16,), generator=generator)
    return SemiSupervisedTask(model, torch.from_numpy(x)[rows], torch.from_numpy(y)[rows], label_weight=5.0, **options)


def test_labelled_intensities_are_binarised_afresh() -> None:
    binary, grey = semisupervised(), semisupervised(dynamic=True)
    grey.labelled_x *= 255.0  # black and white: the draw changes nothing
    x = torch.from_numpy(blobs(20)[0]).float()
    losses = []
    for task in (binary, grey):
        drawn = grey.draw(20, generator=torch.Generator().manual_seed(0), like=x)
        losses.append(task({"x": x}, drawn, CONTEXT)[0].item())
    assert losses[0] == losses[1]
    grey.labelled_x /= 2
    assert grey({"x": x}, drawn, CONTEXT)[0].item() != losses[0]


@pytest.mark.parametrize("options", [{"marginalise": True}, {}, {"straight_through": True}])
def test_semisupervised_classification_by_relaxation_and_by_marginalisation(options: dict) -> None:
    task = semisupervised(**options)
    x, _ = blobs(300)
    x_val, y_val = blobs(200, 1)
    training = TrainingOptions(epochs=40, batch_size=50, evaluate_every=40, adam_eps=1e-8, learning_rate=5e-3)
    run = Trainer(task, training, seed=0, device="cpu", progress=False)
    history = run.fit({"x": x}, {"x": x_val, "y": y_val})
    assert history[-1]["val_score"] > 0.85
    assert task.model.sample(2, generator=torch.Generator().manual_seed(0)).shape == (6, 12)


def test_a_convolutional_classifier_knows_a_shape_where_it_has_not_seen_it() -> None:
    rng, generator = np.random.default_rng(0), torch.Generator().manual_seed(0)
    y, place = rng.integers(0, 2, 300), rng.integers(0, 8, 300)
    x = np.zeros((300, 8, 8), np.uint8)
    x[np.arange(300), place] = 1
    x[y == 1] = x[y == 1].transpose(0, 2, 1)
    data = {"x": x.reshape(300, 64), "y": y}
    rows = [int(np.flatnonzero((y == k) & (place == at))[0]) for k in (0, 1) for at in (2, 5)]
    options = {"continuous": 2, "hidden": (16,), "classifier": "convolutional", "generator": generator}
    model = LabelledVAE(64, 2, **options, batch_norm=True)
    known = torch.from_numpy(data["x"][rows]), torch.from_numpy(y[rows])
    task = SemiSupervisedTask(model, *known, label_weight=5.0, straight_through=True, shift=2, dropout=0.2)
    training = TrainingOptions(epochs=12, batch_size=50, evaluate_every=12, adam_eps=1e-8, learning_rate=3e-3)
    history = Trainer(task, training, seed=0, device="cpu", progress=False).fit({"x": data["x"]}, data)
    assert history[-1]["val_score"] > 0.9
    with pytest.raises(InputError, match="square"):
        LabelledVAE(12, 3, **options)


def test_labelled_pictures_are_moved_one_by_one_and_dropout_is_drawn_with_the_other_noise() -> None:
    generator = torch.Generator().manual_seed(0)
    model = LabelledVAE(16, 2, continuous=2, hidden=(8,), generator=generator)
    x = torch.eye(16)
    task = SemiSupervisedTask(model, x, torch.arange(16) % 2, labelled_batch=16, shift=1, dropout=0.5)
    drawn = task.draw(16, generator=generator, like=x)
    moved = task._shifted(x, drawn["shared_shift"]).view(16, 4, 4)
    steps = [(int(at) // 4 - row // 4, int(at) % 4 - row % 4) for row, at in enumerate(moved.flatten(1).argmax(1))]
    assert len(set(steps)) > 4
    assert moved.sum() == 16
    assert all(down % 4 in (0, 1, 3) and right % 4 in (0, 1, 3) for down, right in steps)
    losses = [task({"x": x}, drawn, CONTEXT)[0].item() for _ in range(2)]
    other = task({"x": x}, drawn | {"dropout": 1 - drawn["dropout"]}, CONTEXT)[0].item()
    assert losses[0] == losses[1] != other


def test_at_zero_temperature_relaxation_is_marginalisation_in_expectation() -> None:
    """Over every class by saturating noise, weighted by q(y | x): the marginal bound, to 1e-4."""
    relaxed, marginal = semisupervised(), semisupervised(marginalise=True)
    x = torch.from_numpy(blobs(5)[0]).float()
    normal = noise.normal((1, 5, 2), generator=torch.Generator().manual_seed(0))
    logits = relaxed.model.class_logits(x)
    expected = marginal.unlabelled(x, logits, {"normal": normal.expand(3, -1, -1)}, 1.0)
    q = logits.softmax(-1)
    total = torch.zeros(5)
    for k in range(3):
        classes = torch.full((5, 3), -40.0)
        classes[:, k] = 40.0
        total += q[:, k] * relaxed.unlabelled(x, logits, {"normal": normal, "classes": classes}, 1e-2)
    assert torch.allclose(total, expected, atol=1e-4)


def test_labelled_rows_are_spread_over_the_classes() -> None:
    y = torch.tensor([0] * 50 + [1] * 5 + [2] * 45)
    rows = choose_labelled(y, 9, 3, generator=torch.Generator().manual_seed(0))
    assert torch.bincount(y[rows]).tolist() == [3, 3, 3]
    assert len(set(rows.tolist())) == 9
    with pytest.raises(InputError, match="labels=2"):
        choose_labelled(y, 2, 3, generator=torch.Generator().manual_seed(0))


def toy_model(likelihood: str = "gaussian") -> tuple[DiscreteVAE, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape: dict = {"latents": "categorical", "categories": 4, "groups": (1,), "prior": "categorical"}
    model = DiscreteVAE(6, likelihood=likelihood, generator=generator, **shape)
    return model.eval(), noise.uniform((5, 6), generator=generator)


def test_a_gaussian_decoder_is_the_normal_density() -> None:
    model, x = toy_model()
    states = torch.eye(4)
    outputs = model.decode(states).detach()
    by_hand = torch.distributions.Normal(outputs[:, None, :-1], outputs[:, None, -1:].exp()).log_prob(x).sum(-1)
    assert torch.allclose(model.likelihood.table(x, outputs), by_hand, atol=1e-4)
    assert torch.allclose(model.log_likelihood(x, states[:, None].expand(-1, 5, -1)), by_hand, atol=1e-4)
    log_joint = by_hand + math.log(1 / 4)
    assert torch.allclose(exact_log_likelihood(model, x).float(), log_joint.logsumexp(0), atol=1e-4)
    drawn = model.likelihood.sample(outputs[:1].expand(4000, -1), generator=torch.Generator().manual_seed(1))
    assert torch.allclose(drawn.mean(0), model.likelihood.mean(outputs[0]), atol=5 * outputs[0, -1].exp().item() / 63)
    assert state_pictures(model).shape == (4, 6)
    binary, _ = toy_model("bernoulli")
    y = (x > 0.5).float()
    logits = binary.decode(states)
    assert torch.allclose(
        binary.likelihood.table(y, logits), bernoulli_log_likelihood(y, logits[:, None].expand(-1, 5, -1)), atol=1e-5
    )


def test_the_toy_tells_bias_from_variance() -> None:
    model, x = toy_model()

    def quality(name: str, temperature: float = 1.0) -> GradientQuality:
        generator = torch.Generator().manual_seed(1)
        return gradient_quality(
            model, x, make_objective(name), temperature=temperature, draws=20_000, generator=generator
        )

    assert quality("exact").spread < 1e-6
    score = quality("score_function")
    assert score.bias < 3 * score.bias_error  # unbiased
    cool, warm = quality("analytic", 0.2), quality("analytic", 2.0)  # bias falls with the temperature, variance rises
    assert warm.bias > 10 * warm.bias_error
    assert warm.bias > 2 * cool.bias
    assert cool.spread > 2 * warm.spread
    found = measure_exactly(model, x, make_objective("exact"), temperature=1.0, generator=None)
    assert found["objective"] == pytest.approx(found["elbo"])
    assert found["elbo"] < found["log_likelihood"]
    assert 1 < found["used"] <= 4
