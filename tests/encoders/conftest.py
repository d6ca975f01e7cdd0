"""Tiny models, saved once a session; no test here touches the network."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
from tiny_models import save_open_clip, save_transformers


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the spec of a saved tiny model of one architecture."""
    root = tmp_path_factory.mktemp("models")

    def spec(kind: str) -> str:
        folder = root / kind
        if kind == "open_clip":
            return f"open_clip:local-dir:{folder if folder.exists() else save_open_clip(folder)}"
        return f"transformers:{folder if folder.exists() else save_transformers(kind, folder)}"

    return spec


@pytest.fixture
def own_model(tmp_path: Path) -> Path:
    """Return a tiny open_clip folder that the test may damage."""
    return save_open_clip(tmp_path / "model")
