"""Adapters: any architecture, texts untouched, one process as two, killed as whole."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import KINDS, pictures

from sparsecbm import load_encoder, runs
from sparsecbm._base.errors import InputError
from sparsecbm.config.reading import build_config
from sparsecbm.encoders.adapting import AdaptOptions, adapt, save_encoder

pytest.importorskip("peft", reason="the extra `adapt` is not installed")


def problem(encoder) -> tuple[list[Image.Image], np.ndarray, np.ndarray, np.ndarray]:
    images, concepts = pictures(12), np.random.default_rng(0).normal(size=(5, encoder.embed_dim))
    concepts /= np.linalg.norm(concepts, axis=1)[:, None]
    return images, np.arange(12) % 3, concepts, encoder.encode_images(images)


@pytest.mark.parametrize("kind", KINDS)
def test_the_image_tower_of_every_architecture_learns_and_the_texts_stay(
    kind: str, saved: Callable[[str], str], tmp_path: Path
) -> None:
    encoder = load_encoder(saved(kind), device="cpu")
    images, labels, concepts, frozen = problem(encoder)
    texts, mark = encoder.encode_texts(["red bird"]), encoder.fingerprint
    options = AdaptOptions(max_iter=6, batch_size=12, rank=2, learning_rate=0.02)
    history = adapt(encoder, images, labels, concepts, frozen, options=options, device="cpu")
    assert history[-1]["cross_entropy"] < history[0]["cross_entropy"]
    assert encoder.fingerprint != mark
    np.testing.assert_array_equal(encoder.encode_texts(["red bird"]), texts)
    now = encoder.encode_images(images)
    assert np.abs(now - frozen).max() > 1e-4
    spec = save_encoder(encoder, tmp_path / "made") + str(tmp_path / "made")
    again = load_encoder(spec, device="cpu")
    assert again.fingerprint == encoder.fingerprint
    np.testing.assert_allclose(again.encode_images(images), now, atol=1e-5)


def train(checkpoint_dir: Path | None = None, images=None) -> tuple[list[dict], np.ndarray]:
    encoder = load_encoder("bundled", device="cpu")
    given, labels, concepts, frozen = problem(encoder)
    options = AdaptOptions(max_iter=8, batch_size=5, checkpoint_every=2, learning_rate=5e-3)
    truth = (np.arange(60).reshape(12, 5) % 3 == 0).astype(float)
    history = adapt(
        encoder, images or given, labels, concepts, frozen, concept_labels=truth, options=options, seed=1,
        device="cpu", checkpoint_dir=checkpoint_dir,
    )  # fmt: skip
    return history, encoder.encode_images(given)


class Fails(list):
    """Pictures that cannot be read any more after some."""

    left = 22

    def __getitem__(self, i):
        self.left -= 1
        if self.left < 0:
            raise OSError("the disk is gone")
        return super().__getitem__(i)


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    history, vectors = train()
    with pytest.raises(OSError, match="the disk is gone"):
        train(tmp_path, Fails(pictures(12)))
    assert (tmp_path / "training.safetensors").stat().st_size < 2e6  # adapters alone
    again, resumed = train(tmp_path)
    np.testing.assert_array_equal(resumed, vectors)
    assert again == history


def test_two_processes_adapt_as_one(forking: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    environment |= {"WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    here = Path(__file__)
    folders = [str(here.parents[2]), str(here.parents[1] / "helpers"), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(folders)
    call = [str(forking / "python"), str(here), str(tmp_path / "made.json")]
    processes = [subprocess.Popen(call, env=environment | {"RANK": r, "LOCAL_RANK": r}) for r in ("0", "1")]
    try:
        assert [process.wait() for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    made = json.loads((tmp_path / "made.json").read_text())
    history, vectors = train()
    np.testing.assert_allclose([row["loss"] for row in made["history"]], [row["loss"] for row in history], atol=1e-4)
    np.testing.assert_allclose(made["vectors"], vectors, atol=1e-3)


def test_the_command_writes_an_encoder_that_everything_takes(tmp_path: Path) -> None:
    values = {
        "images": {"max_train": 60, "max_validation": 20, "max_test": 40},
        "adapt": {"max_iter": 4, "batch_size": 16},
        "output": str(tmp_path / "out"),
    }
    result = runs.adapt_run(build_config(values))
    assert result.concept_loss == "labels"
    assert 0.5 < result.drift["alignment"] < 1.0
    assert result.before.keys() == result.after.keys() == {"accuracy", "concept_auc"}
    encoder = load_encoder(result.encoder, device="cpu")
    assert encoder.fingerprint == result.fingerprint != load_encoder("bundled").fingerprint
    assert json.loads((tmp_path / "out" / "adapt.json").read_text())["encoder"] == result.encoder
    with pytest.raises(InputError, match="reads embeddings"):
        runs.adapt_run(build_config({"embeddings": {"path": "a.npz", "concepts": "c.npz"}}))


if __name__ == "__main__":
    made, rows = train()
    if os.environ["RANK"] == "0":
        Path(sys.argv[1]).write_text(json.dumps({"history": made, "vectors": rows.tolist()}))
