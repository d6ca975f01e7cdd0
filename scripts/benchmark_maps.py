"""Measure maps: whether they add up, where they point, what happens when what they point at is painted over, and cost.

Painted birds and the bundled encoder, and small random models of every architecture: no network, no data. The painter
knows which pixels show which attribute. Integrated gradients and occlusion need captum (extra `maps`).

Run: python scripts/benchmark_maps.py --output maps.png --json maps.json
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

from sparsecbm import SparseCBMClassifier, load_encoder
from sparsecbm.data import birds
from sparsecbm.explain.lines import Place
from sparsecbm.explain.maps.overlay import laid_over
from sparsecbm.explain.maps.regions import blanked
from sparsecbm.explain.maps.whereabouts import in_words, whereabouts

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.encoders.test_encoder_maps import KINDS, encoder_of
from tests.helpers import tiny_models

GROUPS = ("crown", "breast", "wings", "bill", "tail", "legs", "crest", "mask")
COLUMN = {name: j for j, name in enumerate(birds.ATTRIBUTE_NAMES)}
CELLS = 8
Maps = Callable[[list[Image.Image], np.ndarray], np.ndarray]


def cell_grid(mask: np.ndarray) -> np.ndarray:
    """Share of every cell that a mask of pixels covers."""
    side = len(mask) // CELLS
    return mask.reshape(CELLS, side, CELLS, side).mean((1, 3))


def near(mask: np.ndarray) -> np.ndarray:
    """Cells whose middle lies in the mask, or within one cell of it."""
    side = len(mask) // CELLS
    padded = np.pad(mask, side)
    middles = [int((k + 0.5) * side) for k in range(CELLS)]
    return np.array([[padded[y : y + 2 * side + 1, x : x + 2 * side + 1].any() for x in middles] for y in middles])


def sums(n: int = 100) -> dict[str, float]:
    """Largest |score - maps - rest|, where scores are the embeddings' own, over the mean size of a score."""
    made = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind in ["bundled", *KINDS]:
            encoder = (
                load_encoder("bundled", device="cpu") if kind == "bundled" else encoder_of(kind, Path(folder) / kind)
            )
            rows = np.random.default_rng(0).normal(size=(4, encoder.embed_dim)).astype(np.float32)
            pictures = tiny_models.pictures(n)
            found = encoder.map_images(pictures, rows, progress=False)
            scores = encoder.encode_images(pictures, progress=False).astype(np.float64) @ rows.T
            made[kind] = float(np.abs(found.maps.sum((2, 3)) + found.rest - scores).max() / np.abs(scores).mean())
    return made


def grad_cam(encoder: Any, layer: int) -> Maps:
    """Grad-CAM (Selvaraju et al. 2017) at one of the four layers, enlarged to the cells of the maps."""

    def maps(pictures: list[Image.Image], rows: np.ndarray) -> np.ndarray:
        inputs, kept = encoder._image_inputs(pictures), []
        stage = encoder._opening(None).stages[layer - 1]
        hook = stage.register_forward_hook(
            lambda module, args, out: kept.append(out.detach().requires_grad_()) or kept[-1].clone()
        )
        scores = F.normalize(encoder._image_features(inputs), dim=1) @ torch.from_numpy(rows).T
        hook.remove()
        (gradient,) = torch.autograd.grad(scores.sum(), kept)
        made = F.relu((gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True)).detach()
        return F.interpolate(made, (CELLS, CELLS), mode="bilinear")[:, 0].numpy()

    return maps


def cases(source: birds.BirdImages, n: int) -> Iterator[tuple[str, str, list[int], list[np.ndarray]]]:
    """Every localised attribute with its group, the pictures that show it, and where."""
    masks = [source.masks(i) for i in range(n)]
    for group in GROUPS:
        for name in birds.ATTRIBUTES[group]:
            rows = [i for i in range(n) if name in masks[i]]
            yield group, name, rows, [masks[i][name] for i in rows]


def pointing(encoder: Any, concepts: np.ndarray, split: str, n: int, others: int) -> dict[str, Any]:
    """Peak inside the part, or within a cell of it; and share of the positive map inside."""
    source = birds.BirdImages(split, n_images=n)
    pictures = [source[i] for i in range(n)]

    def by(method: str, **options: Any) -> Maps:
        return lambda some, rows: encoder.map_images(some, rows, method=method, progress=False, **options).maps[:, 0]

    methods: dict[str, tuple[Maps, int]] = {
        "exact": (by("exact"), n),
        "exact, opened a stage later": (by("exact", layers=1), n),
        "Grad-CAM, last layer": (grad_cam(encoder, 4), n),
        "Grad-CAM, layer of the maps": (grad_cam(encoder, 2), n),
        "integrated gradients": (by("gradients"), others),
        "occlusion": (by("occlusion"), others),
    }
    made: dict[str, Any] = {}
    for label, (maps, count) in methods.items():
        found: dict[str, list[tuple[float, float, float, float]]] = {}
        for group, name, rows, masks in cases(source, count):
            grids = maps([pictures[i] for i in rows], concepts[COLUMN[name]][None]) if rows else []
            for grid, mask in zip(grids, masks):
                if len(grid) < CELLS:
                    grid = np.kron(grid, np.ones((CELLS // len(grid),) * 2))
                inside, area = near(mask), cell_grid(mask)
                positive = np.maximum(grid, 0)
                share = (positive * area).sum() / (positive.sum() or 1.0)
                found.setdefault(group, []).append(
                    (float(inside.flat[grid.argmax()]), share, float(inside.mean()), float(area.mean()))
                )
        made[label] = {
            group: dict(zip(("pointing", "share", "chance", "area"), np.mean(rows, axis=0).tolist()))
            for group, rows in found.items()
        } | {"pictures": count}
        row = made[label]
        share = np.mean([row[group]["share"] for group in GROUPS])
        print(f"{label:<30}", *(f"{row[group]['pointing']:>7.3f}" for group in GROUPS), f"{share:>7.3f}", flush=True)
    return made


def fitted(encoder: Any, concepts: np.ndarray, habitat: str, active: int) -> SparseCBMClassifier:
    """A model of the species, whose units are the concept scores themselves."""
    train = birds.BirdImages("train", habitat=habitat)
    model = SparseCBMClassifier(
        concepts, birds.ATTRIBUTE_NAMES, tie="exact", max_active_concepts=active, concepts_per_class=5, max_iter=200,
        random_state=0,
    )  # fmt: skip
    model.fit(encoder.encode_images(train, progress=False), train.labels)
    model.metadata_ = {"class_names": list(train.class_names)}
    return model


def deletion(encoder: Any, model: SparseCBMClassifier, n: int, share: float = 0.1) -> dict[str, Any]:
    """Pictures in which a concept's unit falls by half when its strongest cells, or random ones, are painted over."""
    rng, source = np.random.default_rng(0), birds.BirdImages("test", n_images=n)
    pictures = [source[i] for i in range(n)]
    ledgers = model.explain_images(pictures, encoder=encoder, maps=True)
    units = model.units(encoder.encode_images(pictures, progress=False))
    size, made = round(share * CELLS**2), {}
    for group in GROUPS:
        strongest, random, before = [], [], []
        for name in birds.ATTRIBUTES[group]:
            for i, maps in enumerate(ledgers.maps or ()):
                if name in maps.concepts:
                    grid = maps.of(name)[0]
                    for cells, into in (
                        (np.argsort(-grid, axis=None)[:size], strongest),
                        (rng.choice(CELLS**2, size, replace=False), random),
                    ):
                        region = np.zeros(CELLS**2, dtype=bool)
                        region[cells] = True
                        into.append(blanked(pictures[i], region.reshape(CELLS, CELLS)))
                    before.append((i, COLUMN[name]))
        if before:
            rows, columns = np.array(before).T
            was = units[rows, columns]
            after = [
                model.units(encoder.encode_images(some, progress=False))[np.arange(len(rows)), columns]
                for some in (strongest, random)
            ]
            made[group] = {
                "strongest": float((after[0] <= was / 2).mean()),
                "random": float((after[1] <= was / 2).mean()),
                "pictures": len(rows),
            }
    counts = np.array([row["pictures"] for row in made.values()])
    for key in ("strongest", "random"):
        made.setdefault("all", {})[key] = float(np.average([made[g][key] for g in made if g != "all"], weights=counts))
    return made


def tied(encoder: Any, concepts: np.ndarray, n: int) -> dict[str, Any]:
    """What the report says of a model of birds that always stand in their species' habitat, against the masks."""
    model, source = fitted(encoder, concepts, "tied", 4), birds.BirdImages("test", n_images=n, habitat="tied")
    pictures, objects = [source[i] for i in range(n)], [source.object_mask(i) for i in range(n)]
    ledgers = model.explain_images(pictures, encoder=encoder, maps=True)
    over = [blanked(picture, bird) for picture, bird in zip(pictures, objects)]
    units = [model.units(encoder.encode_images(some, progress=False)) for some in (pictures, over)]
    found = whereabouts(ledgers, objects, *units)
    made: dict[str, Any] = {"words": in_words(found), "concepts": {}}
    for one in found:
        rows = [i for i, maps in enumerate(ledgers.maps or ()) if one.concept in maps.concepts]
        pixels = []
        for i in rows:
            positive = np.maximum((ledgers.maps or ())[i].of(one.concept)[0], 0).repeat(8, 0).repeat(8, 1)
            pixels.append(float((positive * ~objects[i]).sum() / (positive.sum() or 1.0)))
        made["concepts"][one.concept] = {
            "background": one.background, "outside": one.outside, "by pixels": float(np.mean(pixels)),
            "kept": one.kept, "pictures": one.n,
        }  # fmt: skip
    return made


def cost(encoder: Any, model: SparseCBMClassifier) -> dict[str, float]:
    """Seconds of one picture's maps beyond its explanation, and of 100 pictures of a ViT-B/32 with random weights."""
    from open_clip.model import CLIP

    from sparsecbm.encoders.open_clip import OpenClipEncoder
    from sparsecbm.explain.maps.overlay import map_sheet

    def seconds(work: Callable[[], Any], times: int = 5) -> float:
        spent = []
        for _ in range(times):
            begun = time.process_time()
            work()
            spent.append(time.process_time() - begun)
        return float(np.median(spent))

    picture = birds.BirdImages("test", n_images=1)[0]
    plain = seconds(lambda: model.explain_images([picture], encoder=encoder))
    drawn = seconds(
        lambda: map_sheet(model.explain_images([picture], encoder=encoder, maps=True)[0].lines()).save(
            "/dev/null", "PNG"
        )
    )
    config: dict[str, Any] = {
        "embed_dim": 512,
        "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    torch.manual_seed(0)
    tower = CLIP(**config)
    tower.visual.preprocess_cfg = {"size": 224}
    large = OpenClipEncoder("random ViT-B/32", tower, config, None, torch.device("cpu"))
    photos = tiny_models.pictures(100, size=256)
    rows = np.random.default_rng(0).normal(size=(10, 512)).astype(np.float32)
    large.encode_images(photos[:4], progress=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encoded = seconds(lambda: large.encode_images(photos, progress=False), 1)
    mapped = seconds(lambda: large.map_images(photos, rows, progress=False), 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "one picture, explained": plain, "one picture, maps beyond that": drawn - plain,
        "100 pictures of ViT-B/32, encoded": encoded, "100 pictures of ViT-B/32, 10 maps each": mapped,
        "MB more at most": peak / 1024,
    }  # fmt: skip


def draw(encoder: Any, concepts: np.ndarray, path: Path, size: int = 168) -> None:
    """Lay out pictures with the maps of some attributes, by every method."""
    source = birds.BirdImages("test", n_images=60)
    shown = [(3, "red crown"), (8, "blue wings"), (9, "long tail"), (10, "yellow breast"), (6, "fanned tail")]
    columns: dict[str, Maps | None] = {
        "picture": None,
        "exact": lambda some, rows: encoder.map_images(some, rows, progress=False).maps[:, 0],
        "Grad-CAM": grad_cam(encoder, 4),
        "integrated gradients": lambda some, rows: encoder.map_images(some, rows, method="gradients").maps[:, 0],
        "occlusion": lambda some, rows: encoder.map_images(some, rows, method="occlusion").maps[:, 0],
    }
    shown = [(i, name) for i, name in shown if name in source.masks(i)]
    sheet = Image.new("RGB", (len(columns) * (size + 8) + 8, len(shown) * (size + 26) + 24), "white")
    pen = ImageDraw.Draw(sheet)
    for c, (label, maps) in enumerate(columns.items()):
        pen.text((8 + c * (size + 8), 6), label, "#1d2327", font_size=13)
        for r, (i, name) in enumerate(shown):
            picture, (x, y) = source[i], (8 + c * (size + 8), 24 + r * (size + 26))
            if maps is None:
                tile = picture.resize((size, size), Image.Resampling.NEAREST)
                pen.text((x, y + size + 3), name, "#5c6770", font_size=12)
            else:
                tile = laid_over(picture, Place(maps([picture], concepts[COLUMN[name]][None])[0], 0.0), size)
            sheet.paste(tile, (x, y))
    sheet.save(path)


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test", help="split to point on: the default was chosen on 'train'")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--others", type=int, default=100, help="pictures for the slow methods")
    parser.add_argument("--output", type=Path, help="picture to draw")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    encoder = load_encoder("bundled", device="cpu")
    concepts = encoder.encode_texts(list(birds.concept_phrases()))
    result: dict[str, Any] = {"sums": sums()}
    print("largest error of a sum:", {kind: f"{error:.1e}" for kind, error in result["sums"].items()}, flush=True)
    print(f"{'pointing':<30}", *(f"{group:>7}" for group in GROUPS), f"{'share':>7}", flush=True)
    result["pointing"] = pointing(encoder, concepts, options.split, options.images, options.others)
    for what in ("chance", "area"):
        print(f"{what:<30}", *(f"{result['pointing']['exact'][group][what]:>7.3f}" for group in GROUPS), flush=True)
    model = fitted(encoder, concepts, "species", 8)
    result["deletion"] = deletion(encoder, model, options.images)
    for group, row in result["deletion"].items():
        print(
            f"{group}: unit halved by its strongest tenth {row['strongest']:.3f}, by a random one {row['random']:.3f}"
        )
    result["tied"] = tied(encoder, concepts, 200)
    print(result["tied"]["words"])
    for name, row in result["tied"]["concepts"].items():
        print(f"  {name}: {row}", flush=True)
    result["cost"] = cost(encoder, model)
    for name, value in result["cost"].items():
        print(f"{name}: {value:.3g}")
    if options.output:
        draw(encoder, concepts, options.output)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
