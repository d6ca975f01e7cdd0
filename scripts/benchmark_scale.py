"""ImageNet's shape on one machine: a bottleneck and a head on memory-mapped embeddings, with time and memory.

    python scripts/benchmark_scale.py --work-dir SCRATCH --json scale.json --plot scale.png
    python scripts/benchmark_scale.py --work-dir SCRATCH --rows 3000 --classes 20 --concepts 150 --test-rows 500

The embeddings are synthetic, float16, and on disk: an image shows some of the concepts that its class has, a few
others, and noise. So accuracy means something: beside the model's stands that of the nearest class mean. One call of
`SparseCBMClassifier.fit` reads them, trains one epoch, and fits the head; `--sizes` are epochs on fewer rows, to see
how the time grows. Killed and started again, the same command goes on: files of the same parameters are used again,
the training resumes, and finished stages keep their times.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from scipy.sparse import csr_matrix

from sparsecbm._base.files import atomic_path, read_json, sha256_file, write_json
from sparsecbm.bottleneck import FrozenBottleneck, Trainer
from sparsecbm.estimators import SparseCBMClassifier
from sparsecbm.heads import SparseHead

CHUNK = 16384
OWN, OTHERS = 8, 5  # concepts that a class has, and that an image shows besides
SHOWN = 0.7  # probability that an image shows a concept of its class


# -- planted data ----------------------------------------------------------------------------------------------------


def plan(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Concept directions (M, d), the concepts (K, OWN) of each class and their strengths (K, OWN)."""
    rng = np.random.default_rng([arguments.seed, 0])
    concepts = rng.normal(size=(arguments.concepts, arguments.dim)).astype(np.float32)
    concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    # Some concepts belong to many classes, most to few.
    popularity = 1.0 / (np.arange(arguments.concepts) + 20.0) ** 0.5
    popularity /= popularity.sum()
    own = np.stack([rng.choice(arguments.concepts, OWN, replace=False, p=popularity) for _ in range(arguments.classes)])
    return concepts, own, rng.uniform(0.6, 1.4, size=own.shape).astype(np.float32)


def chunk(arguments: argparse.Namespace, part: int, number: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (rows, d), float16 unit rows, and labels (rows,) of a chunk of a part (1 training, 2 test)."""
    concepts, own, strength = plan(arguments)
    rng = np.random.default_rng([arguments.seed, part, number])
    labels = rng.integers(arguments.classes, size=rows)
    shown = strength[labels] * (rng.random((rows, OWN), dtype=np.float32) < SHOWN)
    shown *= rng.uniform(0.5, 1.5, size=shown.shape)
    others = rng.integers(arguments.concepts, size=(rows, OTHERS))
    columns = np.concatenate([own[labels], others], axis=1)
    values = np.concatenate([shown, rng.uniform(0.2, 0.8, size=others.shape)], axis=1).astype(np.float32)
    pointers = np.arange(rows + 1) * columns.shape[1]
    signal = csr_matrix((values.ravel(), columns.ravel(), pointers), (rows, arguments.concepts)) @ concepts
    noise = rng.standard_normal(size=(rows, arguments.dim), dtype=np.float32)
    vectors = signal + (arguments.noise / np.sqrt(arguments.dim)) * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float16), labels


def stored(arguments: argparse.Namespace, name: str, part: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, memory-mapped, and labels; made unless files of the same parameters and checksum are there."""
    names = ("seed", "concepts", "classes", "dim", "noise")
    wanted = {key: getattr(arguments, key) for key in names} | {"rows": rows, "part": part, "version": 1}
    path, described = arguments.work_dir / f"{name}.npy", arguments.work_dir / f"{name}.json"
    labels_path = arguments.work_dir / f"{name}_labels.npy"
    known = read_json(described) if described.is_file() else None
    if (
        known is None
        or known["parameters"] != wanted
        or known["sha256"] != sha256_file(path)
        or known["labels_sha256"] != sha256_file(labels_path)
    ):
        described.unlink(missing_ok=True)
        labels = np.empty(rows, np.int64)
        with atomic_path(path) as temporary:
            vectors = open_memmap(temporary, "w+", np.float16, (rows, arguments.dim))
            for number, start in enumerate(range(0, rows, CHUNK)):
                stop = min(start + CHUNK, rows)
                vectors[start:stop], labels[start:stop] = chunk(arguments, part, number, stop - start)
            vectors.flush()
            del vectors
        with labels_path.open("wb") as file:
            np.save(file, labels)
        checks = {"sha256": sha256_file(path), "labels_sha256": sha256_file(labels_path)}
        write_json(described, {"parameters": wanted, **checks})
    return np.load(path, mmap_mode="r"), np.load(labels_path)


# -- measuring -------------------------------------------------------------------------------------------------------


class Memory:
    """The most memory that the process held: all of it, and the part that is not a file's pages."""

    def __init__(self) -> None:
        self.anonymous = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Memory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        status = Path("/proc/self/status")
        while status.exists() and not self._stop.wait(0.1):
            for line in status.read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.anonymous = max(self.anonymous, int(line.split()[1]) * 1024)

    def figures(self) -> dict[str, float]:
        """Peaks in GB (10^9 bytes) so far."""
        unit = 1 if sys.platform == "darwin" else 1024
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        return {"peak_rss_gb": round(most / 1e9, 3), "peak_anonymous_gb": round(self.anonymous / 1e9, 3)}


def clocks() -> tuple[float, float]:
    """Clock and processor seconds."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> dict[str, float]:
    """Seconds since `clocks` gave `start`."""
    wall, cpu = clocks()
    return {"wall_s": round(wall - start[0], 2), "cpu_s": round(cpu - start[1], 2)}


@contextlib.contextmanager
def timed(
    seconds: dict[str, dict[str, float]],
    calls: dict[str, tuple[Any, str]],
    ended: Callable[[str], None] = lambda name: None,
) -> Iterator[None]:
    """Keep the seconds of methods, given as name: (class, method); `ended` is told the name of each that is over.

    Seconds are those of the clock and of the processor: on a machine that others use too, the second tell more.
    """
    originals = {name: getattr(owner, method) for name, (owner, method) in calls.items()}

    def wrap(name: str, original: Any) -> Any:
        def method(*args: Any, **options: Any) -> Any:
            start = clocks()
            result = original(*args, **options)
            seconds[name] = since(start)
            ended(name)
            return result

        return method

    for name, (owner, method) in calls.items():
        setattr(owner, method, wrap(name, originals[name]))
    try:
        yield
    finally:
        for name, (owner, method) in calls.items():
            setattr(owner, method, originals[name])


class Results:
    """Figures of finished stages, kept in a file."""

    def __init__(self, path: Path, parameters: dict[str, Any]) -> None:
        self.path = path
        known = read_json(path) if path.is_file() else {}
        self.values: dict[str, Any] = known if known.get("parameters") == parameters else {"parameters": parameters}

    def keep(self, name: str, value: Any) -> None:
        """Add a stage's figures."""
        self.values[name] = value
        write_json(self.path, self.values)
        print(name, json.dumps(value), flush=True)


# -- stages ----------------------------------------------------------------------------------------------------------


def classifier(arguments: argparse.Namespace, rows: int, head: bool) -> SparseCBMClassifier:
    """One epoch on so many rows."""
    return SparseCBMClassifier(
        plan(arguments)[0],
        loss=arguments.loss,
        max_active_concepts=arguments.active,
        concepts_per_class=arguments.nec if head else None,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
        max_iter=arguments.epochs * -(-rows // min(arguments.batch_size, rows)),
        device=arguments.device,
        random_state=arguments.seed,
        verbose=False,
    )


def trained(
    arguments: argparse.Namespace, X: np.ndarray, y: np.ndarray, results: Results | None, *, head: bool
) -> tuple[SparseCBMClassifier, dict[str, dict[str, float]]]:
    """Fit on these rows, and the figures of the stages; with `results`, keep these and checkpoints."""
    seconds: dict[str, dict[str, float]] = {}
    stages = {
        "training": (Trainer, "fit"),
        "activations": (FrozenBottleneck, "sparse_activations"),
        "head": (SparseHead, "fit"),
    }
    folder = None if results is None else arguments.work_dir / "checkpoint"
    resumed = folder is not None and folder.exists()
    start = clocks()

    def ended(stage: str) -> None:
        print(stage, "took", json.dumps(seconds[stage]), flush=True)
        if stage == "training":
            seconds["statistics"] = {
                name: round(value - seconds[stage][name], 2) for name, value in since(start).items()
            }  # fmt: skip
            seconds[stage]["resumed"] = resumed
        if results is not None:
            known = results.values.get("seconds", {})
            # What an interrupted training still had to do is not what it takes.
            early = ("training", "statistics") if resumed and "training" in known else ()
            results.keep("seconds", known | {name: took for name, took in seconds.items() if name not in early})

    with timed(seconds, stages, ended):
        model = classifier(arguments, len(X), head=head).fit(X, y, checkpoint_dir=folder)
    return model, seconds


def keep_epoch(results: Results, rows: int, training: dict[str, float], epochs: int) -> None:
    """Keep what an epoch of so many rows takes."""
    figures = {name: round(training[name] / epochs, 2) for name in ("wall_s", "cpu_s")}
    results.keep("epochs", results.values.get("epochs", {}) | {str(rows): figures})


def whole(arguments: argparse.Namespace, X: np.ndarray, y: np.ndarray, results: Results) -> None:
    """Train on all rows, fit the head, keep the model."""
    model, _ = trained(arguments, X, y, results, head=True)
    model.save(arguments.work_dir / "model")
    results.keep(
        "model",
        {
            "nec": np.count_nonzero(model.head_weights_) / len(model.classes_),
            "most_in_a_class": int(np.count_nonzero(model.head_weights_, axis=1).max()),
            "certificate": {name: float(value) for name, value in model.certificate_.items()},
        },
    )


def score(arguments: argparse.Namespace, X: np.ndarray, y: np.ndarray, results: Results) -> None:
    """Accuracy on held-out rows, beside the nearest class mean of the training rows; active concepts."""
    X_test, y_test = stored(arguments, "test", 2, arguments.test_rows)
    model = SparseCBMClassifier.load(arguments.work_dir / "model")
    start = time.perf_counter()
    accuracy = float((model.predict(X_test) == y_test).mean())
    took = time.perf_counter() - start
    active = [
        np.count_nonzero(model.transform(X_test[start : start + CHUNK]), axis=1)
        for start in range(0, len(X_test), CHUNK)
    ]
    active = np.concatenate(active)
    means = np.zeros((arguments.classes, arguments.dim))
    for start in range(0, len(X), CHUNK):
        np.add.at(means, y[start : start + CHUNK], X[start : start + CHUNK].astype(np.float32))
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    nearest = float(((X_test.astype(np.float32) @ means.T).argmax(1) == y_test).mean())
    results.keep(
        "held_out",
        {
            "rows": len(y_test),
            "accuracy": round(accuracy, 4),
            "nearest_class_mean": round(nearest, 4),
            "active_mean": round(float(active.mean()), 2),
            "active_most": int(active.max()),
            "predict_s": round(took, 1),
        },
    )


def growth(rows: list[int], seconds: list[float]) -> float:
    """Slope of log seconds over log rows: 1 is linear."""
    return float(np.polyfit(np.log(rows), np.log(seconds), 1)[0])


def draw(path: Path, values: dict[str, Any]) -> None:
    """Epoch time over rows on logarithmic axes with a linear guide."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points = sorted((int(name), entry["cpu_s"]) for name, entry in values["epochs"].items())
    rows, seconds = map(np.array, zip(*points))
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    guide = np.array([rows[0], rows[-1]], dtype=float)
    axes.loglog(guide, seconds[-1] * guide / rows[-1], "--", color="0.6", label="slope 1 through the last point")
    axes.loglog(
        rows,
        seconds,
        "o-",
        color="#1f6fb2",
        label=f"one epoch: slope {values['growth']:.2f}" if "growth" in values else "one epoch",
    )
    for x, y in points:
        text = f"{y:.3g} s" if y < 120 else f"{y / 60:.1f} min"
        last = (x, y) == points[-1]
        place = {"xytext": (-8, 2), "ha": "right"} if last else {"xytext": (8, -11)}
        axes.annotate(text, (x, y), textcoords="offset points", fontsize=9, **place)
    axes.set_xlabel("rows (float16, memory-mapped)")
    axes.set_ylabel("processor seconds an epoch")
    parameters = values["parameters"]
    title = f"{parameters['dim']}-d embeddings, {parameters['concepts']:,} concepts, {parameters['classes']:,} classes"
    if "memory" in values and "model" in values:
        memory, head = values["memory"]["peak_rss_gb"], values["seconds"]["head"]["cpu_s"]
        title += f"\nhead with NEC = {parameters['nec']}: {head / 60:.1f} min; peak memory {memory:.1f} GB"
    axes.set_title(title, fontsize=10)
    axes.margins(x=0.2, y=0.1)
    axes.grid(True, which="both", linewidth=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Measure, keep the figures as JSON, draw; return the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work-dir", type=Path, required=True, help="scratch folder; about 1.6 GB at the full size")
    parser.add_argument("--rows", type=int, default=1_281_167)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--concepts", type=int, default=4500)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--test-rows", type=int, default=50_000)
    parser.add_argument(
        "--noise", type=float, default=6.0, help="length of the noise; that of the planted part is about 3"
    )
    parser.add_argument("--active", type=int, default=32, help="max_active_concepts")
    parser.add_argument("--nec", type=int, default=5)
    parser.add_argument("--loss", default="gumbel")
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 30_000, 100_000, 300_000])
    parser.add_argument(
        "--stages", nargs="*", default=["sizes", "whole", "score"], help="sizes, whole, score; train: without the head"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args(argv)
    arguments.work_dir.mkdir(parents=True, exist_ok=True)
    omitted = ("work_dir", "json", "plot", "stages", "sizes")
    parameters = {key: value for key, value in vars(arguments).items() if key not in omitted}
    parameters["threads"] = torch.get_num_threads()
    results = Results(arguments.work_dir / "figures.json", parameters)
    with Memory() as memory:
        X, y = stored(arguments, "train", 1, arguments.rows)
        if "sizes" in arguments.stages:
            for size in arguments.sizes:
                if size < arguments.rows and str(size) not in results.values.get("epochs", {}):
                    _, figures = trained(arguments, X[:size], y[:size], None, head=False)
                    keep_epoch(results, size, figures["training"], arguments.epochs)
        if "train" in arguments.stages:
            trained(arguments, X, y, results, head=False)
        if "whole" in arguments.stages and "model" not in results.values:
            whole(arguments, X, y, results)
        if "seconds" in results.values:
            keep_epoch(results, arguments.rows, results.values["seconds"]["training"], arguments.epochs)
        if "score" in arguments.stages and "held_out" not in results.values:
            score(arguments, X, y, results)
        before = results.values.get("memory", {})
        peaks = memory.figures()
        results.keep("memory", {name: max(value, before.get(name, 0.0)) for name, value in peaks.items()})
    epochs = results.values.get("epochs", {})
    if len(epochs) > 1:
        rows = sorted(map(int, epochs))
        results.keep("growth", round(growth(rows, [epochs[str(n)]["cpu_s"] for n in rows]), 3))
    if arguments.json:
        write_json(arguments.json, results.values)
    if arguments.plot and epochs:
        draw(arguments.plot, results.values)
    return results.values


if __name__ == "__main__":
    main()
