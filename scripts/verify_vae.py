"""Coverage of the 95% intervals of VAE likelihoods, on small models whose log p(x) is a sum over all states.

Exits with 1 where the annealed interval covers less than 93% or more than 99%. Ten binary latents and posteriors that
fit badly: 200 importance samples are worth three, annealing mends it. Some minutes on one core.

Example: python scripts/verify_vae.py --models 100
"""

from __future__ import annotations

import argparse
import sys

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from sparsecbm.samplers import noise
from sparsecbm.vae import DiscreteVAE, estimate_log_likelihood, exact_log_likelihood

PRIORS = {"bernoulli": ((10,), 1.5), "rbm": ((5, 5), 1.0)}


def make(prior: str, seed: int) -> tuple[DiscreteVAE, torch.Tensor, torch.Generator]:
    """A model with random weights, and 20 pictures that it drew."""
    groups, scale = PRIORS[prior]
    generator = torch.Generator().manual_seed(seed)
    model = DiscreteVAE(20, groups=groups, prior=prior, generator=generator).eval()
    with torch.no_grad():
        for name, held in model.named_parameters():
            if name == "decoder.layers.0.weight" or name.startswith("prior"):
                held.copy_(scale * noise.normal(tuple(held.shape), generator=generator))
        states = model.prior.sample(20, generator=generator)
        return model, model.likelihood.sample(model.decode(states), generator=generator), generator


def main() -> int:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", type=int, default=100, help="models of each prior")
    parser.add_argument("--steps", type=int, default=200, help="of annealing")
    arguments = parser.parse_args()
    title = f"{arguments.models} models a prior, 20 pictures each: estimates less the exact log p(x)"
    table = Table(
        "prior", "of 200 importance samples", "they err", "annealed err", "intervals", "cover", "bracket", title=title
    )
    short = False
    for prior in PRIORS:
        sizes, errors, annealed, covered, gaps = [], [], [], [], []
        for seed in track(range(arguments.models), prior, transient=True, console=Console(stderr=True)):
            model, x, generator = make(prior, seed)
            exact = float(exact_log_likelihood(model, x).mean())
            plain = estimate_log_likelihood(model, x, 200, generator=generator)
            found = estimate_log_likelihood(model, x, 200, generator=generator, anneal=arguments.steps)
            sizes.append(plain.effective_sample_size)
            errors.append(plain.log_likelihood - exact)
            annealed.append(found.log_likelihood - exact)
            if found.interval is not None:
                covered.append(found.interval[0] <= exact <= found.interval[1])
            if found.bracket is not None:
                gaps.append(found.bracket.upper - found.bracket.lower)
        share = sum(covered) / max(len(covered), 1)
        short |= not 0.93 <= share <= 0.99
        mean = [sum(values) / max(len(values), 1) for values in (sizes, errors, annealed, gaps)]
        table.add_row(
            prior, f"{mean[0]:.1f} effective", f"{mean[1]:+.2f}", f"{mean[2]:+.4f}", str(len(covered)), f"{share:.1%}",
            f"{mean[3]:.3f} wide",
        )  # fmt: skip
    Console(width=120).print(table)
    return int(short)


if __name__ == "__main__":
    sys.exit(main())
