"""Draw the README's picture: one bird the model has never seen, and why it was named.

    sparsecbm demo
    python scripts/plot_readme_picture.py sparsecbm-demo --index 7

The bird is painted large for the reader; the model sees the 64-pixel picture of the same bird.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path

from PIL import Image

from sparsecbm._base.files import atomic_path
from sparsecbm.data.birds import BirdImages
from sparsecbm.explain.plots import plot_explained_prediction
from sparsecbm.runs import load_model, model_encoder


def main() -> None:
    """Explain one test bird and write the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="output folder of `sparsecbm demo`")
    parser.add_argument("--index", type=int, default=7, help="number of the bird in the test split")
    parser.add_argument("--output", type=Path, default=Path("notebooks/pictures/explained_prediction.png"))
    arguments = parser.parse_args()
    stored = load_model(arguments.model)
    birds = BirdImages("test", n_images=arguments.index + 1)
    large = BirdImages("test", n_images=arguments.index + 1, size=512)
    vectors = model_encoder(stored, device="cpu").encode_images([birds[arguments.index]])
    ledger = stored.classifier.explain(vectors)[0]
    figure = plot_explained_prediction(large[arguments.index], ledger.lines(8))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    # A palette keeps the painter's grain from making the file ten times larger.
    small = Image.open(buffer).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    with atomic_path(arguments.output) as temporary:
        small.save(temporary, "PNG", optimize=True)
    truth = birds.class_names[birds.labels[arguments.index]]
    print(f"{arguments.output}: {ledger.target} ({ledger.probability:.1%}), truly {truth}")


if __name__ == "__main__":
    main()
