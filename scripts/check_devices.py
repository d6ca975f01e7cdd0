"""Does an accelerator give what the CPU gives, and is it used well? A table; a row that cannot run says why.

Run: python scripts/check_devices.py [--device cuda:1] [--json table.json]; `pytest -m gpu` asserts the same rows.
Random draws differ between devices (each has a generator of its own), so what is trained is compared by accuracy, and
what is fixed by its numbers. `--device cpu` runs every row of the CPU against itself.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparsecbm import SparseCBMClassifier, load_encoder, load_images
from sparsecbm._base.devices import resolve_device
from sparsecbm._base.errors import InputError

PICTURES = 256


class Row(NamedTuple):
    """One finding: the value, how large it may be (None: no claim), or why there is none."""

    name: str
    value: float | None
    limit: float | None
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it ran and is within its limit, or makes no claim."""
        return self.value is None or self.limit is None or self.value <= self.limit


def _problem(n: int = 2000, d: int = 64, m: int = 200, k: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % k
    X = (rng.normal(size=(k, d))[y] + rng.normal(size=(n, d))).astype(np.float32)
    return rng.normal(size=(m, d)), X, y


def _synchronise(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def _seconds(job: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    took = []
    for _ in range(repeats + 1):  # the first warms up
        _synchronise(device)
        start = time.perf_counter()
        job()
        _synchronise(device)
        took.append(time.perf_counter() - start)
    return min(took[1:])


def encoders(device: torch.device) -> list[Row]:
    """The bundled encoder in each precision against float32 on the CPU: 1 - cosine at worst."""
    images = load_images("birds", "test", max_images=32)
    exact = load_encoder("bundled", device="cpu", precision="float32").encode_images(images)
    rows = []
    for precision, limit in (("float32", 1e-5), ("bfloat16", 1e-3), ("float16", 1e-3)):
        try:
            made = load_encoder("bundled", device=str(device), precision=precision).encode_images(images)
        except InputError as error:
            rows.append(Row(f"encoder, {precision}: 1 - cosine", None, limit, str(error)))
            continue
        rows.append(Row(f"encoder, {precision}: 1 - cosine", float(1 - (made * exact).sum(1).min()), limit))
    return rows


def training(device: torch.device) -> list[Row]:
    """Training, head and inference: accuracy beside the CPU's, and the same stored model on both."""
    C, X, y = _problem()
    settings = {"max_active_concepts": 8, "concepts_per_class": 5, "max_iter": 200, "random_state": 0}
    there = SparseCBMClassifier(C, device=str(device), **settings).fit(X[:1500], y[:1500])
    here = SparseCBMClassifier(C, device="cpu", **settings).fit(X[:1500], y[:1500])
    gap = abs(there.score(X[1500:], y[1500:]) - here.score(X[1500:], y[1500:]))
    made = there.transform(X)
    chances = there.predict_proba(X)
    there.set_params(device="cpu")
    return [
        Row("training: accuracy away from the CPU's", float(gap), 0.03),
        Row("inference: activations away from the CPU's", float(np.abs(made - there.transform(X)).max()), 1e-5),
        Row("inference: probabilities away", float(np.abs(chances - there.predict_proba(X)).max()), 1e-5),
    ]


def samplers(device: torch.device) -> list[Row]:
    """Draws on the device against what they should be: standard errors away, at most over 64 variables."""
    if device.type == "mps":
        return [Row("samplers", None, None, "MPS has no float64, which the checks sum in")]
    from sparsecbm.samplers import noise
    from sparsecbm.samplers.concrete import BinaryConcrete

    generator = torch.Generator(device=device).manual_seed(0)
    n = 50_000
    logits = torch.linspace(-3, 3, 64, device=device)
    hard = BinaryConcrete(0.5, logits=logits).rsample((n,), generator=generator).ge(0).double().mean(0)
    p = torch.sigmoid(logits.double())
    concrete = ((hard - p).abs() / (p * (1 - p) / n).sqrt()).max()
    drawn = noise.gumbel((n, 64), generator=generator, device=device).double()
    gumbel = ((drawn.mean(0) - 0.5772156649).abs() / (1.6449340668 / n) ** 0.5).max()
    return [
        Row("binary Concrete: shares, standard errors", float(concrete), 5.0),
        Row("Gumbel noise: means, standard errors", float(gumbel), 5.0),
    ]


def vae(device: torch.device) -> list[Row]:
    """The same VAE's masses on both, and a short training beside the CPU's."""
    if device.type == "mps":
        return [Row("VAE", None, None, "MPS has no float64, which log-likelihoods are summed in")]
    from sparsecbm.vae import (
        DensityTask,
        DiscreteVAE,
        Trainer,
        TrainingOptions,
        load_pictures,
        make_negative_phase,
        make_objective,
    )

    pictures = load_pictures("digits", max_train=500)
    ends = []
    for where in ("cpu", str(device)):
        seed = torch.Generator().manual_seed(0)
        model = DiscreteVAE(64, groups=(8, 8), prior="rbm", pixel_means=pictures.pixel_means, generator=seed)
        negative = make_negative_phase("persistent", model.prior.rbm, seed=0)
        task = DensityTask(model, make_objective("mass", samples=5), negative)
        trainer = Trainer(task, TrainingOptions(epochs=5), seed=0, device=where, progress=False)
        history = trainer.fit({"x": pictures.train})
        ends.append(float(history[-1]["bound"]))
    return [Row("VAE: bound after training, relative to the CPU's", abs(ends[1] - ends[0]) / abs(ends[0]), 0.03)]


def throughput(device: torch.device) -> list[Row]:
    """Pictures a second and memory, beside a bare loop: pinned memory, channels-last, torch.compile; no claims."""
    images = load_images("birds", "train", max_images=PICTURES)
    encoder = load_encoder("bundled", device=str(device))
    held = [images[i] for i in range(len(images))]
    pixels = torch.cat([encoder._image_inputs(held[i : i + 64])["image"] for i in range(0, len(held), 64)])

    def bare(model: Callable[[torch.Tensor], torch.Tensor], channels_last: bool) -> Callable[[], None]:
        batch = pixels.to(memory_format=torch.channels_last) if channels_last else pixels
        batch = batch.pin_memory() if device.type == "cuda" else batch

        def loop() -> None:
            with torch.inference_mode():
                for part in batch.split(64):
                    model(part.to(device, non_blocking=True)).cpu()

        return loop

    def tower(x: torch.Tensor) -> torch.Tensor:
        return encoder._image_features({"image": x})

    took = _seconds(lambda: encoder.encode_images(held), device)
    rows = [Row("encode_images: pictures a second", PICTURES / took, None)]
    for name, channels_last, compiled in (
        ("bare loop", False, False), ("bare loop, channels-last", True, False),
        ("bare loop, torch.compile", False, True),
    ):  # fmt: skip
        if compiled and device.type == "cpu":
            rows.append(Row(f"{name}: pictures a second", None, None, "compiled on accelerators only"))
            continue
        job = bare(torch.compile(tower) if compiled else tower, channels_last)
        rows.append(Row(f"{name}: pictures a second", PICTURES / _seconds(job, device), None))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        encoder.encode_images(held)
        most = torch.cuda.max_memory_allocated(device) / 2**20
        rows.append(Row("encode_images: MiB on the device at most", most, None))
    return rows


_WORKER = """
import json, sys
sys.path.insert(0, sys.argv[2])
from check_devices import _problem
from sparsecbm import SparseCBMClassifier
C, X, y = _problem()
model = SparseCBMClassifier(
    C, loss="none", max_active_concepts=8, max_iter=50, input_noise=0.0, gate="top_k", random_state=0)
model.fit(X, y)
from accelerate import PartialState
if PartialState().is_main_process:
    json.dump([entry["loss"] for entry in model.history_], open(sys.argv[1], "w"))
"""


def several(device: torch.device) -> list[Row]:
    """One process and as many as there are GPUs, the same batches: losses, relative."""
    name = "1 and N GPUs: losses away from each other, relative"
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    if count < 2:
        return [Row(name, None, 1e-3, f"needs two GPUs: here are {count}")]
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        found = []
        for world in (1, count):
            path = Path(folder) / f"{world}.json"
            base = os.environ | {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            command = [sys.executable, "-c", _WORKER, str(path), str(Path(__file__).parent)]
            ranks = [{"RANK": str(i), "LOCAL_RANK": str(i)} if world > 1 else {} for i in range(world)]
            started = [subprocess.Popen(command, env=base | rank) for rank in ranks]
            if any(process.wait(600) for process in started):
                return [Row(name, None, 1e-3, f"{world} processes did not end well")]
            found.append(np.array(json.loads(path.read_text())))
    return [Row(name, float(np.abs(found[1] / found[0] - 1).max()), 1e-3)]


CHECKS = (encoders, training, samplers, vae, several, throughput)


def accelerator() -> torch.device | None:
    """The accelerator of this machine, or None."""
    found = resolve_device("auto")
    return None if found.type == "cpu" else found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", help="cuda, cuda:1, mps; by default the accelerator of this machine")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    device = resolve_device(given.device) if given.device else accelerator()
    if device is None:
        print("skipped: this machine has no accelerator that PyTorch can use (--device cpu runs the rows on the CPU)")
        return
    rows = [row for check in CHECKS for row in check(device)]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    print(f"{name}, torch {torch.__version__}\n\n| | value | at most | |\n|---|---|---|---|")
    for row in rows:
        value = "skipped" if row.value is None else f"{row.value:.3g}"
        limit = "" if row.limit is None else f"{row.limit:g}"
        print(f"| {row.name} | {value} | {limit} | {row.note or ('' if row.holds else '**too far**')} |")
    if given.json:
        given.json.write_text(json.dumps([row._asdict() for row in rows], indent=1))
    sys.exit(0 if all(row.holds for row in rows) else 1)


if __name__ == "__main__":
    main()
