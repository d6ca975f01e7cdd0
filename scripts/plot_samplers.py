"""Draws the pictures of the samplers' page: every distribution, its samples against its formula, and the estimators
of log Z.

Example: python scripts/plot_samplers.py --out notebooks/pictures
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure

from sparsecbm.samplers import (
    BinaryConcrete,
    Concrete,
    GibbsSampler,
    ParallelTempering,
    RestrictedBoltzmannMachine,
    annealed_importance_sampling,
    hard_top_k,
    make_schedule,
    noise,
    relaxed_top_k,
    reverse_annealed_importance_sampling,
)
from sparsecbm.samplers.perturb import (
    grid_model,
    lower_bound,
    make_trick,
    perturbed_maxima,
    perturbed_values,
    upper_bound,
)

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


def generator(seed: int = 0) -> torch.Generator:
    """A generator of its own for each picture."""
    return torch.Generator().manual_seed(seed)


def noises() -> Figure:
    """Histograms of the three standard noises over their densities, on a logarithmic axis that shows the tails."""
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.0), layout="constrained")
    densities: dict[str, tuple[Callable, tuple[float, float]]] = {
        "gumbel": (lambda x: torch.exp(-x - torch.exp(-x)), (-3.5, 15)),
        "logistic": (lambda x: torch.exp(-x.abs() - 2 * torch.log1p(torch.exp(-x.abs()))), (-15, 15)),
        "exponential": (lambda x: torch.exp(-x), (0, 15)),
    }
    for axis, (name, (density, (low, high))) in zip(axes, densities.items(), strict=True):
        draws = getattr(noise, name)(1_000_000, generator=generator())
        axis.hist(draws.numpy(), bins=90, range=(low, high), density=True, color="#bcd4e6", label="10⁶ draws")
        x = torch.linspace(low, high, 500, dtype=torch.float64)
        axis.plot(x, density(x), color=COLOURS[1], lw=1.4, label="density")
        axis.set(yscale="log", ylim=(1e-7, 2), title=name, xlabel="value")
    axes[0].set_ylabel("density")
    axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    return figure


def binary_concrete() -> Figure:
    """Binary Concrete at three temperatures: the relaxed state, samples against the density."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained", sharey=True)
    logit = torch.tensor(0.6, dtype=torch.float64)
    for axis, temperature in zip(axes, (0.2, 0.5, 1.0, 2.0), strict=True):
        q = BinaryConcrete(temperature, logits=logit)
        draw = q.draw((300_000,), generator=generator())
        axis.hist(draw.soft.numpy(), bins=60, range=(0, 1), density=True, color="#bcd4e6", label="samples")
        x = torch.linspace(0.002, 0.998, 600, dtype=torch.float64)
        y = torch.logit(x)
        axis.plot(x, (q.log_prob(y) - x.log() - torch.log1p(-x)).exp(), color=COLOURS[1], lw=1.4, label="density")
        share = draw.hard.mean().item()
        axis.set(title=f"temperature {temperature:g}", xlabel="relaxed state", ylim=(0, 5))
        axis.text(
            0.5, 4.35, f"P(hard = 1) = {share:.3f}\nsigmoid(0.6) = {logit.sigmoid():.3f}", ha="center", fontsize=8
        )
    axes[0].set_ylabel("density")
    axes[1].legend(frameon=False, fontsize=8, loc="center")
    return figure


def concrete() -> Figure:
    """Concrete on the simplex, p = (0.2, 0.5, 0.3), coloured by the hard samples, with their shares at the corners."""
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.9), layout="constrained")
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    logits = torch.tensor([0.2, 0.5, 0.3]).log()
    for axis, temperature in zip(axes, (0.1, 0.5, 1.0, 4.0), strict=True):
        draw = Concrete(temperature, logits=logits).draw((3000,), generator=generator(1))
        points, classes = draw.soft @ corners, draw.hard.argmax(-1)
        for k in range(3):
            chosen = points[classes == k]
            axis.scatter(*chosen.T, s=3, alpha=0.5, color=COLOURS[k], linewidths=0)
            across, up = corners[k] + torch.tensor([(-0.02, -0.04), (0.02, -0.04), (0.0, 0.02)])[k]
            where = {"ha": ("right", "left", "center")[k], "va": ("top", "top", "bottom")[k]}
            axis.text(across, up, f"{len(chosen) / 3000:.2f}", color=COLOURS[k], fontsize=9, **where)
        axis.plot(*torch.cat([corners, corners[:1]]).T, color="0.4", lw=0.8)
        axis.set_title(f"temperature {temperature:g}", pad=10)
        axis.set(aspect="equal", ylim=(-0.12, 0.95), xlim=(-0.15, 1.15))
        axis.axis("off")
    return figure


def top_k() -> Figure:
    """Relaxed top 3 of 8 over one draw of noise, from cold to warm, beside the hard draw."""
    figure, axes = plt.subplots(1, 5, figsize=(11, 2.6), layout="constrained", sharey=True)
    logits = torch.linspace(-1.5, 1.5, 8)
    axes[0].bar(range(8), hard_top_k(logits, 3, generator=generator(4)), color=COLOURS[0])
    axes[0].set(title="hard", ylabel="state", xlabel="entry", xticks=range(8))
    for axis, temperature in zip(axes[1:], (0.05, 0.3, 1.0, 5.0), strict=True):
        axis.bar(range(8), relaxed_top_k(logits, 3, temperature, generator(4)), color=COLOURS[5])
        axis.set(title=f"temperature {temperature:g}", xlabel="entry", xticks=range(8))
    return figure


def schedules() -> Figure:
    """The four temperature schedules."""
    figure, axis = plt.subplots(figsize=(5.4, 3.0), layout="constrained")
    steps = list(range(0, 12_001, 20))
    options: dict[str, dict[str, float]] = {
        "constant": {},
        "exponential": {"rate": 1e-4, "every": 1000},
        "linear": {"steps": 10_000},
        "cosine": {"steps": 10_000},
    }
    for colour, (name, chosen) in zip(COLOURS, options.items(), strict=False):
        schedule = make_schedule(name, **chosen)
        axis.plot(steps, [schedule.at(step) for step in steps], color=colour, label=name)
    axis.set(xlabel="step", ylabel="temperature", ylim=(0.4, 1.05))
    axis.legend(frameon=False)
    return figure


@torch.no_grad()
def chains() -> Figure:
    """A bimodal machine from one mode: the share of chains in the other, plain Gibbs against tempering."""
    figure, axis = plt.subplots(figsize=(5.4, 3.0), layout="constrained")
    weight, bias = torch.full((3, 3), 4.5), torch.full((3,), -6.75)
    rbm = RestrictedBoltzmannMachine.from_parameters(weight, bias, bias.clone())
    plain = GibbsSampler(rbm, torch.zeros(2000, 3))
    ladder = ParallelTempering(rbm, 2000, torch.linspace(0, 1, 6), generator=generator())
    ladder.visible.zero_()
    source, shares = generator(1), {"plain block Gibbs": [0.0], "parallel tempering": [0.0]}
    for _ in range(100):
        plain.advance(1, generator=source)
        visible, _ = ladder.advance(1)
        for name, states in (("plain block Gibbs", plain.visible), ("parallel tempering", visible)):
            shares[name].append((states.mean(-1) > 0.5).float().mean().item())
    for colour, (name, values) in zip(COLOURS[1::-1], shares.items(), strict=True):
        axis.plot(values, color=colour, label=name)
    axis.axhline(0.5, color="0.5", lw=0.8, ls="--")
    axis.text(100, 0.51, "exact", ha="right", va="bottom", fontsize=8, color="0.4")
    axis.set(xlabel="sweeps", ylabel="share of chains in the far mode", ylim=(-0.02, 0.62))
    axis.legend(frameon=False, loc="center right", bbox_to_anchor=(1, 0.4))
    return figure


@torch.no_grad()
def partition() -> Figure:
    """Annealing both ways against exact log Z, over the number of inverse temperatures."""
    figure, axis = plt.subplots(figsize=(5.4, 3.0), layout="constrained")
    rbm = RestrictedBoltzmannMachine(14, 60, scale=0.6, generator=generator())
    exact = rbm.log_partition().item()
    lengths = [4, 8, 16, 32, 64, 128, 256]
    rows = []
    visible, _ = rbm.sample_exact(300, generator=generator(1))
    for length in lengths:
        betas = torch.linspace(0, 1, length, dtype=torch.float64)
        forward = annealed_importance_sampling(rbm, betas, 300, generator=generator(length))
        reverse = reverse_annealed_importance_sampling(rbm, betas, visible, generator=generator(length + 1))
        rows.append((forward, reverse))
    for side, colour, name in ((0, COLOURS[0], "forward"), (1, COLOURS[1], "reverse")):
        axis.plot(lengths, [r[side].bound - exact for r in rows], color=colour, ls="--", lw=1, label=f"{name}: bound")
        values = [r[side].log_partition - exact for r in rows]
        errors = [r[side].standard_error for r in rows]
        axis.errorbar(lengths, values, errors, color=colour, marker="o", ms=3, lw=1.2, label=f"{name}: estimate")
    axis.axhline(0, color="0.5", lw=0.8)
    axis.set(xscale="log", xlabel="inverse temperatures", ylabel="error of log Z, nats")
    axis.set_yscale("symlog", linthresh=0.1)
    axis.legend(frameon=False, fontsize=8)
    return figure


def tricks(repeats: int = 4000) -> Figure:
    """Mean squared error of log Z against M: predicted lines, measured points (Balog et al. 2017, figure 1)."""
    figure, axis = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
    log_potentials, log_z = torch.full((3,), math.log(7.0), dtype=torch.float64), math.log(21.0)
    cases = [("gumbel", {}), ("exponential", {}), ("weibull", {"alpha": 0.5}), ("frechet", {"alpha": -0.25}),
             ("pareto", {}), ("tail", {"t": 0.076})]  # fmt: skip
    counts = (10, 20, 50, 100, 200, 500)
    values = perturbed_maxima(log_potentials, repeats * counts[-1], generator=generator(2)).view(repeats, -1)
    for colour, (name, options) in zip(COLOURS, cases, strict=True):
        trick = make_trick(name, **options)
        seen = [((trick.log_partition(values[:, :m]) - log_z) ** 2).mean().item() * m for m in counts]
        label = name + "".join(f" ({key} = {value:g})" for key, value in options.items())
        axis.plot(counts, [trick.mse(m, log_z) * m for m in counts], color=colour, lw=1.2, label=label)
        axis.plot(counts, seen, "o", color=colour, ms=4)
    axis.set(xscale="log", xlabel="perturbed maxima M", ylabel="M x mean squared error of log Z", ylim=(0.8, 3.4))
    axis.legend(frameon=False, fontsize=8, ncols=2)
    axis.set_title(f"lines: predicted; points: measured over {repeats} repetitions", fontsize=9)
    return figure


def bounds(draws: int = 6000) -> Figure:
    """U(alpha) and L(alpha) on 5 x 5 grids with exact log Z (Balog et al. 2017, figure 2)."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
    alphas = [-0.19, -0.17, -0.15, -0.12, -0.09, -0.06, -0.03, 0.0, 0.05, 0.1, 0.15, 0.2]
    for axis, attractive in zip(axes, (True, False), strict=True):
        model = grid_model(5, 5, field=1.0, coupling=1.0, attractive=attractive, generator=generator())
        exact = model.log_partition().item()
        added = perturbed_values(model, draws, generator=generator(1))
        averaged = perturbed_values(model, draws, generator=generator(2), average=True)
        for label, colour, estimates in (
            ("upper bound U", COLOURS[1], [upper_bound(added, 25, a) for a in alphas]),
            ("lower bound L", COLOURS[0], [lower_bound(averaged, 25, a) for a in alphas]),
        ):
            axis.errorbar(alphas, [e.value for e in estimates], [2 * e.standard_error for e in estimates],
                          color=colour, lw=1.2, marker="o", ms=3, label=label)  # fmt: skip
        axis.axhline(exact, color="0.2", lw=1, ls="--", label="exact log Z")
        axis.set(title="attractive couplings" if attractive else "mixed couplings", xlabel="alpha")
    axes[0].set_ylabel("nats")
    axes[0].legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(0, 0.56))
    return figure


PICTURES: dict[str, Callable[[], Figure]] = {
    "noise": noises,
    "binary_concrete": binary_concrete,
    "concrete": concrete,
    "top_k": top_k,
    "schedules": schedules,
    "chains": chains,
    "partition": partition,
    "tricks": tricks,
    "bounds": bounds,
}


def main() -> int:
    """Draw the chosen pictures and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("notebooks/pictures"), help="folder of the PNG files")
    parser.add_argument(
        "--only", nargs="+", choices=sorted(PICTURES), metavar="PICTURE", help=f"of {', '.join(PICTURES)}"
    )
    options = parser.parse_args()
    matplotlib.use("Agg")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name, draw in PICTURES.items():
        if not options.only or name in options.only:
            path = options.out / f"samplers_{name}.png"
            figure = draw()
            figure.savefig(path, dpi=90)
            plt.close(figure)
            print(f"{path} ({path.stat().st_size / 1024:.0f} kB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
