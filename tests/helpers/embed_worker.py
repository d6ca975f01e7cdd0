"""Embed stored pictures in a process of its own: ``embed_worker.py MODEL PIXELS CACHE [KILLED]``.

It is killed when it asks for picture KILLED. Each process writes ``report-RANK.json`` beside the cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SHARD_SIZE, BATCH_SIZE = 16, 8


class StoredPictures:
    """An image source in memory; who asks for picture `killed` is sent SIGKILL."""

    def __init__(self, pixels: np.ndarray, killed: int | None = None) -> None:
        self.pixels, self.killed = pixels, killed
        self.labels, self.class_names = np.zeros(len(pixels), dtype=np.int64), ("noise",)
        self.ids = [f"picture-{index}" for index in range(len(pixels))]
        self.fingerprint = hashlib.sha256(pixels.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Image.Image:
        if index == self.killed:
            os.kill(os.getpid(), signal.SIGKILL)
        return Image.fromarray(self.pixels[index])


def main() -> None:
    from sparsecbm.embeddings import embed_images
    from sparsecbm.encoders import load_encoder

    model, pixels, cache, *killed = sys.argv[1:]
    encoder = load_encoder(f"open_clip:local-dir:{model}", device="cpu")
    source, encoded = StoredPictures(np.load(pixels), *map(int, killed)), []
    encoder.model.visual.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    table = embed_images(encoder, source, Path(cache), shard_size=SHARD_SIZE, batch_size=BATCH_SIZE)
    report = {"sha256": hashlib.sha256(np.ascontiguousarray(table.vectors)).hexdigest(), "encoded": sum(encoded)}
    Path(cache).with_name(f"report-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
