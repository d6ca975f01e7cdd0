"""A device reaches what runs on it, with its number. GPUs are pretended here; on real ones: `pytest -m gpu`."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from sparsecbm import SparseCBMClassifier, load_encoder
from sparsecbm._base.accelerator import make_accelerator
from sparsecbm._base.devices import inference_device, resolve_device
from sparsecbm._base.errors import InputError


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_second_gpu_is_not_the_first(two_gpus) -> None:
    for name in ("cuda:1", "cuda:0", "cpu", "cuda:1"):  # each after another: Accelerate keeps the state of the first
        assert make_accelerator(name).device == torch.device(name)
        assert inference_device(name) == torch.device(name)
    assert make_accelerator("auto").device == torch.device("cuda:0")
    with pytest.raises(InputError, match="'cuda:2' is not there: this machine offers 2 CUDA devices"):
        make_accelerator("cuda:2")


def test_a_process_of_a_launch_has_the_device_of_its_rank(two_gpus, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert resolve_device() == torch.device("cuda:1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert resolve_device() == torch.device("cpu")


@pytest.mark.parametrize("name", ["meta", "cuda:x", "gpu", ""])
def test_what_is_no_device_is_said(name: str) -> None:
    for use in (make_accelerator, lambda name: load_encoder("bundled", device=name)):
        with pytest.raises(InputError, match="device"):
            use(name)


def test_a_model_of_an_absent_gpu_predicts_on_the_cpu(rng, tmp_path) -> None:
    y = np.arange(60) % 3
    X = np.eye(3, 8)[y] + 0.1 * rng.normal(size=(60, 8))
    model = SparseCBMClassifier(rng.normal(size=(6, 8)), max_iter=5, device="cpu:0", random_state=0).fit(X, y)
    expected = model.transform(X)
    model.set_params(device="cuda:7").save(tmp_path)
    again = SparseCBMClassifier.load(tmp_path)
    assert again.device == "cuda:7"
    np.testing.assert_array_equal(again.transform(X), expected)
