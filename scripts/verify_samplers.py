"""Checks of sparsecbm.samplers that take longer than a test suite may: each figure asked beside the figure seen.

Exits with 1 where one falls short. All of it takes some ten minutes on one idle core; --only picks checks, --scale
shrinks the number of draws (the figures asked stay the same).

Example: python scripts/verify_samplers.py --only ais tricks
"""

from __future__ import annotations

import argparse
import itertools
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from scipy import stats

from sparsecbm.samplers import (
    BinaryConcrete,
    Concrete,
    GibbsSampler,
    ParallelTempering,
    RestrictedBoltzmannMachine,
    annealed_importance_sampling,
    noise,
    reverse_annealed_importance_sampling,
)
from sparsecbm.samplers.perturb import (
    SequentialSampler,
    grid_model,
    lower_bound,
    make_trick,
    perturbed_maxima,
    perturbed_values,
    upper_bound,
)
from sparsecbm.samplers.rbm import binary_states

TEMPERATURES = (1e-3, 0.1, 0.5, 1.0, 10.0)


@dataclass
class Finding:
    """One line of the table."""

    what: str
    asked: str
    seen: str
    ok: bool


@dataclass
class Settings:
    """What the checks share."""

    seed: int
    scale: float

    def generator(self, offset: int = 0) -> torch.Generator:
        """A generator of its own for each use."""
        return torch.Generator().manual_seed(1000 * self.seed + offset)

    def draws(self, full: float, least: int = 1000) -> int:
        """A number of draws, scaled."""
        return max(int(full * self.scale), least)


def marginals(settings: Settings) -> Iterator[Finding]:
    """Hard samples at every temperature, chi-square over at least 10^6 draws each."""
    level = 1e-3 / (2 * len(TEMPERATURES))
    for offset, temperature in enumerate(TEMPERATURES):
        count = settings.draws(2e6)
        logits = torch.tensor([1.3])
        seen = ones = 0
        for block in range(-(-count // 500_000)):
            generator = settings.generator(100 * offset + block)
            hard = BinaryConcrete(temperature, logits=logits).draw((500_000,), generator=generator).hard
            ones, seen = ones + int(hard.sum()), seen + len(hard)
        p = torch.sigmoid(logits.double()).item()
        value = stats.chisquare([ones, seen - ones], [seen * p, seen * (1 - p)]).pvalue
        yield Finding(
            f"binary hard marginal, temperature {temperature:g}, {seen:.1e} draws",
            f"p > {level:.0e}",
            f"{value:.3f}",
            value > level,
        )
        logits = torch.tensor([-2.0, 0.0, 1.0, 0.3, -1.0])
        counts = torch.zeros(5, dtype=torch.float64)
        for block in range(-(-count // 500_000)):
            generator = settings.generator(100 * offset + block + 50)
            counts += Concrete(temperature, logits=logits).draw((500_000,), generator=generator).hard.double().sum(0)
        expected = counts.sum() * logits.double().softmax(0)
        value = stats.chisquare(counts.numpy(), expected.numpy()).pvalue
        yield Finding(
            f"categorical hard marginal, temperature {temperature:g}, {counts.sum():.1e} draws",
            f"p > {level:.0e}",
            f"{value:.3f}",
            value > level,
        )


def ks(settings: Settings) -> Iterator[Finding]:
    """Kolmogorov-Smirnov of the noise in float32; bfloat16 against the rounded law on its grid."""
    count = settings.draws(2e6)
    laws = {"gumbel": stats.gumbel_r, "logistic": stats.logistic, "exponential": stats.expon}
    for offset, (name, law) in enumerate(laws.items()):
        draws = getattr(noise, name)(count, generator=settings.generator(offset))
        value = stats.kstest(draws.double().numpy(), law.cdf).pvalue
        yield Finding(f"KS of {name}, float32, {count:.0e} draws", "p > 1e-04", f"{value:.3f}", value > 1e-4)
        short = getattr(noise, name)(count, generator=settings.generator(offset + 10), dtype=torch.bfloat16).double()
        values, counts = short.unique(return_counts=True)
        # A value of the grid stands for what lies between the middles to its neighbours (all neighbours, drawn or not).
        integers = values.bfloat16().view(torch.int16)
        above = torch.where(values > 0, integers + 1, integers - 1).view(torch.bfloat16).double()
        middles = ((values + above) / 2)[values != 0]
        empirical = (counts.cumsum(0).double() / count)[values != 0]
        gap = (empirical - torch.from_numpy(law.cdf(middles.numpy()))).abs().max().item()
        limit = stats.kstwo.isf(1e-4, count)
        yield Finding(f"KS of {name}, bfloat16 at the rounding boundaries", f"< {limit:.1e}", f"{gap:.1e}", gap < limit)


def finite(settings: Settings) -> Iterator[Finding]:
    """No NaN or infinity over 10^8 draws and gradients, |logit| up to 1e4, temperature down to 1e-3, fp32 and bf16."""
    total = settings.draws(1e8)
    cases = list(itertools.product((torch.float32, torch.bfloat16), (1e-3, 0.5)))
    block = 500_000
    for index, build in enumerate((BinaryConcrete, Concrete)):
        drawn = bad = 0
        generator = settings.generator(index)
        spread = torch.linspace(-1e4, 1e4, block // 2)
        while drawn < total:
            dtype, temperature = cases[(drawn // block) % len(cases)]
            values = torch.cat([spread, torch.randn(block // 2, generator=generator) * 3]).to(dtype)
            logits = (values if build is BinaryConcrete else values.view(-1, 10)).requires_grad_()
            q = build(temperature, logits=logits)
            y = q.rsample(generator=generator)
            logp = q.log_prob(y)
            (through_samples,) = torch.autograd.grad(y.float().sigmoid().sum() + logp.sum(), logits)
            bad += sum(int((~t.isfinite()).sum()) for t in (y, logp, through_samples))
            drawn += y.numel()
        yield Finding(
            f"{build.__name__}: NaN or inf over {drawn:.1e} draws, log-densities and gradients", "0", str(bad), bad == 0
        )


def joint(rbm: RestrictedBoltzmannMachine) -> torch.Tensor:
    """Probabilities of every joint state."""
    units = rbm.n_visible + rbm.n_hidden
    states = binary_states(0, 1 << units, units, dtype=rbm.weight.dtype, device=None)
    return (-rbm.energy(states[:, : rbm.n_visible], states[:, rbm.n_visible :])).double().softmax(0)


@torch.no_grad()
def tempering(settings: Settings) -> Iterator[Finding]:
    """Total variation on bimodal machines: tempering against plain Gibbs, the same number of sweeps."""
    count = settings.draws(60_000)
    sweeps, burn_in, every = 160, 60, 4
    for n, strength, tilt in ((2, 8.0, 0.0), (3, 4.5, 0.0), (3, 4.5, 0.1)):
        weight = torch.full((n, n), strength)
        bias = torch.full((n,), -strength * n / 2 + tilt)
        rbm = RestrictedBoltzmannMachine.from_parameters(weight, bias, bias.clone())
        target = joint(rbm)
        place = 2.0 ** torch.arange(2 * n)
        counts = {"plain": torch.zeros(1 << 2 * n), "tempered": torch.zeros(1 << 2 * n)}
        plain = GibbsSampler(rbm, torch.zeros(count, n))
        ladder = ParallelTempering(rbm, count, torch.linspace(0, 1, 6), generator=settings.generator(n))
        ladder.visible.zero_()
        generator = settings.generator(10 + n)
        for sweep in range(1, sweeps + 1):
            plain.advance(1, generator=generator)
            visible, hidden = ladder.advance(1)
            if sweep > burn_in and sweep % every == 0:
                for name, v, h in (("plain", plain.visible, plain.hidden), ("tempered", visible, hidden)):
                    numbers = (torch.cat([v, h], -1) @ place).long()
                    counts[name] += torch.bincount(numbers, minlength=1 << 2 * n)
        distance = {name: 0.5 * (c.double() / c.sum() - target).abs().sum().item() for name, c in counts.items()}
        label = f"{n} x {n}, couplings {strength:g}, tilt {tilt:g}, {count} chains x {sweeps} sweeps"
        yield Finding(
            f"tempering: total variation, {label}",
            "<= 0.002",
            f"{distance['tempered']:.4f}",
            distance["tempered"] <= 0.002,
        )
        yield Finding(
            "  plain Gibbs, the same sweeps", ">= 0.05", f"{distance['plain']:.4f}", distance["plain"] >= 0.05
        )


@torch.no_grad()
def ais(settings: Settings) -> Iterator[Finding]:
    """AIS on 20 x 200, weights N(0, 0.6^2): error, time, and the sandwich over 100 seeds."""
    rbm = RestrictedBoltzmannMachine(20, 200, scale=0.6, generator=settings.generator())
    start = time.perf_counter()
    exact = rbm.log_partition().item()
    yield Finding(f"exact log Z of 20 x 200 = {exact:.4f}", "-", f"{time.perf_counter() - start:.1f} s", True)
    betas = torch.linspace(0, 1, 600, dtype=torch.float64)
    start = time.process_time()  # with one thread what it takes on an idle machine, whatever else runs
    estimate = annealed_importance_sampling(rbm, betas, 1024, generator=settings.generator(1))
    seconds = time.process_time() - start
    error = estimate.log_partition - exact
    yield Finding(
        f"AIS, 600 betas x 1024 chains: error in nats (standard error {estimate.standard_error:.3f},"
        f" ESS {estimate.effective_sample_size:.0f})", "|.| <= 0.05", f"{error:+.4f}", abs(error) <= 0.05,
    )  # fmt: skip
    yield Finding("  its CPU time", "<= 10 s", f"{seconds:.1f} s", seconds <= 10)
    seeds = settings.draws(100, 20)
    short = torch.linspace(0, 1, 200, dtype=torch.float64)
    visible, _ = rbm.sample_exact(64 * seeds, generator=settings.generator(2))
    held = covered = 0
    for seed in range(seeds):
        generator = settings.generator(100 + seed)
        forward = annealed_importance_sampling(rbm, short, 64, generator=generator)
        backward = reverse_annealed_importance_sampling(
            rbm, short, visible[64 * seed : 64 * (seed + 1)], generator=generator
        )
        held += forward.bound <= exact <= backward.bound
        low = forward.log_partition - 2 * forward.standard_error
        covered += low <= exact <= backward.log_partition + 2 * backward.standard_error
    need = math.ceil(0.95 * seeds)
    yield Finding(f"sandwich of mean log weights holds, of {seeds} seeds", f">= {need}", str(held), held >= need)
    yield Finding("  of the estimates, two standard errors outwards", f">= {need}", str(covered), covered >= need)


def tricks(settings: Settings) -> Iterator[Finding]:
    """Predicted against empirical mean squared error of every estimator of log Z."""
    log_potentials = torch.full((3,), math.log(7.0), dtype=torch.float64)
    log_z = math.log(21.0)
    cases: list[tuple[str, dict[str, float]]] = [
        ("gumbel", {}),
        ("exponential", {}),
        ("weibull", {"alpha": 0.5}),
        ("weibull", {"alpha": 2.0}),
        ("frechet", {"alpha": -0.1}),
        ("frechet", {"alpha": -0.25}),
        ("pareto", {}),
        ("tail", {"t": 0.076}),
    ]
    for index, (name, options) in enumerate(cases):
        trick = make_trick(name, **options)
        for count in (10, 100, 1000):
            repeats = settings.draws(5e6 if count == 1000 else 2e6) // count
            values = perturbed_maxima(log_potentials, repeats * count, generator=settings.generator(count + index))
            squared = (trick.log_partition(values.view(repeats, count)) - log_z) ** 2
            predicted, seen = trick.mse(count, log_z), squared.mean().item()
            z = (seen - predicted) / (squared.std().item() / math.sqrt(repeats))
            label = name + "".join(f", {key} {value:g}" for key, value in options.items())
            yield Finding(
                f"MSE of {label}, M = {count}: {seen:.6f}, predicted {predicted:.6f}",
                "|z| <= 3",
                f"z = {z:+.2f}",
                abs(z) <= 3,
            )


def bounds(settings: Settings) -> Iterator[Finding]:
    """U(alpha) >= log Z >= L(alpha) on 5 x 5 grids with exact log Z, the estimates two standard errors inwards."""
    for attractive in (True, False):
        kind = "attractive" if attractive else "mixed"
        model = grid_model(5, 5, field=1.0, coupling=1.0, attractive=attractive, generator=settings.generator())
        exact = model.log_partition().item()
        added = perturbed_values(model, settings.draws(20_000), generator=settings.generator(1))
        averaged = perturbed_values(model, settings.draws(20_000), generator=settings.generator(2), average=True)
        for alpha in (-0.15, -0.1, -0.05, 0.0, 0.05, 0.1):
            upper, lower = upper_bound(added, 25, alpha), lower_bound(averaged, 25, alpha)
            ok = lower.value + 2 * lower.standard_error <= exact <= upper.value - 2 * upper.standard_error
            seen = f"{lower.value:.3f} <= {exact:.3f} <= {upper.value:.3f}"
            yield Finding(f"5 x 5 {kind} grid, alpha {alpha:g}", "L <= ln Z <= U", seen, ok)


def sequential(settings: Settings) -> Iterator[Finding]:
    """Acceptance Z / e^U and chi-square of the sequential sampler's draws."""
    model = grid_model(3, 3, field=1.0, coupling=1.0, attractive=False, generator=settings.generator())
    sampler = SequentialSampler(model, n_perturbations=4000, alpha=-0.1, margin=0.08, generator=settings.generator(1))
    result = sampler.sample(settings.draws(20_000))
    count = len(result.states)
    yield Finding(
        "sequential sampler, 3 x 3 grid: bounds that break their order",
        "0",
        str(result.violations),
        result.violations == 0,
    )
    acceptance = math.exp(model.log_partition().item() - sampler.log_bound)
    value = stats.binomtest(count, result.attempts, acceptance).pvalue
    yield Finding(
        f"  acceptance {count / result.attempts:.4f}, Z / e^U = {acceptance:.4f}",
        "p > 1e-03",
        f"{value:.3f}",
        value > 1e-3,
    )
    states = torch.tensor(list(itertools.product(range(2), repeat=9)))
    expected = count * model.log_potential(states).softmax(0)
    place = 2 ** torch.arange(8, -1, -1)
    seen = torch.bincount(result.states @ place, minlength=512).double()
    order = expected.argsort(descending=True)
    keep = int((expected >= 5).sum())
    observed = torch.cat([seen[order][:keep], seen[order][keep:].sum()[None]])
    predicted = torch.cat([expected[order][:keep], expected[order][keep:].sum()[None]])
    value = stats.chisquare(observed.numpy(), predicted.numpy()).pvalue
    yield Finding(f"  chi-square over {keep + 1} cells, {count} samples", "p > 1e-03", f"{value:.3f}", value > 1e-3)


CHECKS: dict[str, Callable[[Settings], Iterator[Finding]]] = {
    "marginals": marginals,
    "ks": ks,
    "finite": finite,
    "tempering": tempering,
    "ais": ais,
    "tricks": tricks,
    "bounds": bounds,
    "sequential": sequential,
}


def main() -> int:
    """Run the checks, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=sorted(CHECKS), metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--seed", type=int, default=0, help="seed of every draw (default 0)")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of draws (default 1)")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch (default 1)")
    options = parser.parse_args()
    if not options.scale > 0 or options.threads < 1:
        parser.error(f"--scale must be above 0 and --threads at least 1, got {options.scale} and {options.threads}")
    torch.set_num_threads(options.threads)
    settings = Settings(options.seed, options.scale)
    table = Table(title=f"sparsecbm.samplers, seed {options.seed}, scale {options.scale:g}")
    for heading in ("figure", "asked", "seen", ""):
        table.add_column(heading, justify="right" if heading == "seen" else "left")
    names = [name for name in CHECKS if not options.only or name in options.only]
    failures = 0
    start = time.perf_counter()
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("verifying", total=len(names))
        for name in names:
            progress.update(task, description=name)
            for finding in CHECKS[name](settings):
                failures += not finding.ok
                table.add_row(
                    finding.what, finding.asked, finding.seen, "[green]ok[/]" if finding.ok else "[red]short[/]"
                )
            progress.advance(task)
    Console(width=160).print(table)
    print(f"{failures} short, {time.perf_counter() - start:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
