"""What adapters gain where an encoder sees badly: painted birds at dusk, before and after `encoders.adapting.adapt`.

    python scripts/benchmark_adapt.py [--steps 150] [--pictures 400]

Dusk is a quarter of the light, bluish, with noise: the bundled encoder was trained on daylight. Accuracy is that of a
linear read-out of the 31 concept scores; concept AUC is held against the painted truth; drift is measured on the same
birds by day, which the adapted encoder never saw.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
from PIL import Image

DUSK = np.array([0.22, 0.25, 0.45])


def at_dusk(picture: Image.Image, seed: int) -> Image.Image:
    """The same picture in bad light."""
    noise = np.random.default_rng(seed).normal(0, 0.02, (*picture.size[::-1], 3))
    pixels = np.asarray(picture.convert("RGB")) / 255 * DUSK + noise
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).astype(np.uint8))


def main() -> None:
    """Adapt three times: with concept labels, with what species look like, with nothing but classes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--pictures", type=int, default=400)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    from sparsecbm import embed_texts, load_encoder, load_images
    from sparsecbm.data.birds import concept_phrases, species_attributes
    from sparsecbm.encoders.adapting import AdaptOptions, adapt
    from sparsecbm.estimators import LinearProbe
    from sparsecbm.evaluation import concept_auc, name_alignment, survival

    train, test = (
        load_images("birds", "train", max_images=options.pictures),
        load_images("birds", "test", max_images=500),
    )
    by_day = [test[i] for i in range(len(test))]
    dark = [at_dusk(train[i], i) for i in range(len(train))], [at_dusk(p, 10**6 + i) for i, p in enumerate(by_day)]
    C = embed_texts(load_encoder("bundled"), concept_phrases()).vectors
    then = load_encoder("bundled").encode_images(by_day) @ C.T

    def line(name: str, encoder, seconds: float) -> None:
        scores = [encoder.encode_images(pictures) @ C.T for pictures in dark]
        accuracy = LinearProbe().fit(scores[0], train.labels).score(scores[1], test.labels)
        now = encoder.encode_images(by_day) @ C.T
        cells = [accuracy, concept_auc(scores[1], test.attributes).mean, concept_auc(now, test.attributes).mean]
        cells += [name_alignment(now, then).mean, survival(now, then).mean]
        print(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} | {seconds:.0f} |", flush=True)

    heads = [
        "concepts held by",
        "accuracy",
        "concept AUC",
        "AUC by day",
        "alignment by day",
        "survival by day",
        "CPU s",
    ]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    frozen = load_encoder("bundled")
    line("(frozen)", frozen, 0)
    vectors = frozen.encode_images(dark[0])
    truths = {
        "labels of pictures": train.attributes.astype(float),
        "labels of classes": species_attributes()[train.labels].astype(float),
        "frozen scores": None,
    }
    for name, truth in truths.items():
        encoder, start = load_encoder("bundled"), time.process_time()
        given = AdaptOptions(max_iter=options.steps)
        adapt(encoder, dark[0], train.labels, C, vectors, concept_labels=truth, options=given, device="cpu")
        line(name, encoder, time.process_time() - start)


if __name__ == "__main__":
    main()
