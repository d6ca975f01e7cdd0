"""Measure interventions: speed of edits, true values for a weakened model, and a planted spurious cue.

Painted birds and the bundled encoder: no network, no data.

Run: python scripts/benchmark_interventions.py --output interventions.png --json interventions.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from sparsecbm import SparseCBMClassifier, embed_images, embed_texts, load_encoder, load_images
from sparsecbm.data import birds
from sparsecbm.explain import explain
from sparsecbm.explain.cues import find_cues
from sparsecbm.explain.interventions import (
    ConceptTruth,
    Interventions,
    ModelEdits,
    concept_uncertainty,
    counterfactual,
    intervention_curve,
)

NAMES = list(birds.ATTRIBUTE_NAMES)


def speed() -> dict:
    """Time 10,000 single-concept edits, one after the other, on models of two sizes, and their undoing."""
    rng = np.random.default_rng(0)
    made = {}
    for n, m, k in ((1000, 31, 20), (1000, 1608, 100)):
        activations = np.maximum(rng.normal(size=(n, m)), 0)
        weights, bias = rng.normal(size=(k, m)), np.zeros(k)
        ledgers = explain(activations, weights, bias, [f"c{j}" for j in range(m)], [f"k{c}" for c in range(k)])
        edits = Interventions(ledgers)
        script = zip(
            rng.integers(n, size=10_000).tolist(), rng.integers(m, size=10_000).tolist(), rng.normal(size=10_000)
        )
        start = time.perf_counter()
        for i, j, value in script:
            edits.set(i, j, value)
        seconds = time.perf_counter() - start
        error = float(np.abs(edits.scores - (edits.activations @ weights.T + bias)).max())
        start = time.perf_counter()
        edits.reset()
        undo = time.perf_counter() - start
        restored = np.array_equal(edits.scores, ledgers.scores) and np.array_equal(edits.activations, activations)
        start = time.perf_counter()
        sizes = [len(found) for i in range(200) if (found := counterfactual(ledgers, i, any_class=True)) is not None]
        each = (time.perf_counter() - start) / 200
        made[f"{n} images, {m} concepts, {k} classes"] = {
            "edits": 10_000,
            "seconds": seconds,
            "undo_seconds": undo,
            "undo_bit_for_bit": restored,
            "largest_error_of_scores": error,
            "counterfactual_milliseconds": 1000 * each,
            "counterfactual_mean_edits": float(np.mean(sizes)),
        }
    return made


class Bank:
    """The bundled encoder, its concept vectors, and embedded birds."""

    def __init__(self) -> None:
        self.encoder = load_encoder("bundled")
        self.concepts = np.asarray(embed_texts(self.encoder, birds.concept_phrases(), ("{}",)).vectors)

    def split(self, spec: str, name: str, n: int):
        images = load_images(spec, name, max_images=n)
        return images, np.asarray(embed_images(self.encoder, images).vectors)


def weakened(bank: Bank, noise: float, seeds: int) -> dict:
    """Set concepts of a weakened model to their true values, in three orders."""
    (train, X), (test, X_test) = bank.split("birds", "train", 2000), bank.split("birds", "test", 1000)
    orders: dict[str, list] = {"uncertainty": [], "random": [], "greedy": []}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        made = []
        for rows in (X, X_test):
            rows = rows + noise * rng.normal(size=rows.shape).astype(np.float32)
            made.append(rows / np.linalg.norm(rows, axis=1, keepdims=True))
        blurred, blurred_test = made
        model = SparseCBMClassifier(bank.concepts, NAMES, max_active_concepts=8, max_iter=200, random_state=seed)
        model.fit(blurred, train.labels)
        ledgers = model.explain(blurred_test)
        values = ConceptTruth.fit(model.transform(blurred), train.attributes).values(test.attributes)
        unsure = concept_uncertainty(model.units(blurred_test), model.units(blurred), train.attributes)
        for order, curves in orders.items():
            curves.append(intervention_curve(ledgers, test.labels, values, order=order, uncertainty=unsure, seed=seed))
    result = {"noise": noise, "seeds": seeds, "images": len(test.labels)}
    for order, curves in orders.items():
        accuracies = np.array([curve.accuracy for curve in curves])
        result[order] = {
            "accuracy": accuracies.mean(axis=0).tolist(),
            "sd": accuracies.std(axis=0, ddof=1 if seeds > 1 else 0).tolist(),
            "smallest_step": float(np.diff(accuracies, axis=1).min()),
            "area": float(accuracies.mean()),
        }
    below = np.array([u.accuracy - r.accuracy for u, r in zip(orders["uncertainty"], orders["random"])])
    result["uncertainty_minus_random"] = {"least": float(below.min()), "mean": float(below.mean())}
    return result


def planted(bank: Bank, seeds: int) -> list[dict]:
    """Tie the habitat to the species in training, untie it, find the cue on validation, judge on test."""
    groups = ("crown", "breast", "wings", "habitat")
    columns = [j for j, name in enumerate(NAMES) if any(name in birds.ATTRIBUTES[group] for group in groups)]
    (train, X), (tied, X_tied) = bank.split("birds:tied", "train", 2000), bank.split("birds:tied", "test", 1000)
    (looked, X_looked), (test, X_test) = (
        bank.split("birds:untied", "validation", 500),
        bank.split("birds:untied", "test", 1000),
    )
    made = []
    for seed in range(seeds):
        options = {"max_active_concepts": 4, "concepts_per_class": 3, "max_iter": 200, "min_alignment": 0.97}
        model = SparseCBMClassifier(bank.concepts[columns], [NAMES[j] for j in columns], random_state=seed, **options)
        model.fit(X, train.labels)
        report = find_cues(model.explain(X_looked), looked.labels, model.explain(X), train.labels)
        row = {"seed": seed, "found": report.found, "tied": float(model.score(X_tied, tied.labels))}
        edits = ModelEdits(model)
        if report.found:
            edits.suppress(report.found)
            row.update(edits.measure(X_test, test.labels, on="birds:untied test"))
        made.append(row)
    return made


def draw(curves: dict, cues: list[dict], path: Path) -> None:
    """Draw the curves beside the accuracies before and after."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.7, 1))
    for order, colour in (("greedy", "#9aa3a9"), ("uncertainty", "#1f7a72"), ("random", "#c2562c")):
        mean, sd = np.array(curves[order]["accuracy"]), np.array(curves[order]["sd"])
        left.plot(mean, color=colour, label=f"{order} order", linewidth=2)
        left.fill_between(range(len(mean)), mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
    left.set(xlabel="concepts set to their true value, per picture", ylabel="test accuracy")
    left.set_title(f"True values for a weakened model (embedding noise {curves['noise']})", loc="left", fontsize=11)
    left.legend(frameon=False, loc="lower right")
    bars = [("habitat\nas trained", "tied"), ("habitat\nat random", "before"), ("cue\nsuppressed", "after")]
    for place, (_, key) in enumerate(bars):
        values = np.array([row[key] for row in cues if key in row])
        right.bar(place, values.mean(), color=["#9aa3a9", "#c2562c", "#1f7a72"][place], width=0.62)
        right.errorbar(place, values.mean(), values.std(), color="black", capsize=3)
        right.text(place, values.mean() + 0.025, f"{values.mean():.1%}", ha="center")
    right.set_xticks(range(3), [label for label, _ in bars])
    right.set_ylim(0, 1.12)
    right.set_title("A planted cue, found and suppressed", loc="left", fontsize=11)
    for ax in (left, right):
        ax.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    """Run all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--noise", type=float, default=0.2, help="standard deviation a dimension, in the weakened model"
    )
    parser.add_argument("--output", type=Path, help="picture to draw")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    bank = Bank()
    result = {
        "speed": speed(),
        "weakened": weakened(bank, options.noise, options.seeds),
        "planted": planted(bank, options.seeds),
    }
    for size, row in result["speed"].items():
        print(f"{size}: " + ", ".join(f"{key} {value:.3g}" for key, value in row.items()))
    curves = result["weakened"]
    for order in ("uncertainty", "random", "greedy"):
        row = curves[order]
        shown = {k: round(row["accuracy"][k], 3) for k in (0, 1, 2, 4, 8, 16, 24, 31)}
        print(f"{order}: accuracy after k concepts {shown}, smallest step {row['smallest_step']:+.4f}")
    print("uncertainty minus random:", curves["uncertainty_minus_random"])
    for row in result["planted"]:
        print(row)
    if options.output:
        draw(curves, result["planted"], options.output)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
