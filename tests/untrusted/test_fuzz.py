"""Whatever bytes come: a value or one clear error.

Bounded here; ``SPARSECBM_FUZZ_SECONDS=600 pytest tests/untrusted/test_fuzz.py`` gives each test so many seconds.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import malformed
import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm.concepts import ConceptSet
from sparsecbm.config.reading import build_config, dump_config, load_config
from sparsecbm.data.decode import UndecodableError, decode_image
from sparsecbm.embeddings import load_embeddings

SECONDS = float(os.environ.get("SPARSECBM_FUZZ_SECONDS", "0"))
EXAMPLES = 60


def fuzz(strategy: st.SearchStrategy, check: Callable[[object], None]) -> None:
    """Run `check` on examples: one round of them, or as many rounds as fit into the seconds given."""
    end, round_ = time.monotonic() + SECONDS, 0
    while round_ == 0 or time.monotonic() < end:

        @seed(round_)
        @settings(
            max_examples=EXAMPLES if SECONDS == 0 else 500,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def once(value: object) -> None:
            check(value)

        once()
        round_ += 1


def refuses(load: Callable[[], object]) -> object:
    """Load; an error must be one of ours, on one line."""
    try:
        return load()
    except (InputError, UndecodableError) as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 2000
    return None


KEYS = st.sampled_from(
    [
        "name",
        "seed",
        "images",
        "spec",
        "splits",
        "train",
        "model",
        "loss",
        "temperature",
        "concepts",
        "names",
        "encoder",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | KEYS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def damaged(good: bytes) -> st.SearchStrategy[bytes]:
    """A good file with some bytes changed, cut out or doubled."""

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        data = good
        for place, length, new in edits:
            at = place % (len(data) + 1)
            data = data[:at] + new + data[at + length :]
        return data

    edit = st.tuples(st.integers(0, 2**20), st.integers(0, 8), st.binary(max_size=8))
    return st.lists(edit, min_size=1, max_size=4).map(apply)


def test_configurations_of_any_values(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"

    def check(tree: object) -> None:
        path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8", errors="surrogatepass")
        config = refuses(lambda: load_config(path))
        if config is not None:  # what was accepted is written and read back unchanged
            path.write_text(dump_config(config))
            assert load_config(path) == config

    fuzz(st.dictionaries(KEYS, VALUES, max_size=5) | VALUES, check)


def test_configurations_of_any_text(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        refuses(lambda: load_config(path))

    yaml_text = st.text(alphabet="ab01:-?[]{}&*!|>'\"%@`#,. \n\t~<=", max_size=60).map(str.encode)
    fuzz(yaml_text | damaged(malformed.GOOD_CONFIG.encode()), check)


def test_overrides_of_any_text() -> None:
    fuzz(st.text(max_size=30) | st.tuples(KEYS, st.text(max_size=20)).map("=".join), lambda text: _override(text))


def _override(text: str) -> None:
    refuses(lambda: build_config({}, [text]))


@pytest.mark.parametrize("suffix", [".json", ".yaml", ".txt"])
def test_concept_files(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"c{suffix}"
    good = {
        ".json": b'{"names": ["red crown", "lake"], "groups": {"crown": ["lake"]}, "relevance": {"robin": ["lake"]}}',
        ".yaml": b"names: [red crown, lake]\ngroups:\n  crown: [red crown]\nrelevance: {robin: {lake: 0.5}}\n",
        ".txt": b"# source: me\nred crown\nlake\n",
    }[suffix]

    def check(data: bytes) -> None:
        path.write_bytes(data)
        concepts = refuses(lambda: ConceptSet.from_file(path))
        if concepts is not None:
            kept = tmp_path / "kept.json"
            concepts.save(kept)
            assert ConceptSet.from_file(kept) == concepts

    trees = VALUES.map(lambda tree: yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass"))
    fuzz(damaged(good) | st.binary(max_size=40) | trees, check)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors", ".parquet"])
def test_embeddings_files(suffix: str, tmp_path: Path) -> None:
    rows = np.eye(4, 3, dtype=np.float32) + np.float32(0.5) * (np.arange(4)[:, None] == 3)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    if suffix == ".npz":
        good = malformed.npz(train_images=rows, train_labels=np.arange(4) % 2, class_names=np.array(["a", "b"]))
    elif suffix == ".safetensors":
        entry = {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}
        good = malformed.safetensors({"train_images": entry}, rows.tobytes())
    else:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        written = io.BytesIO()
        parquet.write_table(pa.table({"embedding": rows.tolist(), "label": [0, 1, 0, 1]}), written)
        good = written.getvalue()
    path = tmp_path / f"e{suffix}"

    def check(data: bytes) -> None:
        path.write_bytes(data)
        table = refuses(lambda: load_embeddings(path, "train"))
        if table is not None:
            assert np.isfinite(table.vectors).all()
            assert table.vectors.nbytes <= max(4 * len(data), 256 * 2**20)

    fuzz(damaged(good) | st.binary(max_size=80), check)


def test_safetensors_headers(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    sizes = st.integers(-(2**70), 2**70) | st.integers(-2, 60)
    entry = st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(["F32", "F16", "BF16", "I64", "U8", "BOOL", "F4", "C64"]) | st.text(max_size=4),
            "shape": st.lists(sizes, max_size=3) | st.just([4, 3]),
            "data_offsets": st.lists(sizes, min_size=2, max_size=2) | st.just([0, 48]),
        }
    )
    names = st.sampled_from(["train_images", "train_labels", "__metadata__", "x"])
    headers = st.dictionaries(names, entry | VALUES.filter(_is_json), max_size=3)

    def check(given_: tuple[dict, bytes, int | None]) -> None:
        header, data, declared = given_
        path.write_bytes(malformed.safetensors(header, data, declared))
        refuses(lambda: load_embeddings(path, "train", normalize=False))

    fuzz(st.tuples(headers, st.binary(max_size=64), st.none() | st.integers(0, 2**64 - 1)), check)


def _is_json(tree: object) -> bool:
    import json

    try:
        json.dumps(tree, allow_nan=False).encode()
    except (TypeError, ValueError):
        return False
    return True


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"])
def test_pictures(form: str) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, form)

    def check(data: bytes) -> None:
        image = refuses(lambda: decode_image(data))
        assert image is None or image.mode == "RGB"

    fuzz(damaged(written.getvalue()), check)
