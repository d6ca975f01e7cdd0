"""Measure `embed_images` on the 6,000 real CIFAR-10 pictures against a bare loop over the model.

    python scripts/benchmark_embed.py --data-dir DIR            throughput, then the second call
    python scripts/benchmark_embed.py --data-dir DIR --kill     kill -9 in the middle, then the same command

DIR holds ``cifar10_subset/*.parquet``. Both sides of the throughput decode, preprocess and encode the same pictures in
the same batches; `embed_images` also hashes the pictures and writes the cache. They alternate, so that both see the
same machine; medians and the median of the paired ratios are reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsecbm.data import load_images
from sparsecbm.embeddings import Embeddings, embed_images
from sparsecbm.encoders import Encoder, load_encoder


def bare_loop(encoder: Encoder, source: Any, batch_size: int) -> np.ndarray:
    """Decode, preprocess and encode with nothing around it."""
    rows = []
    with torch.inference_mode():
        for start in range(0, len(source), batch_size):
            batch = [encoder.preprocess(source[i]) for i in range(start, min(start + batch_size, len(source)))]
            features = encoder.model.encode_image(torch.stack(batch).to(encoder.device))
            rows.append(torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy())
    return np.concatenate(rows)


def timed(call: Any) -> tuple[float, Any]:
    """Seconds and result of a call."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def digest(table: Embeddings) -> str:
    """SHA-256 of the vectors."""
    return hashlib.sha256(np.ascontiguousarray(table.vectors)).hexdigest()


def throughput(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Alternate bare loop and `embed_images`, then call the latter again."""
    encoder = load_encoder(arguments.encoder, device=arguments.device)
    source = open_source(arguments)
    batch_size = arguments.batch_size or encoder.default_batch_size
    bare_loop(encoder, [source[i] for i in range(batch_size)], batch_size)  # warm up
    bare, ours = [], []
    for repeat in range(arguments.repeats):
        seconds, reference = timed(lambda: bare_loop(encoder, source, batch_size))
        bare.append(seconds)
        # A new source, so that its hash is paid for; a new folder, so that nothing is cached.
        fresh, cache = open_source(arguments), folder / str(repeat)
        seconds, table = timed(partial(embed_images, encoder, fresh, cache, batch_size=batch_size))
        ours.append(seconds)
        worst = float(np.abs(np.asarray(table.vectors, dtype=np.float32) - reference).max())
        print(
            f"run {repeat + 1}: bare {len(source) / bare[-1]:.1f}, embed_images {len(source) / seconds:.1f} pictures/s"
        )
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    hook = encoder.model.visual.register_forward_pre_hook(count)
    again, repeated = timed(lambda: embed_images(encoder, open_source(arguments), cache, batch_size=batch_size))
    hook.remove()
    return {
        "encoder": arguments.encoder,
        "pictures": len(source),
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "bare_pictures_per_s": round(len(source) / statistics.median(bare), 1),
        "embed_pictures_per_s": round(len(source) / statistics.median(ours), 1),
        "ratio_of_medians": round(statistics.median(bare) / statistics.median(ours), 3),
        "median_paired_ratio": round(statistics.median(b / o for b, o in zip(bare, ours)), 3),
        "paired_ratio_low": round(min(b / o for b, o in zip(bare, ours)), 3),
        "paired_ratio_high": round(max(b / o for b, o in zip(bare, ours)), 3),
        "largest_difference": worst,
        "second_call_s_with_opening_the_source": round(again, 3),
        "second_call_encoder_calls": calls,
        "second_call_bit_identical": digest(repeated) == digest(table),
    }


def kill_and_resume(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill an embedding process half-way, run the same command again, and compare with an undisturbed run."""
    command = [sys.executable, __file__, *sys.argv[1:], "--once", str(folder / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        while (
            not (shards := sorted((folder / "killed").rglob("rows-*.safetensors")))
            or len(shards) < arguments.kill_after
        ):
            if process.poll() is not None:
                raise SystemExit("the process ended before it could be killed: ask for fewer shards with --kill-after")
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {path: path.stat().st_mtime_ns for path in sorted((folder / "killed").rglob("rows-*.safetensors"))}
    resumed = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    fresh = json.loads(
        subprocess.run([*command[:-1], str(folder / "fresh")], check=True, stdout=subprocess.PIPE, text=True).stdout
    )
    return {
        "shards_kept_by_the_killed_run": len(kept),
        "exit_status_of_the_killed_run": process.returncode,
        "seconds_resumed": resumed["seconds"],
        "seconds_undisturbed": fresh["seconds"],
        "pictures_encoded_by_the_second_run": resumed["encoded"],
        "pictures": fresh["encoded"],
        "bit_identical": resumed["sha256"] == fresh["sha256"],
    }


def once(arguments: argparse.Namespace) -> dict[str, Any]:
    """Embed into one cache folder, counting the pictures that the model sees."""
    encoder = load_encoder(arguments.encoder, device=arguments.device)
    encoded = 0

    def count(_: Any, inputs: Any) -> None:
        nonlocal encoded
        encoded += len(inputs[0])

    encoder.model.visual.register_forward_pre_hook(count)
    seconds, table = timed(
        lambda: embed_images(encoder, open_source(arguments), arguments.once, batch_size=arguments.batch_size)
    )
    return {"seconds": round(seconds, 2), "encoded": encoded, "sha256": digest(table)}


def open_source(arguments: argparse.Namespace) -> Any:
    """All 6,000 pictures, train and test, or the first so many of each class."""
    return load_images(
        f"parquet:{arguments.data_dir / 'cifar10_subset' / '*.parquet'}", "all", max_images=arguments.max_images
    )


def main() -> None:
    """Run the benchmark and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with cifar10_subset/")
    parser.add_argument("--encoder", default="bundled")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--batch-size", type=int, help="default: the encoder's")
    parser.add_argument("--max-images", type=int, help="fewer than the 6,000 pictures, for a quick look")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--kill", action="store_true", help="kill -9 and resume instead of throughput")
    parser.add_argument("--kill-after", type=int, default=4, help="kill once so many shards are on disk")
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        print(json.dumps(once(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run = kill_and_resume if arguments.kill else throughput
        print(json.dumps(run(arguments, Path(folder)), indent=2))


if __name__ == "__main__":
    main()
