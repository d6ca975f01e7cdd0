#!/usr/bin/env python
"""Sparse decomposition of real embeddings, side by side with a loop over scikit-learn's Lasso in the same run.

    python scripts/benchmark_decompose.py --data-dir DATA                   # 10,000 embeddings, one thread
    python scripts/benchmark_decompose.py --data-dir DATA --images 2000 --alphas 0.2 0.125 0.05 --max-concepts 8 16 32

DATA holds a folder ``clip_vitb32`` with ``imagenet.npz``, ``caltech101.npz``, ... (``SPLIT_images``) and
``concepts_objects.npz`` (``names``, ``embeddings``). Both sides get the same centred unit rows and the same problem,

    minimise over w >= 0:   1/2 ||x - C'w||^2 + alpha sum_j w_j,

and both objectives are computed here from the codes alone.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

SOURCES = (
    ("imagenet", ("train4", "train1")),
    ("caltech101", ("test",)),
    ("oxford_pets", ("test",)),
    ("oxford_flowers", ("test",)),
    ("dtd", ("test",)),
)


def read_images(folder: Path, count: int):
    """First `count` embeddings of several data sets, unit rows, float64."""
    import numpy as np

    parts = []
    for name, splits in SOURCES:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as stored:
            parts += [stored[f"{split}_images"].astype(np.float64) for split in splits]
    rows = np.concatenate(parts)
    if len(rows) < count:
        sys.exit(f"only {len(rows)} embeddings in {folder}: ask for fewer with --images")
    rows = rows[:count]
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def main() -> None:
    """Run the comparison and print one line a setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.125])
    parser.add_argument("--max-concepts", type=int, nargs="*", default=[])
    parser.add_argument("--sklearn-images", type=int, help="run scikit-learn on the first so many only")
    parser.add_argument("--tol", type=float, default=1e-6, help="scikit-learn's tolerance")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="of ours; scikit-learn's spread is that of its fifths")
    parser.add_argument("--output", type=Path, help="also write the rows as JSON")
    arguments = parser.parse_args()
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[variable] = str(arguments.threads)

    import numpy as np
    import torch
    from sklearn.linear_model import Lasso

    from sparsecbm.estimators import SparseDecomposer

    torch.set_num_threads(arguments.threads)
    folder = arguments.data_dir / "clip_vitb32"
    X = read_images(folder, arguments.images)
    with np.load(folder / "concepts_objects.npz", allow_pickle=False) as stored:
        concepts, names = stored["embeddings"].astype(np.float32), [str(name) for name in stored["names"]]
    rows = []
    settings = [{"alpha": alpha} for alpha in arguments.alphas] + [{"max_concepts": k} for k in arguments.max_concepts]
    print(f"{len(X):,} embeddings, {len(names):,} concepts, {X.shape[1]} dimensions, {arguments.threads} thread(s)")
    for setting in settings:
        model = SparseDecomposer(concepts, names, verbose=False, **setting).fit(X)
        times = []
        for _ in range(arguments.repeats):
            start = time.perf_counter()
            found = model.decompose(X)
            times.append(time.perf_counter() - start)
        seconds = statistics.median(times)
        centred = X - model.image_mean_
        centred /= np.linalg.norm(centred, axis=1, keepdims=True)
        codes = found.codes.toarray()
        ours = objective(centred, model.dictionary_, codes, found.alpha)
        row = {
            **setting,
            "ms_per_image": 1e3 * seconds / len(X),
            "concepts_per_image": float(found.counts.mean()),
            "most_concepts": int(found.counts.max()),
            "cosine": float(found.cosine.mean()),
            "largest_gap": float(found.gap.max()),
        }
        count = len(X) if arguments.sklearn_images is None else min(arguments.sklearn_images, len(X))
        if count and "alpha" in setting:
            theirs = np.zeros((count, len(names)))
            marks = [time.perf_counter()]
            for i in range(count):
                lasso = Lasso(
                    alpha=setting["alpha"] / X.shape[1],
                    positive=True,
                    fit_intercept=False,
                    tol=arguments.tol,
                    max_iter=10_000,
                )
                theirs[i] = lasso.fit(model.dictionary_.T, centred[i]).coef_
                marks.append(time.perf_counter())
            loop = marks[-1] - marks[0]
            # A fifth of the pictures each, for the spread.
            fifths = [np.mean(part) for part in np.array_split(np.diff(marks), 5) if len(part)]
            difference = ours[:count] - objective(centred[:count], model.dictionary_, theirs, found.alpha[:count])
            row |= {
                "sklearn_images": count,
                "sklearn_ms_per_image": 1e3 * loop / count,
                "times_faster": (loop / count) / (seconds / len(X)),
                "times_faster_low": min(fifths) / (max(times) / len(X)),
                "times_faster_high": max(fifths) / (min(times) / len(X)),
                "objective_above_sklearn": float(difference.max()),
                "objective_below_sklearn": float(-difference.min()),
            }
        rows.append(row)
        print("  ".join(f"{key}={value:.4g}" for key, value in row.items()), flush=True)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(rows, indent=2) + "\n")


def objective(X, dictionary, codes, alpha):
    """Value of the lasso's objective, a row each."""
    residual = X - codes @ dictionary
    return 0.5 * (residual * residual).sum(axis=1) + alpha * codes.sum(axis=1)


if __name__ == "__main__":
    main()
