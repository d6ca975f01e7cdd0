"""Speed of sparsecbm.samplers beside torch.distributions, a plain torch.bernoulli sweep and scikit-learn, in one run.

Each contestant lives in a process of its own: in a shared one, what either leaves of the heap (pages returned to the
system, or kept) decides a third of the other's time. The contestants of a row take turns, round after round, so that
whatever else the machine does meets them alike; and the whole is repeated in fresh processes, for the state of a
heap lasts as long as its process. A row's ratio is the peer's median time over ours, all repeats together; its range is
that of the repeats. Exits with 1 where a ratio falls short of its goal.

Example: python scripts/benchmark_samplers.py --threads 2 --repeats 7

With more than one thread, every operation waits for its slowest thread: on a busy machine that measures the other
work there.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from sklearn.neural_network import BernoulliRBM

from sparsecbm import samplers
from sparsecbm.samplers import GibbsSampler, RestrictedBoltzmannMachine

SHAPE = (1000, 1600)
UNITS, CHAINS = 200, 1000
FLOOR = "its two matrix products alone"


@dataclass
class Row:
    """One comparison: medians in milliseconds, the ratio of peer to ours, its range, and the least asked (or None)."""

    what: str
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float
    low: float
    high: float
    asked: float | None

    @property
    def ok(self) -> bool:
        """Whether the ratio reaches its goal."""
        return self.asked is None or self.ratio >= self.asked


CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def contestant(name: str, gradient: bool) -> Callable[[], object]:
    """Return what one round of the contestant `name` runs, with its inputs made."""
    generator = torch.Generator().manual_seed(0)
    kind, _, what = name.partition(" ")
    if kind in ("binary", "categorical"):
        logits = torch.randn(SHAPE, generator=generator, requires_grad=gradient)
        temperature = torch.tensor(0.5)
        room = samplers if what.startswith("ours") else torch.distributions
        p = (room.RelaxedBernoulli if kind == "binary" else room.RelaxedOneHotCategorical)(temperature, logits=logits)
        draw = p.rsample if what.endswith("state") else p.base_dist.rsample
        return functools.partial(draw, generator=generator) if room is samplers else draw
    return gibbs(what, generator)


def gibbs(what: str, generator: torch.Generator) -> Callable[[], object]:
    """One full sweep (both halves) of CHAINS chains over a UNITS x UNITS machine."""
    rbm = RestrictedBoltzmannMachine(UNITS, UNITS, scale=0.1, generator=generator).requires_grad_(False)
    state: list = [(torch.rand(CHAINS, UNITS, generator=generator) < 0.5).float()]
    if what == "ours":
        sampler = GibbsSampler(rbm, state[0])
        return lambda: sampler.advance(1, generator=generator)
    if what == "floor":
        hidden, visible = torch.empty(CHAINS, UNITS), torch.empty(CHAINS, UNITS)

        def floor() -> None:
            torch.addmm(rbm.hidden_bias, state[0], rbm.weight, out=hidden)
            torch.addmm(rbm.visible_bias, hidden, rbm.weight.T, out=visible)

        return floor
    if what == "straightforward":

        def straightforward() -> None:
            h = torch.bernoulli(torch.sigmoid(state[0] @ rbm.weight + rbm.hidden_bias), generator=generator)
            state[0] = torch.bernoulli(torch.sigmoid(h @ rbm.weight.T + rbm.visible_bias), generator=generator)

        return straightforward
    theirs = BernoulliRBM(n_components=UNITS, random_state=0).fit(state[0].numpy()[:50])
    theirs.components_ = rbm.weight.T.numpy().astype(np.float32)
    theirs.intercept_hidden_ = np.zeros(UNITS, dtype=np.float32)
    theirs.intercept_visible_ = np.zeros(UNITS, dtype=np.float32)
    state[0] = state[0].numpy()

    def scikit_learn() -> None:
        state[0] = theirs.gibbs(state[0])

    return scikit_learn


def serve(connection: Connection, name: str, gradient: bool, threads: int, clock: str) -> None:
    """For every True, run a contestant twice and answer with the seconds of the second; end at False."""
    torch.set_num_threads(threads)
    run, now = contestant(name, gradient), CLOCKS[clock]
    connection.send(None)
    while connection.recv():
        time.sleep(0.02)  # until the other contestant's threads have stopped spinning
        run()
        start = now()
        run()
        connection.send(now() - start)


def compare(names: list[str], options: argparse.Namespace, gradient: bool = False) -> list[list[list[float]]]:
    """Return the seconds of each contestant, by repeat and round; two rounds of each repeat do not count."""
    context = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
    if context.get_start_method() == "forkserver":  # children start in milliseconds, each with a heap of its own
        context.set_forkserver_preload(["rich.table", "sklearn.neural_network", "sparsecbm.samplers"])
    seconds: list[list[list[float]]] = [[] for _ in names]
    for _ in range(options.repeats):
        lines, processes = [], []
        for name in names:
            mine, other = context.Pipe()
            arguments = (other, name, gradient, options.threads, options.clock)
            processes.append(context.Process(target=serve, args=arguments, daemon=True))
            processes[-1].start()
            lines.append(mine)
        for times, line in zip(seconds, lines, strict=True):
            line.recv()
            times.append([])
        for round_ in range(options.rounds + 2):
            for times, line in zip(seconds, lines, strict=True):
                line.send(True)
                spent = line.recv()
                if round_ >= 2:
                    times[-1].append(spent)
        for line, process in zip(lines, processes, strict=True):
            line.send(False)
            process.join()
    return seconds


def row(what: str, peer: str, ours: list[list[float]], theirs: list[list[float]], asked: float | None) -> Row:
    """Summarise two contestants' times."""
    ours_ms, peer_ms = (1e3 * statistics.median(itertools.chain(*times)) for times in (ours, theirs))
    ratios = [statistics.median(t) / statistics.median(o) for o, t in zip(ours, theirs, strict=True)]
    return Row(what, peer, ours_ms, peer_ms, peer_ms / ours_ms, min(ratios), max(ratios), asked)


def concrete_rows(options: argparse.Namespace, gradient: bool) -> list[Row]:
    """Binary and categorical samples at SHAPE, in logit / log space and in the unit interval / on the simplex."""
    note = " (logits need a gradient)" if gradient else ""
    rows = []
    for what, peer, name in [
        ("binary rsample", "LogitRelaxedBernoulli", "binary {}"),
        ("binary rsample, states", "RelaxedBernoulli", "binary {} state"),
        ("categorical rsample", "ExpRelaxedCategorical", "categorical {}"),
        ("categorical rsample, states", "RelaxedOneHotCategorical", "categorical {} state"),
    ]:
        if options.only not in what + note:
            continue
        ours, theirs = compare([name.format("ours"), name.format("torch")], options, gradient)
        rows.append(row(what + note, peer, ours, theirs, 3.0))
        print(f"{rows[-1].what}: {rows[-1].ratio:.2f}", file=sys.stderr)
    return rows


def gibbs_rows(options: argparse.Namespace) -> list[Row]:
    """One full sweep (both halves) of CHAINS chains over a UNITS x UNITS machine."""
    if options.only not in "block Gibbs sweep":
        return []
    names = ["gibbs ours", "gibbs straightforward", "gibbs scikit-learn", "gibbs floor"]
    ours, plain, sklearn, floor = compare(names, options)
    return [
        row("block Gibbs sweep", "torch.bernoulli(torch.sigmoid(...))", ours, plain, 2.0),
        row("block Gibbs sweep", "sklearn BernoulliRBM.gibbs", ours, sklearn, 1.0),
        row("block Gibbs sweep", FLOOR, ours, floor, None),
    ]


def main() -> int:
    """Run every comparison, print the table, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--threads",
        type=int,
        default=torch.get_num_threads(),
        help="threads of PyTorch (default: its own choice, %(default)s here)",
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds a process (default 7)")
    parser.add_argument("--repeats", type=int, default=5, help="fresh processes of each contestant (default 5)")
    parser.add_argument(
        "--clock", choices=sorted(CLOCKS), default="wall", help="cpu: on a busy machine, with one thread"
    )
    parser.add_argument("--only", default="", metavar="WORDS", help="only the rows named so, such as categorical")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args()
    for name in ("threads", "rounds", "repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} must be at least 1, got {getattr(options, name)}")
    rows = [*concrete_rows(options, True), *concrete_rows(options, False), *gibbs_rows(options)]
    table = Table(
        title=f"{SHAPE} samples; Gibbs {UNITS} x {UNITS} x {CHAINS}; {options.threads} threads, {options.clock} time"
    )
    for heading in ("ours", "peer", "ours ms", "peer ms", "peer / ours", "range", "asked", ""):
        table.add_column(heading, justify="left" if heading in ("ours", "peer", "") else "right")
    for r in rows:
        asked = "-" if r.asked is None else f">= {r.asked:g}"
        verdict = "" if r.asked is None else "[green]ok[/]" if r.ok else "[red]short[/]"
        table.add_row(r.what, r.peer, f"{r.ours_ms:.2f}", f"{r.peer_ms:.2f}", f"{r.ratio:.2f}",
                      f"{r.low:.2f} to {r.high:.2f}", asked, verdict)  # fmt: skip
    Console(width=160).print(table)
    for r in rows:
        if r.peer == FLOOR:
            print(f"share of the matrix-product floor that a {r.what} reaches: {r.ratio:.0%}")
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in rows], indent=2))
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
