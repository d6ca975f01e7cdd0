"""Speed of sparsecbm.samplers beside torch.distributions, a plain torch.bernoulli sweep and scikit-learn, in one run.

The contestants of a row take turns, round after round, so that whatever else the machine does meets them alike; a
row's ratio is the median over the rounds of the peer's time over ours. Exits with 1 where a ratio falls short of its
goal.

Example: python scripts/benchmark_samplers.py --threads 2 --rounds 21

With more than one thread, every operation waits for its slowest thread: on a busy machine that measures the other
work there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.neural_network import BernoulliRBM
from torch.distributions import RelaxedBernoulli, RelaxedOneHotCategorical

from sparsecbm.samplers import BinaryConcrete, Concrete, GibbsSampler, RestrictedBoltzmannMachine

SHAPE = (1000, 1600)
UNITS, CHAINS = 200, 1000


@dataclass
class Row:
    """One comparison: medians in milliseconds, the ratio of peer to ours, and the least ratio asked (or None)."""

    what: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float
    asked: float | None

    @property
    def ok(self) -> bool:
        """Whether the ratio reaches its goal."""
        return self.asked is None or self.ratio >= self.asked


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
clock = CLOCKS["wall"]


def compare(contestants: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Return the seconds of each contestant in each round, after two rounds that do not count."""
    seconds: list[list[float]] = [[] for _ in contestants]
    for round_ in range(rounds + 2):
        for times, run in zip(seconds, contestants, strict=True):
            start = clock()
            run()
            if round_ >= 2:
                times.append(clock() - start)
    return seconds


def row(what: str, peer: str, ours: list[float], theirs: list[float], asked: float | None) -> Row:
    """Summarise two contestants' times."""
    ratio = statistics.median(t / o for o, t in zip(ours, theirs, strict=True))
    return Row(what, peer, 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs), ratio, asked)


def concrete_rows(rounds: int, gradient: bool) -> list[Row]:
    """Binary and categorical samples at SHAPE, in logit / log space and in the unit interval / on the simplex."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(SHAPE, generator=generator, requires_grad=gradient)
    binary, categorical = BinaryConcrete(0.5, logits=logits), Concrete(0.5, logits=logits)
    temperature = torch.tensor(0.5)
    peer_binary = RelaxedBernoulli(temperature, logits=logits)
    peer_categorical = RelaxedOneHotCategorical(temperature, logits=logits)
    note = " (logits need a gradient)" if gradient else ""
    pairs = [
        ("binary rsample", "LogitRelaxedBernoulli", binary.rsample, peer_binary.base_dist.rsample, False),
        ("binary rsample, sigmoid", "RelaxedBernoulli", binary.rsample, peer_binary.rsample, True),
        (
            "categorical rsample",
            "ExpRelaxedCategorical",
            categorical.rsample,
            peer_categorical.base_dist.rsample,
            False,
        ),
        ("categorical rsample, exp", "RelaxedOneHotCategorical", categorical.rsample, peer_categorical.rsample, True),
    ]
    rows = []
    for what, peer, sample, theirs, to_state in pairs:
        finish = (torch.sigmoid if what.startswith("binary") else torch.exp) if to_state else (lambda y: y)
        ours = lambda sample=sample, finish=finish: finish(sample(generator=generator))  # noqa: E731
        times = compare([ours, theirs], rounds)
        rows.append(row(what + note, peer, *times, 3.0))
    return rows


def gibbs_rows(rounds: int) -> list[Row]:
    """One full sweep (both halves) of CHAINS chains over a UNITS x UNITS machine."""
    generator = torch.Generator().manual_seed(0)
    rbm = RestrictedBoltzmannMachine(UNITS, UNITS, scale=0.1, generator=generator).requires_grad_(False)
    start = (torch.rand(CHAINS, UNITS, generator=generator) < 0.5).float()
    sampler = GibbsSampler(rbm, start)
    plain = [start.clone()]
    theirs = BernoulliRBM(n_components=UNITS, random_state=0).fit(start.numpy()[:50])
    theirs.components_ = rbm.weight.T.numpy().astype(np.float32)
    theirs.intercept_hidden_ = np.zeros(UNITS, dtype=np.float32)
    theirs.intercept_visible_ = np.zeros(UNITS, dtype=np.float32)
    state = [start.numpy()]
    hidden, visible = torch.empty(CHAINS, UNITS), torch.empty(CHAINS, UNITS)

    def ours() -> None:
        sampler.advance(1, generator=generator)

    def straightforward() -> None:
        h = torch.bernoulli(torch.sigmoid(plain[0] @ rbm.weight + rbm.hidden_bias), generator=generator)
        plain[0] = torch.bernoulli(torch.sigmoid(h @ rbm.weight.T + rbm.visible_bias), generator=generator)

    def scikit_learn() -> None:
        state[0] = theirs.gibbs(state[0])

    def floor() -> None:
        torch.addmm(rbm.hidden_bias, start, rbm.weight, out=hidden)
        torch.addmm(rbm.visible_bias, hidden, rbm.weight.T, out=visible)

    times = compare([ours, straightforward, scikit_learn, floor], rounds)
    return [
        row("block Gibbs sweep", "torch.bernoulli(torch.sigmoid(...))", times[0], times[1], 2.0),
        row("block Gibbs sweep", "sklearn BernoulliRBM.gibbs", times[0], times[2], 1.0),
        row("block Gibbs sweep", "its two matrix products alone", times[0], times[3], None),
    ]


def main() -> int:
    """Run every comparison, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads", type=int, default=1, help="threads of PyTorch (default 1; more only on an idle machine)"
    )
    parser.add_argument("--rounds", type=int, default=21, help="rounds behind each median (default 21)")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: on a busy machine, with one thread"
    )
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    if options.threads < 1 or options.rounds < 1:
        parser.error(f"--threads and --rounds must be at least 1, got {options.threads} and {options.rounds}")
    global clock
    clock = CLOCKS[options.clock]
    torch.set_num_threads(options.threads)
    rows = [*concrete_rows(options.rounds, True), *concrete_rows(options.rounds, False), *gibbs_rows(options.rounds)]
    table = Table(
        title=f"{SHAPE} samples; Gibbs {UNITS} x {UNITS} x {CHAINS}; {options.threads} threads, {options.clock} time"
    )
    for heading in ("ours", "peer", "ours ms", "peer ms", "peer / ours", "asked", ""):
        table.add_column(heading, justify="left" if heading in ("ours", "peer", "") else "right")
    for r in rows:
        asked = "-" if r.asked is None else f">= {r.asked:g}"
        verdict = "" if r.asked is None else "[green]ok[/]" if r.ok else "[red]short[/]"
        table.add_row(r.what, r.peer, f"{r.ours_ms:.2f}", f"{r.peer_ms:.2f}", f"{r.ratio:.2f}", asked, verdict)
    Console(width=150).print(table)
    print(f"share of the matrix-product floor that a Gibbs sweep reaches: {rows[-1].ratio:.0%}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=2))
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
