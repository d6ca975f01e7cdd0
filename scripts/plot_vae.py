"""What each objective is a bound on, measured: the picture of sparsecbm/vae/README.md.

    python scripts/plot_vae.py

A factorial VAE with 8 latents is trained on scikit-learn's digits, small enough for its log-likelihood and its evidence
lower bound to be summed over all 256 states; the objectives are then taken at many temperatures.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

TEMPERATURES = np.geomspace(0.02, 3.0, 15)
COLOURS = {"mass": "#c2410c", "density": "#0b6e99", "analytic": "#7c3aed", "mass, K = 5": "#f59e0b"}


def train(seed: int = 0):
    """A small trained model, and test pictures (200, 64)."""
    from sparsecbm.vae import DensityTask, DiscreteVAE, Trainer, TrainingOptions, load_pictures, make_objective

    pictures = load_pictures("digits", binarisation="dynamic")
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE(64, groups=(8,), hidden=(64,), pixel_means=pictures.pixel_means, generator=generator)
    options = TrainingOptions(epochs=60, evaluate_every=60, temperature={"name": "constant", "start": 0.5})
    run = Trainer(DensityTask(model, make_objective("mass")), options, seed=seed, device="cpu", dynamic=True)
    run.fit({"x": pictures.train})
    return model.eval(), torch.from_numpy(pictures.test[:200]).float()


@torch.no_grad()
def measure(model, x: torch.Tensor, repeats: int = 64) -> dict[str, np.ndarray]:
    """Mean nats of each objective at each temperature, and the two exact figures."""
    from sparsecbm.vae import exact_log_likelihood, make_objective

    wide = x.repeat(repeats, 1)
    found: dict[str, np.ndarray] = {}
    for label in COLOURS:
        name, _, samples = label.partition(", K = ")
        objective = make_objective(name, samples=int(samples or 1))
        curve = []
        for temperature in TEMPERATURES:
            drawn = torch.Generator().manual_seed(0)
            curve.append(float(objective(model, wide, temperature=temperature, generator=drawn).bound.mean()))
        found[label] = np.array(curve)
    found["log-likelihood"] = np.array(float(exact_log_likelihood(model, x).mean()))
    found["ELBO"] = np.array(float(make_objective("exact")(model, x).bound.mean()))
    return found


def draw(axes, found: dict[str, np.ndarray]) -> None:
    """Draw the objectives against the temperature."""
    for label, colour in COLOURS.items():
        axes.semilogx(TEMPERATURES, found[label], color=colour, label=label, linewidth=2)
    axes.axhline(found["log-likelihood"], color="black", linewidth=1)
    axes.axhline(found["ELBO"], color="black", linewidth=1, linestyle=":")
    beside = {"transform": axes.get_yaxis_transform(), "fontsize": 9}
    axes.text(1.01, found["log-likelihood"], "exact log p(x)", va="bottom", **beside)
    axes.text(1.01, found["ELBO"], "exact ELBO", va="top", **beside)
    axes.set_xlabel("temperature of the relaxed samples")
    axes.set_ylabel("nats a picture")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0.0, 0.17))
    axes.set_title("One trained model, every objective: 200 test digits, 8 latents", loc="left", fontsize=11)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    default = Path(__file__).parents[1] / "notebooks/pictures/vae_objectives.png"
    parser.add_argument("--out", type=Path, default=default)
    arguments = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    model, x = train()
    found = measure(model, x)
    figure, axes = plt.subplots(figsize=(8.0, 4.6), layout="constrained")
    draw(axes, found)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=120)
    print({label: np.round(held, 2).tolist() for label, held in found.items()})


if __name__ == "__main__":
    main()
