"""A tiny encoder and pictures; no test here touches the network or the user's cache."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
from tiny_models import save_open_clip

from sparsecbm.encoders import Encoder, load_encoder


@pytest.fixture(autouse=True)
def _cache_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_open_clip(tmp_path_factory.mktemp("embeddings") / "model")


@pytest.fixture(scope="session")
def encoder(model_folder: Path) -> Encoder:
    return load_encoder(f"open_clip:local-dir:{model_folder}", device="cpu")


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Return 120 pictures of coloured noise, uint8 (120, 36, 40, 3)."""
    return np.random.default_rng(3).integers(0, 256, (120, 36, 40, 3), dtype=np.uint8)


@pytest.fixture
def forward_passes(encoder: Encoder):
    """Return a list that grows by the batch size of each forward pass of either tower."""
    seen: list[int] = []
    hooks = [
        encoder.model.visual.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]))),
        encoder.model.token_embedding.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0]))),
    ]
    yield seen
    for hook in hooks:
        hook.remove()
