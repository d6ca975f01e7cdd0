#!/usr/bin/env python
"""Concepts found in the data: what they recover, rebuild, are worth as concepts of a classifier, and cost.

    python scripts/benchmark_dictionary.py birds --first-seed 3 --seeds 3
    python scripts/benchmark_dictionary.py reconstruct --data-dir DATA --seeds 3 --out lines.jsonl --plot curve.png
    python scripts/benchmark_dictionary.py cbm --data-dir DATA --out lines.jsonl
    python scripts/benchmark_dictionary.py phrases --data-dir DATA
    python scripts/benchmark_dictionary.py epoch --rows 1280000

Every part writes a line of JSON a result; `reconstruct` and `cbm` leave out what the file of `--out` has already. DATA
holds a folder ``clip_vitb32`` (see scripts/README.md).
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm import SparseAutoencoder, SparseCBMClassifier, SparseDecomposer
from sparsecbm._base.directions import matched_directions
from sparsecbm._base.parts import DICTIONARIES
from sparsecbm._base.rows import unit_rows
from sparsecbm.dictionary.naming import name_units
from sparsecbm.dictionary.quality import matched_atoms, name_quality, pair_aucs

SETS = {"caltech101": "train16", "oxford_pets": "train16", "oxford_flowers": "train16", "dtd": "val"}
KINDS = ("top_k", "batch_top_k", "matryoshka", "concrete", "k_means", "nmf", "pca", "dictionary_learning", "random")


def say(**line: Any) -> None:
    print(
        json.dumps({key: float(f"{value:.4g}") if isinstance(value, float) else value for key, value in line.items()}),
        flush=True,
    )


def known(out: Path | None, **key: Any) -> dict[str, Any] | None:
    """The line of an earlier run that agrees with `key`."""
    lines = out.read_text().splitlines() if out is not None and out.exists() else []
    return next((line for line in map(json.loads, lines) if key.items() <= line.items()), None)


def keep(out: Path | None, **line: Any) -> None:
    """Say it, and write it down."""
    say(**line)
    if out is not None:
        with out.open("a") as stream:
            stream.write(json.dumps(line) + "\n")


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# -- painted birds -----------------------------------------------------------------------------------------------------


def paint(count: int, any_look: bool, encoder: Any, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and true attributes of birds of the twenty species, or of birds whose every group is drawn freely."""
    from sparsecbm.data import birds

    source = birds.BirdImages("train", n_images=count)
    if not any_look:
        truth, pictures = source.attributes, map(source.__getitem__, range(count))
    else:
        drawn = [birds.picture_rng(seed, "train", i) for i in range(count)]
        truth = np.stack([birds.look_to_attributes(birds.random_look(rng)) for rng in drawn])
        pictures = map(birds.paint, truth, drawn)
    rows = []
    for _ in range(0, count, 500):
        rows.append(encoder.encode_images(list(itertools.islice(pictures, 500))))
    return np.concatenate(rows), truth


def birds(args: argparse.Namespace) -> None:
    from sparsecbm import embed_texts, load_encoder
    from sparsecbm.data.birds import concept_phrases
    from sparsecbm.evaluation.words import random_words

    encoder = load_encoder("bundled")
    phrases = list(concept_phrases())
    for look, seed in itertools.product(args.looks, range(args.first_seed, args.first_seed + args.seeds)):
        others = list(random_words(500, np.random.default_rng(seed)))
        texts, noise = (embed_texts(encoder, words, cache="memory").vectors for words in (phrases, others))
        X, truth = paint(args.pictures, look == "any", encoder, seed)
        for kind in args.kinds:
            model = SparseAutoencoder(
                64, kind=kind, active=args.active, max_iter=args.max_iter, batch_size=256, random_state=seed,
                restarts=args.restarts, verbose=False,
            ).fit(X)  # fmt: skip
            codes = model.transform(X)
            units = (X - model.centre_) @ model.components_.T
            inside = name_units(model.components_, codes, X, phrases + others, np.concatenate([texts, noise]))
            without = name_units(model.components_, codes, X, others, noise)
            found: dict[str, Any] = {}
            for what, scores in (("codes", codes), ("scores", units)):
                table = np.stack([pair_aucs(np.repeat(scores[:, [j]], truth.shape[1], 1), truth) for j in range(64)])
                recovered = table.max(axis=0) >= 0.9
                best = table.argmax(axis=0)[recovered]
                found[f"recovered_by_{what}"] = int(recovered.sum())
                right = [inside.names[j] == phrases[a] for j, a in zip(best, np.flatnonzero(recovered))]
                found[f"named_right_{what}"] = float(np.mean(right)) if right else None
                unnamed = [without.names[j] is None for j in best]
                found[f"unnamed_without_{what}"] = float(np.mean(unnamed)) if unnamed else None
            say(part="birds", look=look, seed=seed, kind=kind, restarts=args.restarts, variance=model.score(X), **found)


# -- real embeddings ---------------------------------------------------------------------------------------------------


def all_rows(folder: Path) -> np.ndarray:
    """Every row of every set of pictures."""
    parts = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as stored:
            parts += [stored[name] for name in stored.files if name.endswith("_images")]
    return unit_rows(np.concatenate(parts).astype(np.float32))


def texts_of(folder: Path) -> tuple[list[str], np.ndarray]:
    """All vocabularies, each centred by its own mean, since their prompts differ."""
    words, rows = [], []
    for name in ("concepts_objects", "concepts_attributes", "text_imagenet_classes"):
        with np.load(folder / f"{name}.npz") as stored:
            vectors = unit_rows(stored["embeddings"].astype(np.float32))
            words += stored["names"].tolist()
            rows.append(vectors - vectors.mean(0))
    return words, unit_rows(np.concatenate(rows))


def reconstruct(args: argparse.Namespace) -> None:
    folder = args.data_dir / "clip_vitb32"
    X = all_rows(folder)
    X = X[np.random.default_rng(0).permutation(len(X))]
    held, X = X[:3000], X[3000:][: args.train_rows]
    words, texts = texts_of(folder)

    def fit(kind: str, active: int, seed: int) -> SparseAutoencoder:
        return SparseAutoencoder(
            512, kind=kind, active=active, max_iter=args.max_iter, batch_size=256, restarts=args.restarts,
            random_state=seed, verbose=False,
        ).fit(X)  # fmt: skip

    for seed, kind in itertools.product(range(args.seeds), args.kinds):
        model, seconds = None, 0.0
        called = kind if args.restarts == 1 else f"{kind}, {args.restarts} restarts"
        for active in args.actives:
            key = {"part": "reconstruct", "kind": called, "active": active, "seed": seed, "steps": args.max_iter}
            if known(args.out, **key):
                continue
            if model is None or kind in DICTIONARIES:  # a baseline's atoms do not depend on how many are active
                began = time.process_time()
                model = fit(kind, active, seed)
                seconds = time.process_time() - began
            codes = model.set_params(active=active).transform(held)
            first, beside = args.scratch / f"{called}-{active}.npy", {}
            if seed:
                if not first.exists():  # a run elsewhere wrote the lines of seed 0
                    np.save(first, fit(kind, active, 0).components_)
                beside["stability"] = float(matched_atoms(np.load(first), model.components_).mean())
            else:
                np.save(first, model.components_)
                naming = name_units(model.components_, codes, held, words, texts)
                of_names, of_chance = name_quality(texts[naming.index], codes, held)
                named = np.array([name is not None for name in naming.names])
                beside = {"named": float(named.mean())}
                if named.any():
                    beside["name_auc"] = float(np.nanmean(of_names[named]))
                    beside["chance_auc"] = float(np.nanmean(of_chance[named]))
            keep(
                args.out, **key, rows=len(X), variance=model.score(held), used=float((codes > 0).sum(1).mean()),
                dead=float(model.dead_.mean()), seconds=seconds, **beside,
            )  # fmt: skip
    if args.plot is not None:
        plot(args)


def plot(args: argparse.Namespace) -> None:
    """Share of variance against active units, a line a kind, mean and range of seeds."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.6), layout="constrained")
    for kind in args.kinds:
        rows = [
            [known(args.out, part="reconstruct", kind=kind, active=active, seed=seed) for seed in range(args.seeds)]
            for active in args.actives
        ]
        reached = [[line["variance"] for line in row if line] or [np.nan] for row in rows]
        used = [np.mean([line["used"] for line in row if line] or [np.nan]) for row in rows]
        middle = np.array([np.mean(values) for values in reached])
        spread = np.array([[m - min(v), max(v) - m] for m, v in zip(middle, reached)]).T.clip(min=0)
        style = "-o" if kind in DICTIONARIES else "--s"
        axes.errorbar(used, middle, spread, fmt=style, markersize=4, capsize=3, label=kind.replace("_", " "))
    axes.set(xlabel="units used by a picture, mean", ylabel="share of variance rebuilt, 3,000 other pictures")
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(args.plot, dpi=120)


def cbm(args: argparse.Namespace) -> None:
    from sparsecbm.estimators.sparse_autoencoder import left_over
    from sparsecbm.evaluation import survival, used_in_decision

    folder = args.data_dir / "clip_vitb32"
    with np.load(folder / "concepts_objects.npz") as stored:
        given = unit_rows(stored["embeddings"].astype(np.float32))
    pool = np.concatenate([split(folder, name)[0] for name in SETS] + [split(folder, "imagenet", "train4")[0]])
    options = {"kind": args.kinds[0], "active": 16, "max_iter": args.max_iter, "random_state": 0, "verbose": False}
    banks = {"given": given}
    if "discovered" in args.banks:
        banks["discovered"] = SparseAutoencoder(512, **options).fit(pool).components_
    if "mixed" in args.banks:
        rest = SparseAutoencoder(256, **options).fit(left_over(pool, given, 16)).components_
        banks["mixed"] = np.concatenate([given, rest])
    for name in args.sets:
        (X, y), (X_test, y_test) = split(folder, name), split(folder, name, "test")
        for bank in args.banks:
            if known(args.out, part="cbm", data=name, bank=bank):
                continue
            concepts = banks[bank]
            control = matched_directions(concepts, np.random.default_rng(1))
            reached: dict[int, list[float]] = {8: [], 32: []}
            kept: dict[int, float] = {}
            for rows in (concepts, control):
                model = SparseCBMClassifier(
                    rows, concepts_per_class=5, max_active_concepts=32, random_state=0, verbose=False
                ).fit(X, y)
                for active in (32, 8):
                    made = model if active == 32 else model.refit(X, y, max_active_concepts=8)
                    reached[active].append(float(made.score(X_test, y_test)))
                    if rows is concepts:
                        predicted = np.searchsorted(made.classes_, made.predict(X_test))
                        used = used_in_decision(made.transform(X_test), made.head_weights_, predicted).concepts
                        units, scores = made.units(X_test)[:, used], made.concept_scores(X_test)[:, used]
                        kept[active] = float(survival(units, scores).mean)
            for active, (ours, meaningless) in reached.items():
                keep(args.out, part="cbm", data=name, bank=bank, concepts=len(concepts), active=active, accuracy=ours,
                    advantage=100 * (ours - meaningless), survival=kept[active])  # fmt: skip


def split(folder: Path, name: str, which: str | None = None) -> tuple[np.ndarray, np.ndarray]:
    with np.load(folder / f"{name}.npz") as stored:
        key = which or SETS[name]
        return unit_rows(stored[f"{key}_images"].astype(np.float32)), stored[f"{key}_labels"]


# -- size --------------------------------------------------------------------------------------------------------------


def write_phrases(folder: Path, path: Path, count: int) -> None:
    """Phrases around the real ones: mixtures of two, and noise with the covariance of all."""
    rows = []
    for name in ("concepts_objects", "concepts_attributes", "text_imagenet_classes"):
        with np.load(folder / f"{name}.npz") as stored:
            rows.append(unit_rows(stored["embeddings"].astype(np.float32)))
    texts, rng = np.concatenate(rows), np.random.default_rng(0)
    _, spread, axes = np.linalg.svd(texts - texts.mean(0), full_matrices=False)
    axes = (spread / np.sqrt(len(texts)))[:, None] * axes
    made = np.lib.format.open_memmap(path, "w+", np.float16, (count, texts.shape[1]))
    for start in range(0, count, 20_000):
        n = min(20_000, count - start)
        first, second = rng.integers(0, len(texts), (2, n))
        share = rng.uniform(0.3, 0.7, (n, 1)).astype(np.float32)
        noise = rng.standard_normal((n, len(axes)), dtype=np.float32) @ axes
        made[start : start + n] = unit_rows(share * texts[first] + (1 - share) * texts[second] + 0.5 * noise)
    made.flush()


def phrases(args: argparse.Namespace) -> None:
    folder = args.data_dir / "clip_vitb32"
    pictures = split(folder, "imagenet", "train4")[0][:: 4000 // args.pictures][: args.pictures]
    with np.load(folder / "image_mean.npz") as stored:
        mean = stored["mean"]
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        path = Path(scratch) / "phrases.npy"
        if os.fork() == 0:  # its memory is not ours
            write_phrases(folder, path, args.phrases)
            os._exit(0)
        os.wait()
        mapped = np.load(path, mmap_mode="r")
        began = time.process_time()
        model = SparseDecomposer(mapped, image_mean=mean, alpha=args.alphas[0], verbose=False).fit(pictures)
        _ = model._vocabulary._sketch
        fitting = time.process_time() - began
        block = mapped[:8192].astype(np.float32)
        bare = []
        for _ in range(5):
            began = time.process_time()
            _ = pictures @ block.T
            bare.append(1000 * (time.process_time() - began) / len(pictures) * len(mapped) / len(block))
        for alpha in args.alphas:
            model.set_params(alpha=alpha)
            began, wall = time.process_time(), time.perf_counter()
            codes = model.decompose(pictures)
            ours, wall = time.process_time() - began, time.perf_counter() - wall
            say(part="phrases", phrases=len(mapped), pictures=len(pictures), alpha=alpha,
                concepts=float(codes.counts.mean()), cosine=float(codes.cosine.mean()),
                largest_gap=float(codes.gap.max()), passes=model._solver.passes,
                fit_cpu_s=fitting, cpu_ms_a_picture=1000 * ours / len(pictures),
                wall_ms_a_picture=1000 * wall / len(pictures),
                bare_product_cpu_ms=min(bare), peak_gib=peak_gib())  # fmt: skip


def epoch(args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(dir=args.scratch) as scratch:
        path = Path(scratch) / "rows.npy"
        rows = np.lib.format.open_memmap(path, "w+", np.float16, (max(args.rows), 512))
        atoms = rng.standard_normal((2000, 512), dtype=np.float32)
        for start in range(0, len(rows), 20_000):
            n = min(20_000, len(rows) - start)
            sums = sum(atoms[rng.integers(0, 2000, n)] for _ in range(8))
            rows[start : start + n] = unit_rows(sums + rng.standard_normal((n, 512), dtype=np.float32))
        rows.flush()
        del rows
        for n in args.rows:
            mapped = np.load(path, mmap_mode="r")[:n]
            model = SparseAutoencoder(
                4096, active=32, max_iter=n // 1024, batch_size=1024, random_state=0, verbose=False
            )
            began, wall = time.process_time(), time.perf_counter()
            model.fit(mapped)
            say(part="epoch", rows=n, steps=n // 1024, cpu_s=time.process_time() - began,
                wall_s=time.perf_counter() - wall,
                loss=model.history_[-1]["loss"], dead=float(model.dead_.mean()), peak_gib=peak_gib())  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=("birds", "reconstruct", "cbm", "phrases", "epoch"))
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    parser.add_argument("--looks", nargs="*", choices=("any", "species"), default=["any", "species"])
    parser.add_argument("--active", type=int, default=12)
    parser.add_argument("--actives", type=int, nargs="*", default=[8, 16, 32])
    parser.add_argument("--sets", nargs="*", choices=tuple(SETS), default=list(SETS))
    parser.add_argument("--banks", nargs="*", default=["given", "discovered", "mixed"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--max-iter", type=int, default=3000)
    parser.add_argument("--restarts", type=int, default=1, help="of kinds that are trained (birds, reconstruct)")
    parser.add_argument("--train-rows", type=int, help="train on so many rows only (reconstruct)")
    parser.add_argument("--pictures", type=int, default=5000)
    parser.add_argument("--phrases", type=int, default=1_000_000)
    parser.add_argument("--alphas", type=float, nargs="*", default=[0.25, 0.2, 0.15])
    parser.add_argument("--rows", type=int, nargs="*", default=[1_280_000])
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="folder for large files")
    parser.add_argument("--out", type=Path, help="file of JSON lines; what it has is not run again")
    parser.add_argument("--plot", type=Path, help="picture of the curve")
    args = parser.parse_args()
    if args.part in ("reconstruct", "cbm", "phrases") and args.data_dir is None:
        parser.error(f"{args.part} needs --data-dir")
    warnings.simplefilter("ignore")
    globals()[args.part](args)


if __name__ == "__main__":
    main()
