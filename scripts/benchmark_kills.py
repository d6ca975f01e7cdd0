"""Stop commands at random points, give the same command again, and compare all that it wrote with an undisturbed run.

    python scripts/benchmark_kills.py --kills 200 --json kills.json
    python scripts/benchmark_kills.py --jobs train vae --signal int --kills 200

Four kinds: ``embed`` (painted birds by the bundled encoder), ``train`` (a bottleneck and its head, over an older
finished run in every other case), ``head`` (``evaluate``: three paths of heads and the controls), ``vae`` (a
discrete-latent model, over an older run in every other case). Each case is one command line, stopped by SIGKILL, or by
SIGINT as by Ctrl-C, in one of two ways by turns: at a moment drawn uniformly from the time that the undisturbed command
took, or just before a change of a file or folder drawn uniformly from those that it made; of the SIGINTs at a moment
every third is followed by a second one within 50 ms. Then the same command is given again; every third time it is
stopped again on its way. What lies there in the end is compared with an undisturbed run by SHA-256, file by file (left
out: what a clock measured), and so is the list of files: nothing may be left over. Where an older result was to be
replaced, the old model or the new one must lie there whole after every stop. What was stopped by SIGINT must say so in
one line at most.

The commands run in forks of one process that has loaded everything; the undisturbed run that they are compared with is
a process of its own, with another hash seed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from _commands import Command, Outcome, digests, preload

BIRDS = ["images.max_train=100", "images.max_validation=20", "images.max_test=40"]


def _set(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


def _train(iterations: int) -> list[str]:
    small = _set(*BIRDS, f"model.max_iter={iterations}", "evaluation.examples=2")
    return ["train", "birds_gumbel", "--output", "out", *small]


def _vae(epochs: int) -> list[str]:
    data = ("data.max_train=400", "data.max_validation=100", "data.max_test=60")
    steps = (f"training.epochs={epochs}", "training.checkpoint_every=10", "training.evaluate_every=4")
    small = _set(*data, *steps, "evaluation.samples=40", "evaluation.pictures=9")
    return ["vae", "vae_digits_gumbolt", "--output", "out", *small]


@dataclass
class Job:
    """A command line; `older` is one whose result it replaces, `cache` says to compare the cache as well."""

    arguments: list[str]
    older: list[str] | None = None
    cache: bool = False


def jobs(shared: Path) -> dict[str, Job]:
    """The four kinds."""
    more = _set("images.max_train=520", "images.max_validation=20", "images.max_test=20", "encoder.batch_size=32")
    return {
        "embed": Job(["embed", "birds_gumbel", *more], cache=True),
        "train": Job(_train(120), _train(20)),
        "head": Job(["evaluate", str(shared / "trained" / "out"), "--output", "out", "--nec", "1,2,3"]),
        "vae": Job(_vae(8), _vae(4)),
    }


@dataclass
class Row:
    """What came of one kind."""

    job: str
    signal: str
    undisturbed_seconds: float
    changes: int
    cases: int = 0
    kills: int = 0
    by_moment: int = 0
    by_change: int = 0
    with_checkpoint: int = 0
    bit_identical: int = 0
    old_or_new_whole: int = 0
    old_or_new_checked: int = 0
    defects: list[dict[str, Any]] = field(default_factory=list)


class Torture:
    """One kind of command, killed again and again."""

    def __init__(
        self, name: str, job: Job, home: Path, shared: Path, rng: np.random.Generator, kill: signal.Signals
    ) -> None:
        self.name, self.job, self.home, self.shared, self.rng, self.kill = name, job, home, shared, rng, kill
        self.expected = self._undisturbed(job.arguments, home / "undisturbed")
        forked = self._start(home / "forked").wait()
        if forked.status:
            raise SystemExit(f"{name} failed: {forked.errors}")
        assert forked.changes is not None
        if (found := self._digests(home / "forked")) != self.expected:
            raise SystemExit(f"{name} is not deterministic: {_compare(found, self.expected)}")
        self.old: dict[str, str] = {}
        if job.older is not None:
            self.old = self._undisturbed(job.older, home / "older")
        self.row = Row(name, kill.name, round(forked.seconds, 2), forked.changes)

    def case(self, number: int) -> None:
        """Kill, go on, compare."""
        place = self.home / f"case-{number}"
        over = bool(self.old) and number % 2 == 1
        if over:
            shutil.copytree(self.home / "older", place)
        killed = 0
        while True:
            ended = self._attempt(place, number, killed == 0 or self.rng.random() < 1 / 3)
            if not ended.killed:
                # The first run of a case that got to its end before its moment: the case begins again.
                if killed or ended.status:
                    break
                shutil.rmtree(place)
                if over:
                    shutil.copytree(self.home / "older", place)
                continue
            killed += 1
            self.row.kills += 1
            self.row.with_checkpoint += (place / "out" / "checkpoint").is_dir()
            if not ended.clear:
                self.row.defects.append({"case": number, "said": ended.errors})
            if over:
                self._whole(place, number)
        self.row.cases += 1
        found = self._digests(place)
        if ended.status == 0 and found == self.expected:
            self.row.bit_identical += 1
            shutil.rmtree(place)
            return
        difference = _compare(found, self.expected)
        self.row.defects.append({"case": number, "status": ended.status, "errors": ended.errors, **difference})
        print(f"{self.name} case {number}: {self.row.defects[-1]}", file=sys.stderr)

    def _attempt(self, place: Path, number: int, kill: bool) -> Outcome:
        if not kill:
            return self._start(place).wait()
        if number // 2 % 2 == 0:
            moment, again = self.rng.uniform(0, self.row.undisturbed_seconds), self.rng.uniform(0, 0.05)
            twice = self.kill == signal.SIGINT and self.rng.random() < 1 / 3
            ended = self._start(place).wait(float(moment), float(again) if twice else math.inf)
            self.row.by_moment += ended.killed
        else:
            ended = self._start(place, int(self.rng.integers(1, self.row.changes + 1))).wait()
            self.row.by_change += ended.killed
        return ended

    def _whole(self, place: Path, number: int) -> None:
        self.row.old_or_new_checked += 1
        found = _of_model(self._digests(place, lenient=True))
        if found in (_of_model(self.old), _of_model(self.expected)):
            self.row.old_or_new_whole += 1
        else:
            self.row.defects.append({"case": number, "neither the old model nor the new one": found})

    def _start(self, place: Path, kill_at_change: int | None = None) -> Command:
        environment = self._environment(place)
        return Command(self.job.arguments, place, environment, kill_at_change=kill_at_change, kill=self.kill)

    def _environment(self, place: Path) -> dict[str, str]:
        return {"SPARSECBM_CACHE": str((place if self.job.cache else self.shared) / "cache")}

    def _undisturbed(self, arguments: list[str], place: Path) -> dict[str, str]:
        place.mkdir(parents=True)
        environment = {**os.environ, **self._environment(place), "PYTHONHASHSEED": "1"}
        command = [sys.executable, "-m", "sparsecbm", *arguments]
        done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{self.name} failed: {done.stderr}")
        return self._digests(place)

    def _digests(self, place: Path, lenient: bool = False) -> dict[str, str]:
        try:
            return digests(place)
        except ValueError:  # JSON that is none
            if lenient:
                return {}
            raise


def _of_model(found: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in found.items() if name.startswith("out/model/")}


def _compare(found: dict[str, str], expected: dict[str, str]) -> dict[str, list[str]]:
    return {
        "missing": sorted(expected.keys() - found.keys()),
        "left over": sorted(found.keys() - expected.keys()),
        "different": sorted(name for name in expected.keys() & found.keys() if expected[name] != found[name]),
    }


def report(rows: list[Row], seconds: float) -> str:
    """The rows as a Markdown table, and the sum."""
    lines = [
        "| command | signal | undisturbed | changes of files | cases | stops | by moment | before a change "
        "| leaving a checkpoint | bit-identical ends | old or new model whole |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        whole = f"{row.old_or_new_whole} of {row.old_or_new_checked}" if row.old_or_new_checked else ""
        lines.append(
            f"| {row.job} | {row.signal} | {row.undisturbed_seconds} s | {row.changes} | {row.cases} | {row.kills} "
            f"| {row.by_moment} | {row.by_change} | {row.with_checkpoint} | {row.bit_identical} | {whole} |"
        )
    cases, same = sum(row.cases for row in rows), sum(row.bit_identical for row in rows)
    kills = sum(row.kills for row in rows)
    lines.append(f"\n{kills} stops in {cases} cases: {cases} resumed, {same} bit-identical ends; {seconds:.0f} s.")
    return "\n".join(lines)


def main() -> None:
    """Torture every kind, print and keep the report; exit 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kills", type=int, default=200, help="cases over all kinds together, each stopped at least once"
    )
    parser.add_argument("--signal", choices=("int", "kill"), default="kill", help="SIGINT, as by Ctrl-C, or SIGKILL")
    parser.add_argument("--jobs", nargs="+", choices=("embed", "train", "head", "vae"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the rows here, and the table beside them as .md")
    arguments = parser.parse_args()
    if not hasattr(os, "fork"):
        raise SystemExit("needs fork and SIGKILL")
    preload()
    from sparsecbm._base.progress import ProgressBar

    start = time.perf_counter()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        shared = Path(folder, "shared")
        known = jobs(shared)
        trained = Command(_train(100), shared / "trained", {"SPARSECBM_CACHE": str(shared / "cache")}).wait()
        if trained.status:
            raise SystemExit(f"cannot train: {trained.errors}")
        chosen = arguments.jobs or list(known)
        shares = [len(part) for part in np.array_split(np.arange(arguments.kills), len(chosen))]
        with ProgressBar("kills", arguments.kills) as bar:
            for name, share in zip(chosen, shares):
                rng = np.random.default_rng([arguments.seed, list(known).index(name)])
                kill = {"int": signal.SIGINT, "kill": signal.SIGKILL}[arguments.signal]
                torture = Torture(name, known[name], Path(folder, name), shared, rng, kill)
                rows.append(torture.row)
                for number in range(share):
                    torture.case(number)
                    bar.update(1, note=f"{name}: {torture.row.bit_identical} of {torture.row.cases} bit-identical")
                    text = report(rows, time.perf_counter() - start)
                    if arguments.json:  # after every case, so that a long run that is stopped leaves what it has
                        arguments.json.write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n")
                        arguments.json.with_suffix(".md").write_text(text + "\n")
                print(f"{name}: {torture.row.bit_identical} of {torture.row.cases}", file=sys.stderr)
    print(text)
    raise SystemExit(any(row.defects for row in rows))


if __name__ == "__main__":
    main()
