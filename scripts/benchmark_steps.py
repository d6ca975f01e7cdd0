"""What an epoch costs on stored embeddings, against the published way that encodes images and texts again at each step.

    python scripts/benchmark_steps.py --json steps.json

Both train the same bottleneck with the same optimizer on the painted birds, with the bundled encoder. The published way
(arXiv 2404.03323, the authors' code) encodes the batch's pictures and all concept texts before each step; its pictures
are decoded and in memory here, which favours it. An epoch on stored embeddings is the slope between a short and a long
fit, so that statistics and set-up count for neither. What embedding once costs is a row of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsecbm.data import birds, load_images
from sparsecbm.encoders import Encoder, load_encoder
from sparsecbm.estimators import SparseCBMClassifier

EPOCHS = (20, 60)  # of the short and the long fit


def seconds_of(call: Any) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def encode_epoch(encoder: Encoder, pictures: list[Any], prompts: list[str], batch_size: int) -> None:
    """Encode as the published loop does: at each step the batch, and every concept."""
    for start in range(0, len(pictures), batch_size):
        encoder.encode_images(pictures[start : start + batch_size], progress=False)
        encoder.encode_texts(prompts, progress=False)


def training_epoch(X: np.ndarray, y: np.ndarray, concepts: np.ndarray, batch_size: int) -> float:
    """Seconds of one epoch on stored embeddings."""
    steps = -(-len(X) // batch_size)

    def fit(epochs: int) -> None:
        options = {"batch_size": batch_size, "max_iter": epochs * steps, "device": "cpu", "verbose": False}
        SparseCBMClassifier(concepts, max_active_concepts=8, random_state=0, **options).fit(X, y)

    short, long = (seconds_of(lambda epochs=epochs: fit(epochs)) for epochs in EPOCHS)
    return (long - short) / (EPOCHS[1] - EPOCHS[0])


def main() -> None:
    """Measure and print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()
    encoder = load_encoder("bundled", device="cpu")
    source = load_images("birds", "train", max_images=arguments.images)
    pictures = [source[i] for i in range(len(source))]
    prompts = list(birds.concept_phrases())
    once = seconds_of(lambda: encoder.encode_images(pictures, progress=False))
    X, concepts = encoder.encode_images(pictures, progress=False), encoder.encode_texts(prompts, progress=False)
    encoding, training = [], []
    for _ in range(arguments.repeats):
        encoding.append(seconds_of(lambda: encode_epoch(encoder, pictures, prompts, arguments.batch_size)))
        training.append(training_epoch(X, source.labels, concepts, arguments.batch_size))
    ratios = [(e + t) / t for e, t in zip(encoding, training)]
    row = {
        "pictures": len(pictures),
        "concepts": len(prompts),
        "batch_size": arguments.batch_size,
        "threads": torch.get_num_threads(),
        "stored_epoch_ms": round(1000 * statistics.median(training), 2),
        "published_epoch_ms": round(1000 * statistics.median(e + t for e, t in zip(encoding, training)), 1),
        "ratio": round(statistics.median(ratios), 1),
        "ratio_low": round(min(ratios), 1),
        "ratio_high": round(max(ratios), 1),
        "embedding_once_ms": round(1000 * once, 1),
    }
    print(json.dumps(row, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(row, indent=2) + "\n")


if __name__ == "__main__":
    main()
