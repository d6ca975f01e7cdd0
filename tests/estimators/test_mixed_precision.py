"""bfloat16 on a CPU, from pictures to a stored model: products in 16 bits, everything that is kept in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sparsecbm import SparseCBMClassifier, load_encoder, load_images
from sparsecbm._base.accelerator import make_accelerator
from sparsecbm._base.errors import InputError


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    X = np.eye(4)[y] @ rng.normal(size=(4, 16)) + 0.3 * rng.normal(size=(240, 16))
    return rng.normal(size=(12, 16)), X.astype(np.float32), y


def fit(problem, **options):
    concepts, X, y = problem
    options = {"max_active_concepts": 4, "max_iter": 60, "device": "cpu", "random_state": 0} | options
    return SparseCBMClassifier(concepts, **options).fit(X, y)


@pytest.mark.parametrize("loss", ["gumbel", "contrastive", "l1"])
def test_training_in_bfloat16_is_training(problem, loss, tmp_path):
    plain, mixed = (fit(problem, loss=loss, mixed_precision=p) for p in ("no", "bf16"))
    _, X, y = problem
    assert mixed.score(X, y) == pytest.approx(plain.score(X, y), abs=0.02)
    assert mixed.score(X, y) > 0.8
    activations = mixed.transform(X)
    assert activations.dtype == np.float32
    assert (activations != 0).sum(1).max() <= 4
    # Rounded somewhere, yet near: 16-bit products were used, and the optimizer's state was not 16-bit.
    seen, exact = mixed.history_[-1]["cross_entropy"], plain.history_[-1]["cross_entropy"]
    assert seen != exact
    assert seen == pytest.approx(exact, rel=0.02)
    mixed.save(tmp_path)
    again = SparseCBMClassifier.load(tmp_path)
    np.testing.assert_array_equal(again.transform(X), activations)
    assert np.abs(again.head_weights_ * 256 % 1).any()  # not rounded to 16 bits


def test_the_same_seed_gives_the_same_model_in_bfloat16(problem):
    one, two = (fit(problem, loss="gumbel", mixed_precision="bf16") for _ in range(2))
    np.testing.assert_array_equal(one.head_weights_, two.head_weights_)


def test_float16_is_refused_on_a_cpu(problem):
    with pytest.raises(InputError, match="mixed_precision='fp16' is not for a CPU: use 'no' or 'bf16'"):
        fit(problem, mixed_precision="fp16")


def test_the_setting_wins_over_the_launcher(monkeypatch):
    """`accelerate launch --mixed_precision bf16` sets the environment; configs/accelerate/README.md promises this."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with make_accelerator("cpu").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32
    with make_accelerator("cpu", mixed_precision="bf16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_the_bundled_encoder_in_bfloat16():
    images = load_images("birds", "test", max_images=8)
    exact, mixed = (
        load_encoder("bundled", device="cpu", precision=p).encode_images(images) for p in ("float32", "bfloat16")
    )
    assert mixed.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(mixed, axis=1), 1, atol=1e-6)
    assert not np.array_equal(exact, mixed)
    assert (exact * mixed).sum(1).min() > 0.999
