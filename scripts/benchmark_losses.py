"""Every concept loss on real CLIP ViT-B/32 embeddings: accuracy, sparsity, alignment and time.

    python scripts/benchmark_losses.py --data-dir DATA

DATA holds ``clip_vitb32/{caltech101,oxford_pets,oxford_flowers,dtd,concepts_objects}.npz``. Each model sees 16 images
a class (dtd has no such split: its whole ``val``, 24 a class, as its source advises) and all 1,608 object names as
concepts. Nothing is chosen on test: one set of defaults serves all data sets. Results go to a table, and to ``--out``
as JSON after every fit, so that a stopped run continues where it was.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from sparsecbm._base.files import read_json, write_json

DATA_SETS = {"caltech101": "train16", "oxford_pets": "train16", "oxford_flowers": "train16", "dtd": "val"}
METHODS: dict[str, dict[str, object]] = {
    "gumbel, at most 32": {"loss": "gumbel", "max_active_concepts": 32},
    "gumbel": {"loss": "gumbel"},
    "contrastive, at most 32": {"loss": "contrastive", "max_active_concepts": 32},
    "contrastive": {"loss": "contrastive"},
    "l1": {"loss": "l1"},
    "similarity": {"loss": "similarity"},
    "none": {"loss": "none"},
    "gumbel, published": {"loss": "gumbel", "variant": "published", "learning_rate": 1e-3},
    "contrastive, published": {"loss": "contrastive", "variant": "published", "learning_rate": 1e-3},
    "l1, published": {"loss": "l1", "variant": "published", "learning_rate": 1e-3},
    "similarity, published": {"loss": "similarity", "variant": "published", "learning_rate": 1e-3},
    "none, published": {"loss": "none", "variant": "published", "learning_rate": 1e-3},
}
COLUMNS = ("accuracy", "active", "max active", "exact zeros", "NEC", "alignment", "seconds")


def measure(X, y, X_test, y_test, concepts, names, parameters: dict, seed: int) -> dict[str, float]:
    """Fit one model and look at it on test."""
    from sparsecbm.estimators import SparseCBMClassifier
    from sparsecbm.evaluation import active_concepts, name_alignment
    from sparsecbm.heads import nec

    model = SparseCBMClassifier(concepts, names, random_state=seed, verbose=False, **parameters)
    start = time.perf_counter()
    model.fit(X, y)
    seconds = time.perf_counter() - start
    active = active_concepts(model.transform(X_test))
    return {
        "accuracy": float(model.score(X_test, y_test)),
        "active": float(active["mean"]),
        "max active": float(active["max"]),
        "exact zeros": float(active["zero_share"]),
        "NEC": float(nec(model.head_weights_)),
        "alignment": float(name_alignment(model.units(X_test), model.concept_scores(X_test)).mean),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--data-sets", nargs="*", default=list(DATA_SETS), choices=list(DATA_SETS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_losses.json"))
    arguments = parser.parse_args()

    from rich.console import Console
    from rich.table import Table

    from sparsecbm._base.progress import ProgressBar
    from sparsecbm.embeddings import load_embeddings
    from sparsecbm.estimators import LinearProbe

    folder = arguments.data_dir / "clip_vitb32"
    with np.load(folder / "concepts_objects.npz", allow_pickle=False) as stored:
        concepts, names = stored["embeddings"].astype(np.float32), stored["names"].tolist()
    results: dict[str, dict] = read_json(arguments.out) if arguments.out.exists() else {}
    jobs = [(d, m, s) for s in range(arguments.seeds) for d in arguments.data_sets for m in arguments.methods]
    with ProgressBar("fitting", len(jobs)) as bar:
        for data_set, method, seed in jobs:
            key = f"{data_set} | {method} | {seed}"
            train = load_embeddings(folder / f"{data_set}.npz", DATA_SETS[data_set])
            test = load_embeddings(folder / f"{data_set}.npz", "test")
            if f"{data_set} | probe" not in results:
                probe = LinearProbe().fit(train.vectors, train.labels)
                results[f"{data_set} | probe"] = float(probe.score(test.vectors, test.labels))
            if key not in results:
                results[key] = measure(
                    train.vectors, train.labels, test.vectors, test.labels, concepts, names, METHODS[method], seed
                )
                write_json(arguments.out, results)
            bar.update(1, note=key)

    console = Console(width=150)
    for data_set in (*arguments.data_sets, "mean"):
        sets = arguments.data_sets if data_set == "mean" else [data_set]
        probe = np.mean([results[f"{d} | probe"] for d in sets])
        table = Table(title=f"{data_set}: mean (sd) of {arguments.seeds} seeds; linear probe {probe:.3f}")
        table.add_column("loss")
        for column in COLUMNS:
            table.add_column(column, justify="right")
        for method in arguments.methods:
            cells = []
            for column in COLUMNS:
                runs = np.array(
                    [[results[f"{d} | {method} | {s}"][column] for s in range(arguments.seeds)] for d in sets]
                )
                per_seed = runs.mean(axis=0)
                digits = 3 if column in ("accuracy", "exact zeros", "alignment") else 1
                if column == "max active":
                    cells.append(f"{runs.max():.0f}")
                elif column == "seconds":
                    cells.append(f"{per_seed.mean():.1f} (max {runs.max():.1f})")
                else:
                    spread = per_seed.std(ddof=1) if arguments.seeds > 1 else 0.0
                    cells.append(f"{per_seed.mean():.{digits}f} ({spread:.{digits}f})")
            table.add_row(method, *cells)
        console.print(table)


if __name__ == "__main__":
    main()
