"""Do the names decide? Every tie on real CLIP ViT-B/32 embeddings, beside as many meaningless directions.

    python scripts/benchmark_names.py --data-dir DATA --seeds 3 --draws 2

DATA holds ``clip_vitb32/{caltech101,oxford_pets,oxford_flowers,dtd,concepts_objects}.npz``. Each model sees 16 images
a class (dtd: its whole ``val``, 24 a class) and all 1,608 object names, and decides by 5 concepts a class, at most 32
or 8 of
them active in an image; one training serves both budgets. Beside it stands the same recipe on directions drawn with
the concepts' mean and covariance (*own recipe*), and on the same directions with the cones that the concepts earned
(*equal freedom*; the same thing where all concepts are equally free). *Survival*: of the 20 test pictures with the
highest score of a concept, the share among the 20 highest of its unit, mean over concepts used in a decision.
Everything was chosen on validation splits. Results go to ``--out`` after every fit: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm._base.files import read_json, write_json

DATA_SETS = {"caltech101": "train16", "oxford_pets": "train16", "oxford_flowers": "train16", "dtd": "val"}
SETTINGS: dict[str, dict[str, Any]] = {
    "earned": {},
    "earned, survival .9": {"min_survival": 0.9},
    "earned, weights >= 0": {"nonnegative_head": True},
    "free, .9985": {"tie": "free", "min_alignment": 0.9985},
    "shared": {"tie": "shared"},
    "exact": {"tie": "exact"},
    "free": {"tie": "free"},
}
BUDGETS = (32, 8)


def hits(model: Any, X: np.ndarray, y: np.ndarray) -> list[int]:
    """Numbers of the pictures that a model gets right."""
    return np.flatnonzero(np.asarray(model.predict(X)) == y).tolist()


def measure(train: Any, test: Any, concepts: np.ndarray, settings: dict[str, Any], seed: int, draws: int) -> dict:
    """Fit one model and its controls, and look at them on test."""
    from sparsecbm.estimators import SparseCBMClassifier
    from sparsecbm.evaluation import matched_directions, survival, used_in_decision

    X, y, X_test, y_test = train.vectors, train.labels, test.vectors, test.labels

    def fit(bank: np.ndarray, **given: Any) -> Any:
        options = {"max_active_concepts": BUDGETS[0], "concepts_per_class": 5, "verbose": False, "device": "cpu"}
        return SparseCBMClassifier(bank, random_state=seed, **options, **settings, **given).fit(X, y)

    start = time.process_time()
    model = fit(concepts)
    result: dict[str, Any] = {"seconds": time.process_time() - start, "n": len(y_test)}
    controls: dict[str, list[Any]] = {"own": [], "equal": []}
    for draw in range(draws):
        bank = matched_directions(concepts, np.random.default_rng([seed, draw]))
        own = fit(bank)
        controls["own"].append(own)
        controls["equal"].append(fit(bank, **model.freedoms()) if model.freedoms() else own)
    for budget in BUDGETS:
        decided = model.refit(X, y, max_active_concepts=budget)
        predicted = np.searchsorted(decided.classes_, decided.predict(X_test))
        used = used_in_decision(decided.transform(X_test), decided.head_weights_, predicted)
        units, scores = decided.units(X_test)[:, used.concepts], decided.concept_scores(X_test)[:, used.concepts]
        result[str(budget)] = {
            "right": hits(decided, X_test, y_test),
            "survival": survival(units, scores).mean,
            "used": used.mean,
            **{
                name: [hits(c.refit(X, y, max_active_concepts=budget), X_test, y_test) for c in fitted]
                for name, fitted in controls.items()
            },
        }
    return result


def right(numbers: list[int], n: int) -> np.ndarray:
    """1 for each picture that is right."""
    out = np.zeros(n)
    out[numbers] = 1.0
    return out


def advantage(runs: list[dict], budget: str, control: str) -> dict[str, float]:
    """Of one data set: all seeds against all draws, on the same pictures."""
    from sparsecbm.evaluation import paired_difference

    n = runs[0]["n"]
    ours = np.mean([right(run[budget]["right"], n) for run in runs], axis=0)
    return paired_difference(ours, [right(draw, n) for run in runs for draw in run[budget][control]])


def rows(results: dict[str, dict], settings: list[str], data_sets: list[str], seeds: int) -> list[dict[str, Any]]:
    """The table: a row for each setting and budget."""
    table = []
    for setting in settings:
        for budget in map(str, BUDGETS):
            runs = {d: [results[f"{d} | {setting} | {s}"] for s in range(seeds)] for d in data_sets}
            accuracy = {
                d: float(np.mean([len(run[budget]["right"]) / run["n"] for run in found])) for d, found in runs.items()
            }
            row: dict[str, Any] = {"setting": f"{setting}, at most {budget} active", "accuracy": accuracy}
            row["mean"] = float(np.mean(list(accuracy.values())))
            for control in ("own", "equal"):
                found = [advantage(runs[d], budget, control) for d in data_sets]
                # Data sets are independent: half-widths of the mean's interval add as squares.
                width = np.sqrt(sum(((f["high"] - f["low"]) / 2) ** 2 for f in found)) / len(found)
                difference = float(np.mean([f["difference"] for f in found]))
                row[control] = {"difference": difference, "low": difference - width, "high": difference + width}
                row[control]["sets"] = [f["difference"] for f in found]
            for key in ("survival", "used"):
                row[key] = float(np.mean([run[budget][key] for found in runs.values() for run in found]))
            row["seconds"] = {d: float(np.median([run["seconds"] for run in found])) for d, found in runs.items()}
            table.append(row)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=2, help="draws of the meaningless directions, a seed")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--sets", nargs="*", default=list(DATA_SETS), choices=list(DATA_SETS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark_names.json"))
    arguments = parser.parse_args()

    from sparsecbm._base.progress import ProgressBar
    from sparsecbm.embeddings import load_embeddings

    folder = arguments.data_dir / "clip_vitb32"
    with np.load(folder / "concepts_objects.npz", allow_pickle=False) as stored:
        concepts = stored["embeddings"].astype(np.float32)
    results: dict[str, dict] = read_json(arguments.out) if arguments.out.exists() else {}
    jobs = [(m, s, d) for m in arguments.settings for s in range(arguments.seeds) for d in arguments.sets]
    with ProgressBar("fitting", len(jobs)) as bar:
        for setting, seed, data_set in jobs:
            key = f"{data_set} | {setting} | {seed}"
            if key not in results or len(results[key]["32"]["own"]) != arguments.draws:
                train = load_embeddings(folder / f"{data_set}.npz", DATA_SETS[data_set])
                test = load_embeddings(folder / f"{data_set}.npz", "test")
                results[key] = measure(train, test, concepts, SETTINGS[setting], seed, arguments.draws)
                write_json(arguments.out, results)
            bar.update(1, note=key)

    names = " | ".join(arguments.sets)
    print(f"| | {names} | mean | own recipe | equal freedom | survival | used | CPU seconds of fit |")
    print("|---" * (len(arguments.sets) + 7) + "|")
    for row in rows(results, arguments.settings, arguments.sets, arguments.seeds):
        gaps = [
            f"{100 * row[c]['difference']:+.1f} ({100 * row[c]['low']:+.1f} to {100 * row[c]['high']:+.1f})"
            for c in ("own", "equal")
        ]
        accuracies = " | ".join(f"{row['accuracy'][d]:.3f}" for d in arguments.sets)
        seconds = ", ".join(f"{value:.1f}" for value in row["seconds"].values())
        print(
            f"| {row['setting']} | {accuracies} | {row['mean']:.3f} | {gaps[0]} | {gaps[1]} | {row['survival']:.2f} "
            f"| {row['used']:.1f} | {seconds} |"
        )


if __name__ == "__main__":
    main()
