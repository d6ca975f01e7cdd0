"""Everything side by side with what a user would use instead: one command, one table, one picture.

    python scripts/benchmark_all.py --data-dir DIR                everything, in full
    python scripts/benchmark_all.py --data-dir DIR --quick        the same in three minutes, coarser
    python scripts/benchmark_all.py --json all.json --draw all.png

Each line is a benchmark script of this folder, run in a process of its own; a ratio is the other's time over ours, with
the lowest and highest of the repeats where the script repeats. Lines that need real data are left out, with a note,
where --data-dir is not given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass
class Line:
    """One comparison; `ratio` is the other's time over ours."""

    what: str
    against: str
    ours: str
    theirs: str
    ratio: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass
class Job:
    """One script: its arguments (quick and full), whether it needs data, and how its JSON becomes lines."""

    script: str
    full: list[str]
    quick: list[str]
    lines: Callable[[Any], list[Line]]
    needs_data: bool = False
    json_option: str | None = "--json"


def _time(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


_FLOORS = ("its two matrix products alone",)


def _steps(row: dict[str, Any]) -> list[Line]:
    return [
        Line(
            f"training epoch, {row['pictures']:,} pictures, {row['concepts']} concepts",
            "encoding pictures and texts again at each step",
            _time(row["stored_epoch_ms"]), _time(row["published_epoch_ms"]),
            row["ratio"], row["ratio_low"], row["ratio_high"],
        )
    ]  # fmt: skip


def _embed(row: dict[str, Any]) -> list[Line]:
    ours, theirs = (1000 * row["pictures"] / row[key] for key in ("embed_pictures_per_s", "bare_pictures_per_s"))
    note = "with hashing, checksums and the cache's writing"
    return [
        Line(
            f"embedding {row['pictures']:,} pictures", "bare loop over the open_clip model",
            _time(ours), _time(theirs),
            row["median_paired_ratio"], row["paired_ratio_low"], row["paired_ratio_high"], note,
        )
    ]  # fmt: skip


def _heads(rows: list[dict[str, Any]]) -> list[Line]:
    return [
        Line(
            f"elastic-net head, {row['shape']}", "glm_saga", _time(1000 * row["ours_s"]),
            _time(1000 * row["glm_saga_s"]), row["glm_saga_s"] / row["ours_s"],
            row["speedup_low"], row["speedup_high"], "" if row["reached"] else "at least: it was stopped",
        )
        for row in rows
        if "speedup" in row
    ]  # fmt: skip


def _samplers(rows: list[dict[str, Any]]) -> list[Line]:
    # Samples whose logits need a gradient, as in training; without the rows that a switch must be set for.
    return [
        Line(
            row["what"].partition(" (")[0], row["peer"], _time(row["ours_ms"]), _time(row["peer_ms"]),
            row["ratio"], row["low"], row["high"],
        )
        for row in rows
        if "compiled" not in row["what"] and row["peer"] not in _FLOORS
        and ("gradient" in row["what"] or "Gibbs" in row["what"])
    ]  # fmt: skip


def _decompose(rows: list[dict[str, Any]]) -> list[Line]:
    return [
        Line(
            f"sparse decomposition, penalty {row['alpha']}, an image", "scikit-learn's Lasso",
            _time(row["ms_per_image"]), _time(row["sklearn_ms_per_image"]),
            row["times_faster"], row["times_faster_low"], row["times_faster_high"],
        )
        for row in rows
        if "times_faster" in row
    ]  # fmt: skip


JOBS = {
    "steps": Job("benchmark_steps.py", ["--repeats", "5"], ["--images", "600", "--repeats", "3"], _steps),
    "embed": Job(
        "benchmark_embed.py", ["--repeats", "5"], ["--max-images", "300", "--repeats", "3"], _embed, True, None
    ),
    "heads": Job("benchmark_heads.py", ["--speed"], ["--speed", "--shapes", "4000x100x10", "--repeats", "3"], _heads),
    "samplers": Job("benchmark_samplers.py", [], ["--rounds", "3", "--repeats", "2"], _samplers),
    "decompose": Job(
        "benchmark_decompose.py",
        ["--images", "2000", "--sklearn-images", "500"],
        ["--images", "500", "--sklearn-images", "40"],
        _decompose, True, "--output",
    ),
}  # fmt: skip


def run(job: Job, arguments: argparse.Namespace, seconds: float) -> list[Line]:
    """Run one script and read its JSON."""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder, "rows.json")
        command = [sys.executable, str(HERE / job.script), *(job.quick if arguments.quick else job.full)]
        command += ["--data-dir", str(arguments.data_dir)] if job.needs_data else []
        command += [job.json_option, str(written)] if job.json_option else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
        if done.returncode not in (0, 1) or (job.json_option and not written.exists()):
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no output")
        # A script that prints its figures ends with them.
        text = written.read_text() if job.json_option else done.stdout[done.stdout.index("{") :]
        return job.lines(json.loads(text))


def table(lines: list[Line]) -> str:
    """The lines as a Markdown table."""
    rows = ["| what | ours | instead | theirs | times faster |", "|---|---:|---|---:|---:|"]
    for line in lines:
        spread = "" if line.low is None else f" ({line.low:.3g} to {line.high:.3g})"
        note = f"; {line.note}" if line.note else ""
        rows.append(f"| {line.what}{note} | {line.ours} | {line.against} | {line.theirs} | {line.ratio:.3g}{spread} |")
    return "\n".join(rows)


def draw(lines: list[Line], path: Path) -> None:
    """Draw the ratios as bars on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 0.45 * len(lines) + 1.2), layout="constrained")
    places = range(len(lines))[::-1]
    for place, line in zip(places, lines):
        colour = "#2b6cb0" if line.ratio >= 1 else "#c05621"
        axes.barh(place, line.ratio - 1, left=1, color=colour, height=0.6)
        if line.low is not None:
            axes.plot([line.low, line.high], [place, place], color="black", linewidth=1)
        axes.annotate(f"{line.ratio:.3g}x", (max(line.ratio, line.high or 0), place), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_yticks(list(places), [f"{line.what}\nagainst {line.against}" for line in lines], fontsize=7)
    axes.set_xlabel("their time / our time")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    figure.savefig(path, dpi=150)


def main() -> None:
    """Run the benchmarks; print, keep and draw the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SPARSECBM_DATA_DIR"))
    parser.add_argument("--only", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--quick", action="store_true", help="about three minutes on two cores")
    parser.add_argument("--json", type=Path, help="also write the lines here")
    parser.add_argument("--draw", type=Path, help="also draw them here")
    arguments = parser.parse_args()
    lines: list[Line] = []
    failed = []
    for name in arguments.only:
        job = JOBS[name]
        if job.needs_data and arguments.data_dir is None:
            print(f"{name}: left out, needs --data-dir", file=sys.stderr)
            continue
        start = time.perf_counter()
        try:
            lines += run(job, arguments, 300 if arguments.quick else 7200)
        except (RuntimeError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
            failed.append(name)
            print(f"{name}: failed ({error})", file=sys.stderr)
            continue
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    print(table(lines))
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")
    if arguments.draw and lines:
        draw(lines, arguments.draw)
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
