"""Published methods under one protocol on real photo embeddings, and Label-free's head beside glm_saga.

    python scripts/benchmark_methods.py --data-dir DATA --output OUT                      # four sets, NEC 5 and 30
    python scripts/benchmark_methods.py --data-dir DATA --output OUT --head oxford_pets   # needs: pip install glm_saga

DATA holds a folder ``clip_vitb32``, as `benchmark_heads.py` says. It calls `sparsecbm.runs.compare_run`; finished fits
are kept in OUT, and the same command, interrupted or with more seeds, goes on from there.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from benchmark_heads import DATASETS, TRAIN_SPLIT, read, saga


def compare(folder: Path, name: str, options: argparse.Namespace) -> dict:
    """Rows of a data set by (method, budget)."""
    from sparsecbm.config.reading import build_config
    from sparsecbm.runs import compare_run

    vectors = {
        "path": str(folder / f"{name}.npz"),
        "train": TRAIN_SPLIT.get(name, "train16"),
        "concepts": str(folder / "concepts_objects.npz"),
    }
    config = build_config({"name": name, "embeddings": vectors, "output": str(options.output / name)})
    found = compare_run(config, methods=options.methods, nec=options.nec, seeds=options.seeds)
    print(f"{name}: {found.seconds:.0f} s in this call", flush=True)
    return {(row["method"], row["nec"]): row for row in found.rows}


def table(found: dict[str, dict], budgets: list[int]) -> None:
    """Print accuracies a set, and means of the rest, for each budget."""
    for k in budgets:
        heads = ["method", *found, "mean", "advantage", "active", "survival", "CPU s", "MB"]
        print(f"\nNEC {k}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
        rows = []
        for method, asked in dict.fromkeys(key for of in found.values() for key in of if key[1] in (k, None)):
            parts = [of[method, asked] for of in found.values()]
            means = {key: np.mean([p[key] for p in parts]) for key in ("accuracy", "seconds", "megabytes")}
            rest = ["", "", ""]
            if asked is not None:
                worth, active, kept = (np.mean([p[key] for p in parts]) for key in ("advantage", "active", "survival"))
                rest = [f"{100 * worth:+.1f}", f"{active:.0f}", f"{kept:.2f}"]
            cells = [f"{p['accuracy']:.3f}" for p in parts] + [f"{means['accuracy']:.3f}", *rest]
            line = [method, *cells, f"{means['seconds']:.1f}", f"{means['megabytes']:.0f}"]
            rows.append((means["accuracy"], f"| {' | '.join(line)} |"))
        print("\n".join(line for _, line in sorted(rows, reverse=True)))


def head(folder: Path, name: str) -> None:
    """Label-free's elastic net on a set's standardised scores: this package's solver and glm_saga, same objective."""
    from sparsecbm.estimators.methods import LabelFreeCBM
    from sparsecbm.estimators.methods.base import ALPHA
    from sparsecbm.heads import multinomial_logistic

    X, labels, _, _ = read(folder, name)
    with np.load(folder / "concepts_objects.npz") as stored:
        concepts = stored["embeddings"].astype(np.float64)
    model = LabelFreeCBM(concepts, concepts_per_class=1).fit(X, labels)
    A, lam = model.transform(X).astype(np.float32), model.lam
    for l1 in (lam * ALPHA, 10 * lam * ALPHA):
        l2 = l1 * (1 - ALPHA) / ALPHA
        best = multinomial_logistic(A, labels, l1=l1, l2=l2, tol=1e-6)
        start = time.perf_counter()
        ours = multinomial_logistic(A, labels, l1=l1, l2=l2, tol=1e-3)
        seconds = time.perf_counter() - start
        goal = best.objective * (1 + 1e-3)
        theirs = saga(A, labels, l1, l2, goal, [0.3, 0.1, 0.03, 0.01], max(60.0, 20 * seconds), seed=0)
        least = "" if theirs["reached"] else "> "
        print(
            f"{name} {A.shape} lam {l1 / ALPHA:.2g}: ours {seconds:.2f} s, {ours.objective / best.objective - 1:.1e} "
            f"above the best; glm_saga {theirs['seconds']:.1f} s, {theirs['objective'] / best.objective - 1:.1e} "
            f"above it; ratio {least}{theirs['seconds'] / seconds:.1f}",
            flush=True,
        )


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path("runs/methods"))
    parser.add_argument("--sets", nargs="+", default=list(DATASETS), choices=DATASETS)
    parser.add_argument("--methods", nargs="+", help="by default all")
    parser.add_argument("--nec", type=int, nargs="+", default=[5, 30])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--head", metavar="SET", choices=DATASETS, help="only: the head beside glm_saga")
    options = parser.parse_args()
    folder = options.data_dir / "clip_vitb32"
    if options.head:
        head(folder, options.head)
        return
    table({name: compare(folder, name, options) for name in options.sets}, options.nec)


if __name__ == "__main__":
    main()
