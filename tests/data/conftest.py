"""Small data sets in every layout, written afresh; nothing here touches the user's cache or the network."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def encode(seed: int, size: tuple[int, int] = (12, 10), mode: str = "RGB", form: str = "PNG") -> bytes:
    """A noisy picture as encoded bytes."""
    channels = {"RGB": 3, "RGBA": 4, "L": 1}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels), dtype=np.uint8)
    handle = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(handle, form)
    return handle.getvalue()


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    return encode


@pytest.fixture(autouse=True)
def _own_datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Ten pictures of each of three classes, one with an accent and a blank in its name."""
    root = tmp_path / "pictures"
    for k, name in enumerate(["ant", "Bär mit Hut", "鳥"]):
        (root / name).mkdir(parents=True)
        for i in range(10):
            (root / name / f"{i}.png").write_bytes(encode(100 * k + i))
    return root


@pytest.fixture
def write_parquet() -> Callable[..., None]:
    """Write rows to a parquet file as the hub does: pictures as {bytes, path}, features in the metadata."""

    def write(path: Path, rows: dict[str, Sequence], features: dict | None = None) -> None:
        import datasets
        import pyarrow as pa
        import pyarrow.parquet as pq

        path.parent.mkdir(parents=True, exist_ok=True)
        if features is None:
            table = pa.table({name: list(values) for name, values in rows.items()})
        else:  # not Dataset.to_parquet, which refuses pictures whose file is missing
            schema = datasets.Features(features).arrow_schema
            table = datasets.Dataset.from_dict(rows, features=datasets.Features(features)).data.table.cast(schema)
        pq.write_table(table, path)

    return write
