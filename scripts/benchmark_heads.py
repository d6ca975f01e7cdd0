#!/usr/bin/env python
"""Sparse heads on real embeddings: accuracy at a number of concepts per class, controls, and speed.

    python scripts/benchmark_heads.py --data-dir DATA                     # every method at NEC = 5 and 30
    python scripts/benchmark_heads.py --data-dir DATA --path              # the default: NEC 5..30 and ANEC
    python scripts/benchmark_heads.py --data-dir DATA --controls          # the control table
    python scripts/benchmark_heads.py --speed --shapes 5994x370x200       # side by side with the PyPI package glm_saga

DATA holds a folder ``clip_vitb32`` with ``caltech101.npz``, ``oxford_pets.npz``, ``oxford_flowers.npz``, ``dtd.npz``
(``SPLIT_images``, ``SPLIT_labels``, ``class_names``) and ``concepts_objects.npz`` (``names``, ``embeddings``).
Training rows are ``train16`` (dtd: ``val``), and everything is scored once on ``test``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

DATASETS = ("caltech101", "oxford_pets", "oxford_flowers", "dtd")
TRAIN_SPLIT = {"dtd": "val"}


def read(folder: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test embeddings (float64) with labels."""
    from sparsecbm.embeddings import load_embeddings

    parts: list[np.ndarray] = []
    for split in (TRAIN_SPLIT.get(name, "train16"), "test"):
        stored = load_embeddings(folder / f"{name}.npz", split)
        parts += [np.asarray(stored.vectors, dtype=np.float64), np.asarray(stored.labels)]
    return parts[0], parts[1], parts[2], parts[3]


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """Rows scaled to length one, float64."""
    vectors = np.asarray(vectors, dtype=np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def text_embeddings(folder: Path, name: str) -> np.ndarray:
    """Unit text embeddings of a vocabulary file."""
    with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
        return unit_rows(stored["embeddings"])


def standardised(X: np.ndarray, X_test: np.ndarray, concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Concept scores with training mean 0 and standard deviation 1."""
    scores, test = X @ concepts.T, X_test @ concepts.T
    mean, deviation = scores.mean(0), scores.std(0)
    return (scores - mean) / deviation, (test - mean) / deviation


def show(rows: list[dict], columns: list[str]) -> None:
    """Print rows as a table."""

    def text(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else "" if value is None else str(value)

    cells = [[text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    print("  ".join(c.ljust(w) for c, w in zip(columns, widths)))
    for line in cells:
        print("  ".join(value.ljust(w) for value, w in zip(line, widths)))


def compare(options: argparse.Namespace) -> list[dict]:
    """Every method on every set: test accuracy at each NEC."""
    from sparsecbm.heads import SparseHead

    concepts = text_embeddings(options.folder, "concepts_objects")
    rows = []
    for name in options.datasets:
        X, y, X_test, y_test = read(options.folder, name)
        A, A_test = standardised(X, X_test, concepts)
        for k in options.nec:
            for counting in options.counting:
                for method in options.methods:
                    start, cpu = time.perf_counter(), time.process_time()
                    head = SparseHead(k, counting=counting, method=method, l2=options.l2, random_state=0).fit(A, y)
                    rows.append({
                        "data": name, "nec": k, "counting": counting, "method": method,
                        "accuracy": float(head.score(A_test, y_test)), **head.nec_, "l2": head.l2_,
                        "objective": head.certificate_["objective"], "gap": f"{head.certificate_['relative_gap']:.0e}",
                        "seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu,
                    })  # fmt: skip
                    print(".", end="", file=sys.stderr, flush=True)
    for k in options.nec:
        for counting in options.counting:
            for method in options.methods:
                of = [r for r in rows if (r["nec"], r["counting"], r["method"]) == (k, counting, method)]
                rows.append({
                    "data": "MEAN", "nec": k, "counting": counting, "method": method,
                    "accuracy": statistics.mean(r["accuracy"] for r in of), "seconds": max(r["seconds"] for r in of),
                })  # fmt: skip
    print(file=sys.stderr)
    show(rows, ["data", "nec", "counting", "method", "accuracy", "average", "strict", "distinct", "l2", "objective",
                "gap", "seconds", "cpu_seconds"])  # fmt: skip
    return rows


def path(options: argparse.Namespace) -> list[dict]:
    """The default method's path and ANEC."""
    from sparsecbm.heads import SparseHead

    concepts = text_embeddings(options.folder, "concepts_objects")
    rows = []
    for name in options.datasets:
        X, y, X_test, y_test = read(options.folder, name)
        A, A_test = standardised(X, X_test, concepts)
        start = time.perf_counter()
        found = SparseHead(l2=options.l2, random_state=0).path(A, y, (5, 10, 15, 20, 25, 30), test=(A_test, y_test))
        seconds = time.perf_counter() - start
        rows += [{"data": name, **row} for row in found.table()]
        rows.append({"data": name, "nec": "ANEC", "accuracy": found.anec, "seconds": seconds})
    show(rows, ["data", "nec", "accuracy", "average", "strict", "distinct", "relative_gap", "seconds"])
    return rows


def control_table(options: argparse.Namespace) -> list[dict]:
    """The classifier beside its controls, on the same test images."""
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    from sparsecbm.evaluation import run_controls
    from sparsecbm.heads import SparseHead

    concepts = text_embeddings(options.folder, "concepts_objects")
    words = text_embeddings(options.folder, "text_imagenet_classes")
    rows = []
    for name in options.datasets:
        X, y, X_test, y_test = read(options.folder, name)

        def build(bank: np.ndarray, seed: int, k: int):
            scores = FunctionTransformer(lambda V: V @ bank.T)
            return make_pipeline(scores, StandardScaler(), SparseHead(k, l2=options.l2, random_state=seed))

        for k in options.nec:
            report = run_controls(
                lambda bank, seed, k=k, build=build: build(np.asarray(bank, dtype=np.float64), seed, k),
                X, y, X_test, y_test, concepts, random_word_embeddings=words, n_seeds=options.seeds,
            )  # fmt: skip
            rows += [{"data": name, "nec": k, **row} for row in report.table()]
    show(rows, ["data", "nec", "name", "n_concepts", "accuracy", "sd", "difference", "low", "high"])
    return rows


def correlated(n: int, m: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores that correlate as concept scores do: clustered embeddings of low rank times random unit concepts."""
    rng = np.random.default_rng(seed)
    dim = min(512, m)
    spectrum = np.arange(1, dim + 1) ** -0.7
    y = np.r_[np.arange(k), rng.integers(k, size=n - k)]
    X = (rng.normal(size=(k, dim)) * spectrum)[y] + 1.2 * rng.normal(size=(n, dim)) * spectrum
    A = X @ unit_rows(rng.normal(size=(m, dim))).T
    return ((A - A.mean(0)) / A.std(0)).astype(np.float32), y


def speed(options: argparse.Namespace) -> list[dict]:
    """One elastic-net point to equal objective: this package against glm_saga, medians of `--repeats`."""
    try:
        import torch
        from glm_saga.elasticnet import IndexedTensorDataset, train_saga
    except ImportError:
        sys.exit("--speed compares with glm_saga, which is not installed: pip install glm_saga")
    from sparsecbm.heads import SparseHead, l1_max, multinomial_logistic

    rows = []
    for shape in options.shapes:
        n, m, k = map(int, shape.split("x"))
        A, y = correlated(n, m, k)
        lam, alpha = options.lam * l1_max(A, y) / 0.99, 0.99
        l1, l2 = lam * alpha, lam * (1 - alpha)
        reference = multinomial_logistic(A, y, l1=l1, l2=l2, tol=1e-6).objective

        ours = []
        for _ in range(options.repeats):
            start = time.perf_counter()
            result = multinomial_logistic(A, y, l1=l1, l2=l2, tol=5e-5)
            ours.append(time.perf_counter() - start)
        assert result.objective <= reference * (1 + 1e-4)

        theirs, epochs, reached = [], 0, float("nan")
        tensor, labels = torch.from_numpy(A), torch.from_numpy(y)
        for repeat in range(options.repeats):
            loader = torch.utils.data.DataLoader(
                IndexedTensorDataset(tensor, labels), batch_size=256, shuffle=True,
                generator=torch.Generator().manual_seed(repeat),
            )  # fmt: skip
            linear = torch.nn.Linear(m, k)
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.zeros_(linear.bias)
            state, spent, epochs = None, 0.0, 0
            while spent < options.limit:
                start = time.perf_counter()
                state = train_saga(
                    linear, loader, options.lr, 1, lam, alpha, group=False, state=state, tol=0.0, n_ex=n, n_classes=k,
                    logger=lambda message: None,
                )  # fmt: skip
                spent += time.perf_counter() - start
                epochs += 1
                with torch.no_grad():
                    loss = torch.nn.functional.cross_entropy(linear(tensor).double(), labels)
                    weight = linear.weight.double()
                    reached = float(loss + l1 * weight.abs().sum() + 0.5 * l2 * (weight**2).sum())
                if reached <= reference * (1 + 1e-4):
                    break
            theirs.append(spent)
        start = time.perf_counter()
        head_path = SparseHead(l2=0.005).path(A, y, (5, 10, 15, 20, 25, 30)) if options.path else None
        row = {
            "shape": shape, "objective": reference, "relative_gap": f"{result.relative_gap:.0e}",
            "ours_s": statistics.median(ours), "glm_saga_s": statistics.median(theirs), "epochs": epochs,
            "glm_saga_excess": f"{reached / reference - 1:.0e}",
            "speedup": statistics.median(theirs) / statistics.median(ours),
        }  # fmt: skip
        if head_path is not None:
            row["nec_path_s"] = time.perf_counter() - start
        rows.append(row)
        show([row], list(row))
    return rows


def main() -> None:
    """Parse the command line and run."""
    from sparsecbm.heads import SELECTIONS

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data-dir", type=Path, default=os.environ.get("SPARSECBM_DATA_DIR"), help="folder of the data"
    )
    parser.add_argument("--datasets", nargs="+", choices=DATASETS, default=list(DATASETS))
    parser.add_argument("--methods", nargs="+", choices=list(SELECTIONS), default=list(SELECTIONS))
    parser.add_argument("--nec", nargs="+", type=int, default=None, help="default: 5 30 (controls: 5)")
    parser.add_argument("--counting", nargs="+", choices=["average", "strict"], default=["average"])
    parser.add_argument("--l2", default=0.005, type=lambda text: text if text == "auto" else float(text))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the controls' random concepts")
    parser.add_argument("--controls", action="store_true", help="the control table")
    parser.add_argument("--path", action="store_true", help="NEC 5..30 and ANEC; with --speed, time it as well")
    parser.add_argument("--speed", action="store_true", help="compare with glm_saga")
    parser.add_argument("--shapes", nargs="+", default=["5994x370x200"], help="N x M x K, as 5994x370x200")
    parser.add_argument("--lam", type=float, default=0.1, help="penalty, as a share of the largest useful one")
    parser.add_argument("--lr", type=float, default=0.1, help="glm_saga's step")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which one glm_saga run is given up")
    parser.add_argument("--json", type=Path, help="also write the rows here")
    options = parser.parse_args()
    if options.speed:
        rows = speed(options)
    else:
        if options.data_dir is None:
            parser.error("--data-dir is needed: the folder that holds clip_vitb32/ (or set SPARSECBM_DATA_DIR)")
        options.folder = Path(options.data_dir) / "clip_vitb32"
        if not options.folder.is_dir():
            parser.error(f"{str(options.folder)!r} does not exist: --data-dir must hold a folder clip_vitb32")
        options.nec = options.nec or ([5] if options.controls else [5, 30])
        rows = control_table(options) if options.controls else path(options) if options.path else compare(options)
    if options.json:
        from sparsecbm._files import write_json

        write_json(options.json, rows)


if __name__ == "__main__":
    main()
