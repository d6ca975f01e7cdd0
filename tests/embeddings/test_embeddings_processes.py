"""A killed process resumes; two processes give what one gives; bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from embed_worker import BATCH_SIZE, SHARD_SIZE, StoredPictures

import sparsecbm
from sparsecbm.embeddings import embed_images

WORKER = Path(__file__).parents[1] / "helpers" / "embed_worker.py"
ROOT = Path(sparsecbm.__file__).parents[1]


def _environment(threads: int) -> dict[str, str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def files(model_folder, pixels, tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    np.save(folder / "pixels.npy", pixels)
    return model_folder, folder / "pixels.npy"


@pytest.fixture(scope="module")
def killed_cache(files, forking, tmp_path_factory):
    """Return the cache that a process left which was killed by SIGKILL between its first and last shard."""
    model, pixels = files
    cache = tmp_path_factory.mktemp("killed") / "cache"
    command = [str(forking / "python"), str(WORKER), str(model), str(pixels), str(cache), str(3 * SHARD_SIZE + 5)]
    assert subprocess.run(command, env=_environment(1)).returncode == -signal.SIGKILL
    assert not list(cache.rglob("manifest.json"))
    return cache


def _digest(vectors: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(vectors)).hexdigest()


@pytest.fixture(scope="module")
def reference(encoder, pixels, tmp_path_factory):
    options = {"shard_size": SHARD_SIZE, "batch_size": BATCH_SIZE}
    return _digest(embed_images(encoder, StoredPictures(pixels), tmp_path_factory.mktemp("fresh"), **options).vectors)


def test_killed_then_resumed_is_bit_identical(killed_cache, reference, encoder, pixels, forward_passes, tmp_path):
    shutil.copytree(killed_cache, tmp_path / "resumed")
    kept = len(list(killed_cache.rglob("rows-*.safetensors")))
    assert 0 < kept < len(pixels) / SHARD_SIZE
    forward_passes.clear()
    options = {"shard_size": SHARD_SIZE, "batch_size": BATCH_SIZE}
    table = embed_images(encoder, StoredPictures(pixels), tmp_path / "resumed", **options)
    assert sum(forward_passes) == len(pixels) - kept * SHARD_SIZE
    assert _digest(table.vectors) == reference
    assert not list((tmp_path / "resumed").rglob("*.tmp"))


def test_two_processes_resume_to_the_same_bits(killed_cache, reference, files, tmp_path, pixels):
    shutil.copytree(killed_cache, tmp_path / "two")
    rest = len(pixels) - SHARD_SIZE * len(list(killed_cache.rglob("rows-*.safetensors")))
    # `accelerate launch --cpu --num_processes 2` starts one process where there is no mpirun; torchrun starts two.
    launch = "-m torch.distributed.run --standalone --nproc_per_node 2"
    result = subprocess.run(
        [sys.executable, *launch.split(), WORKER, *files, tmp_path / "two"],
        env=_environment(1),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    reports = [json.loads((tmp_path / f"report-{rank}.json").read_text()) for rank in (0, 1)]
    assert [report["sha256"] for report in reports] == [reference, reference]
    assert sum(report["encoded"] for report in reports) == rest
    assert abs(reports[0]["encoded"] - reports[1]["encoded"]) <= SHARD_SIZE


FAILING = """
import atexit, contextlib, os, sys
from pathlib import Path
import numpy as np
import torch.distributed
from sparsecbm._base.errors import InputError
from sparsecbm.embeddings.store import Plan, fetch

def encode(shards):
    for shard in shards:
        if shard.start == 4:
            raise InputError("cannot decode picture 4")
        yield np.ones((len(shard), 3), dtype=np.float32)

cache = Path(sys.argv[1])
mark = cache.with_name("joined-" + os.environ["RANK"])
atexit.register(lambda: mark.write_text(str(torch.distributed.is_initialized())))  # runs after what is registered later
progress = lambda total, done: contextlib.nullcontext(lambda rows: None)
try:
    fetch(cache, Plan("key", 8, 3, "float32", 4, 4), encode, {}, progress)
except InputError as error:
    cache.with_name("error-" + os.environ["RANK"]).write_text(str(error))
"""


def test_an_error_in_one_process_is_raised_in_both(tmp_path):
    """The other process neither waits for ever nor takes the array for complete."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    rendezvous = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", FAILING, tmp_path / "cache"],
            env={**_environment(1), **rendezvous, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in (0, 1)
    ]
    assert [worker.wait() for worker in workers] == [0, 0]
    assert [(tmp_path / f"error-{rank}").read_text() for rank in (0, 1)] == ["cannot decode picture 4"] * 2
    # Threads of a group that is still joined when the interpreter ends may abort the process.
    assert [(tmp_path / f"joined-{rank}").read_text() for rank in (0, 1)] == ["False"] * 2
    assert len(list((tmp_path / "cache").rglob("rows-*.safetensors"))) == 1
    assert not list((tmp_path / "cache").rglob("manifest.json"))
