"""Kill jobs at random moments, run the same job again, and compare what comes out with an undisturbed run, bit for bit.

    python scripts/benchmark_kills.py --kills 200 --json kills.json

Jobs: ``embed`` (painted birds by the bundled encoder, through the cache), ``train`` (a bottleneck with checkpoints),
``head`` (an exact-NEC head, which keeps nothing and must come out the same from the start), ``vae`` (a discrete-latent
model with checkpoints). Every job runs in a process of its own, which is sent SIGKILL at a moment drawn uniformly from
the time that the undisturbed job took; every third run that goes on from there is killed again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def digest(*arrays: Any) -> str:
    """SHA-256 of arrays."""
    made = hashlib.sha256()
    for array in arrays:
        made.update(np.ascontiguousarray(array).tobytes())
    return made.hexdigest()


def embed(folder: Path) -> str:
    """Embed 400 painted birds in shards of 16."""
    from sparsecbm.data import load_images
    from sparsecbm.embeddings import embed_images
    from sparsecbm.encoders import load_encoder

    images = load_images("birds", "test", max_images=400)
    table = embed_images(load_encoder("bundled", device="cpu"), images, folder, shard_size=16, batch_size=8)
    return digest(table.vectors)


def problem(n: int, d: int, m: int, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings, labels and concepts with a planted structure."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    X = rng.normal(size=(k, d))[y] + rng.normal(size=(n, d))
    return (X / np.linalg.norm(X, axis=1, keepdims=True)).astype(np.float32), y, rng.normal(size=(m, d))


def train(folder: Path) -> str:
    """Train a bottleneck with checkpoints every 100 steps."""
    from sparsecbm.estimators import SparseCBMClassifier

    X, y, concepts = problem(2000, 64, 100, 10)
    model = SparseCBMClassifier(
        concepts, max_active_concepts=8, max_iter=700, device="cpu", random_state=0, verbose=False
    )
    model.fit(X, y, X[:300], y[:300], checkpoint_dir=folder)
    return digest(model.bottleneck_.weight, model.bottleneck_.bias, model.head_weights_, model.head_intercept_)


def head(folder: Path) -> str:
    """Fit a head of five concepts a class."""
    from sparsecbm.heads import SparseHead

    X, y, concepts = problem(1500, 64, 120, 12)
    fitted = SparseHead(concepts_per_class=5, random_state=0).fit(np.maximum(X @ concepts.T, 0), y)
    return digest(fitted.coef_, fitted.intercept_)


def vae(folder: Path) -> str:
    """Train a small discrete-latent model with checkpoints every 40 steps."""
    from sparsecbm import runs
    from sparsecbm.config import build_vae_config

    config = build_vae_config(
        {
            "output": str(folder),
            "data": {"name": "digits", "max_train": 600, "max_validation": 100, "max_test": 50},
            "training": {"epochs": 40, "checkpoint_every": 40},
            "evaluation": {"samples": 50, "pictures": 16},
            "device": "cpu",
        }
    )
    runs.vae_run(config, progress=False)
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


JOBS: dict[str, Callable[[Path], str]] = {"embed": embed, "train": train, "head": head, "vae": vae}


def _child(job: str, folder: Path, answer: Path) -> None:
    # What a killed child would say on the terminal is of no interest.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    answer.write_text(JOBS[job](folder))


def run(job: str, folder: Path, kill_after: float | None) -> str | None:
    """Run a job in a process of its own; its digest, or None if it was killed before it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    answer = folder.parent / f"{folder.name}.answer"
    answer.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(target=_child, args=(job, folder, answer))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        return None
    if process.exitcode != 0:
        raise SystemExit(f"{job} failed with exit status {process.exitcode}")
    return answer.read_text()


def torture(job: str, kills: int, rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """Kill a job so many times; count the ends that differ from the undisturbed one."""
    start = time.perf_counter()
    reference = run(job, folder / "undisturbed", None)
    seconds = time.perf_counter() - start
    again = run(job, folder / "again", None)
    assert again == reference, f"{job} is not deterministic: nothing can be said about its resuming"
    done = ends = same = 0
    while done < kills:
        place = folder / f"killed-{ends}"
        while True:
            # A resumed run is killed again one time in three.
            wanted = done < kills and (not place.exists() or rng.random() < 1 / 3)
            result = run(job, place, float(rng.uniform(0.02, seconds)) if wanted else None)
            if result is not None:
                break
            done += 1
        ends += 1
        same += result == reference
        print(f"{job}: {done} kills, {ends} ends, {same} bit-identical", file=sys.stderr)
    return {"job": job, "kills": done, "ends": ends, "bit_identical": same, "undisturbed_seconds": round(seconds, 2)}


def main() -> None:
    """Torture every job and print a row for each; exit 1 if an end differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="over all jobs together")
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the rows here")
    arguments = parser.parse_args()
    if sys.platform == "win32":
        raise SystemExit("needs fork and SIGKILL")
    # Loaded once: the children are forks, and a kill falls into their work rather than into seconds of importing.
    import torch

    import sparsecbm.estimators
    import sparsecbm.runs
    import sparsecbm.vae  # noqa: F401

    torch.set_num_threads(1)
    rng = np.random.default_rng(arguments.seed)
    shares = [len(part) for part in np.array_split(np.arange(arguments.kills), len(arguments.jobs))]
    with tempfile.TemporaryDirectory() as folder:
        rows = [torture(job, n, rng, Path(folder, job)) for job, n in zip(arguments.jobs, shares) if n]
    for row in rows:
        print(json.dumps(row))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")
    raise SystemExit(any(row["ends"] != row["bit_identical"] for row in rows))


if __name__ == "__main__":
    main()
