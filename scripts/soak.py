"""Random commands for a while, under everything that machines do; then what was lost, stale, unclear or leaked.

    python scripts/soak.py --minutes 30 --seed 0 --json soak.json --draw soak.png

Commands: embed, train, evaluate, explain, predict, report, vae, search, cache show and cache prune, on tiny inputs that
change now and then. Disturbances: none; SIGKILL at a random moment or just before a random change of a file; a full
disk; a read-only cache; a twin, another process that runs the same command, or prunes, on the same cache. After
each step:

* nothing lost: every finished result and every entry of the cache has the bytes that it had, except what the step was
  told to replace (then it holds the old model or the new one, whole) or to prune;
* nothing stale: the same command on the same pictures always gives the same bytes (but for times), and cached
  embeddings are those that encoding afresh gives;
* resumed: what was killed, or met a full disk, is given again and ends as it would have;
* clear: a command ends well or with one line of error, never with a traceback;
* nothing left over: a finished command leaves no half-written file in its folder.

Beside them one process stays alive and does everything again and again; its memory and its file handles are reported as
slopes. A full disk is a tmpfs of a few megabytes and a read-only cache a read-only bind mount, where this process may
mount; otherwise a limit on the size of files (RLIMIT_FSIZE), and a cache that belongs to somebody else.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from _commands import Command, Outcome, digests, preload

SPECIES, PICTURES, VARIANTS = 4, 14, 3
DISK_BYTES = 12 * 2**20
NOBODY = 65534


@dataclass
class Step:
    """One command under one disturbance."""

    number: int
    command: str
    disturbance: str
    seconds: float = 0.0
    kills: int = 0
    statuses: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


class Limits:
    """How a full disk and a read-only cache are made on this machine."""

    def __init__(self, home: Path) -> None:
        self.disk, self.sealed = home / "disk", home / "sealed"
        self.disk.mkdir()
        self.sealed.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "none", str(self.disk)], capture_output=True
        )
        self.mounts = done.returncode == 0
        self.full_disk = f"a tmpfs of {DISK_BYTES >> 20} MiB" if self.mounts else "a limit on the size of files"
        self.read_only = "a read-only bind mount" if self.mounts else "a folder of somebody else"

    def close(self) -> None:
        """Unmount."""
        if self.mounts:
            subprocess.run(["umount", "-l", str(self.disk)], check=False)

    @contextlib.contextmanager
    def full(self, free: int) -> Iterator[Callable[[], None] | None]:
        """Leave so many bytes free on `disk`; yields what a child must call first."""
        if not self.mounts:

            def limit() -> None:
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                resource.setrlimit(resource.RLIMIT_FSIZE, (free, resource.RLIM_INFINITY))

            yield limit
            return
        filler = self.disk / "filler"
        status = os.statvfs(self.disk)
        with filler.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, max(1, status.f_bavail * status.f_frsize - free))
        try:
            yield None
        finally:
            filler.unlink()

    @contextlib.contextmanager
    def locked(self, cache: Path) -> Iterator[tuple[Path, Callable[[], None] | None]]:
        """Show `cache` read-only; yields its path and what a child must call first."""
        if self.mounts:
            subprocess.run(["mount", "--bind", str(cache), str(self.sealed)], check=True)
            try:
                subprocess.run(["mount", "-o", "remount,bind,ro", str(self.sealed)], check=True)
                yield self.sealed, None
            finally:
                subprocess.run(["umount", "-l", str(self.sealed)], check=True)
        elif os.geteuid() == 0:

            def give_up_rights() -> None:
                os.setgid(NOBODY)
                os.setuid(NOBODY)

            yield cache, give_up_rights
        else:
            places = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
            for place in places:
                place.chmod(0o555)
            try:
                yield cache, None
            finally:
                for place in places:
                    place.chmod(0o755)


class World:
    """Pictures that change, a cache, finished results, and what is known about them."""

    def __init__(self, home: Path, rng: np.random.Generator) -> None:
        from sparsecbm.data.birds import BirdImages

        self.home, self.rng, self.cache = home, rng, home / "cache"
        self.pictures = home / "pictures"
        self.variant = 0
        self.results: dict[str, dict[str, str]] = {}  # folder -> digests
        self.entries: dict[str, str] = {}  # entry of the cache -> digest of its vectors
        self.expected: dict[str, dict[str, str]] = {}  # command and state of the pictures -> digests
        self.cache.mkdir()
        birds = BirdImages("train", n_images=SPECIES * PICTURES + VARIANTS)
        for i in range(SPECIES * PICTURES):
            split = "test" if i // SPECIES >= PICTURES - 4 else "train"
            folder = self.pictures / split / f"species {i % SPECIES}"
            folder.mkdir(parents=True, exist_ok=True)
            birds[i].save(folder / f"{i:03d}.png")
        self.changing = self.pictures / "train" / "species 0" / "000.png"
        self.variants = []
        for j in range(VARIANTS):
            path = home / f"variant{j}.png"
            birds[SPECIES * PICTURES + j].save(path)
            self.variants.append(path.read_bytes())
        self.change(0)
        config = {
            "images": {"spec": f"folder:{self.pictures}"},
            "model": {"loss": "gumbel", "max_active_concepts": 6, "concepts_per_class": 3, "max_iter": 220},
            "evaluation": {"examples": 2, "baseline": False},
        }
        (home / "train.yaml").write_text(json.dumps(config))  # JSON is YAML

    def change(self, variant: int) -> None:
        """Put another picture into the file that changes."""
        self.variant = variant
        self.changing.write_bytes(self.variants[variant])

    def command(self, name: str) -> tuple[list[str], str | None, bool]:
        """A command line, the folder it writes to, and whether that holds a model."""
        seed, config = int(self.rng.integers(2)), str(self.home / "train.yaml")
        model = str(self.home / "model" / "out")
        test = sorted(str(path) for path in (self.pictures / "test").rglob("*.png"))
        shown = [test[i] for i in self.rng.choice(len(test), 2, replace=False)]
        table: dict[str, tuple[list[str], str | None, bool]] = {
            "embed": (["embed", config, "--json"], None, False),
            "train": (["train", config, "--output", "out", "--set", f"seed={seed}"], f"train{seed}", True),
            "evaluate": (["evaluate", model, "--output", "out", "--nec", "1,2,3"], "evaluate", False),
            "explain": (["explain", model, *shown, "--plot", "out", "--json"], "explain", False),
            "predict": (["predict", model, *shown, "--json"], None, False),
            "report": (["report", model, "--output", "out/page.html", "--examples", "2"], "report", False),
            "vae": (
                ["vae", "vae_digits_gumbolt", "--output", "out", *_set(
                    "data.max_train=200", "data.max_validation=50", "data.max_test=40", f"seed={seed}",
                    "training.epochs=12", "training.checkpoint_every=5", "evaluation.samples=20",
                    "evaluation.pictures=4", "model.groups=[12]", "model.hidden=[32]",
                )],
                f"vae{seed}", True,
            ),
            "search": (
                ["search", "search_birds", "--output", "out", *_set(
                    f"images.spec=folder:{self.pictures}", "classes.builtin=null", "baselines=[cosine,linear_probe]",
                    "examples=2",
                )],
                "search", False,
            ),
            "cache show": (["cache", "show", "--json"], None, False),
            "cache prune": (["cache", "prune", "--max-size", "80KB", "--json"], None, False),
        }  # fmt: skip
        return table[name]

    def state(self, arguments: list[str]) -> str:
        """What the bytes of a result may depend on."""
        model = self.results.get("model", {}).get("out/model/model.safetensors", "")
        return json.dumps([arguments, self.variant, model if arguments[0] in ("evaluate", "explain", "report") else ""])

    def stored(self, cache: Path | None = None) -> dict[str, str]:
        """Digest of the vectors of every complete entry of the cache; raises where one does not match its manifest."""
        found = {}
        for folder in sorted((cache or self.cache).glob("embeddings/*")):
            manifest = folder / "manifest.json"
            if folder.is_dir() and not folder.name.startswith(".") and manifest.exists():
                noted = json.loads(manifest.read_text())["sha256"]
                if digests(folder)["vectors.npy"] != noted:
                    raise AssertionError(f"entry {folder.name[:12]} does not match its checksum")
                found[folder.name] = noted
        return found


def _set(*assignments: str) -> list[str]:
    return [word for assignment in assignments for word in ("--set", assignment)]


class Soak:
    """The driver."""

    KILLABLE = ("embed", "train", "evaluate", "explain", "report", "vae", "search", "cache prune")
    ON_DISK = ("embed", "train", "evaluate", "report", "vae", "search")
    READING = ("embed", "train", "evaluate", "explain", "predict", "report", "search", "cache show", "cache prune")
    TWINS = ("embed", "train", "evaluate", "vae")

    def __init__(self, home: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.home, self.limits = home, Limits(home)
        self.world = World(home, self.rng)
        self.steps: list[Step] = []
        self.typical: dict[str, tuple[float, int]] = {}  # seconds and changes of an undisturbed command
        self.deck: list[tuple[str, str]] = []

    def prepare(self) -> None:
        """Train the model that others look at."""
        arguments, _, _ = self.world.command("train")
        done = self._start(arguments, self.home / "model").wait()
        if done.status:
            raise SystemExit(f"cannot train: {done.errors}")
        self.world.results["model"] = digests(self.home / "model")
        self.world.entries = self.world.stored()

    def step(self, number: int) -> Step:
        """Deal a card, play it, look what it did."""
        if not self.deck:
            cards = [(name, "none") for name in self.READING] + [("vae", "none"), ("change", "none")] * 2
            cards += [(name, "kill") for name in self.KILLABLE] + [(name, "full disk") for name in self.ON_DISK]
            cards += [(name, "read-only cache") for name in self.READING] + [(name, "twin") for name in self.TWINS]
            cards += [(name, "pruning twin") for name in ("embed", "train")]
            self.deck = [cards[i] for i in self.rng.permutation(len(cards))]
        name, disturbance = self.deck.pop()
        step = Step(number, name, disturbance)
        start = time.perf_counter()
        try:
            if name == "change":
                self.world.change(int(self.rng.integers(VARIANTS)))
            else:
                {"none": self._plain, "kill": self._kill, "full disk": self._full_disk, "twin": self._twin,
                 "pruning twin": self._twin, "read-only cache": self._read_only}[disturbance](step)  # fmt: skip
            self._nothing_lost(step)
        except Exception as error:
            step.problems.append(f"{type(error).__name__}: {error}")
        step.seconds = time.perf_counter() - start
        self.steps.append(step)
        return step

    def _start(self, arguments: list[str], folder: Path, cache: Path | None = None, **options: Any) -> Command:
        return Command(arguments, folder, {"SPARSECBM_CACHE": str(cache or self.world.cache)}, **options)

    def _note(self, step: Step, ended: Outcome, well: bool = True) -> None:
        step.statuses.append(ended.status)
        step.kills += ended.killed and not ended.late
        if ended.late:
            step.problems.append("hung, and was stopped")
        elif not ended.clear:
            step.problems.append(f"not a clear end (status {ended.status}): {ended.errors[-1500:]}")
        elif well and ended.status and not ended.killed:
            step.problems.append(f"failed: {ended.errors.strip()[-500:]}")

    def _finished(self, step: Step, arguments: list[str], folder: Path, result: str | None) -> None:
        """Compare what a finished command wrote with what it wrote before, on the same pictures."""
        if result is None:
            return
        found, key = digests(folder), self.world.state(arguments)
        expected = self.world.expected.setdefault(key, found)
        if found != expected:
            names = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            step.problems.append(f"other bytes than before: {names}")
        if folder.parent == self.home:
            self.world.results[folder.name] = found

    def _plain(self, step: Step) -> None:
        arguments, result, _ = self.world.command(step.command)
        folder = self.home / (result or "elsewhere")
        ended = self._start(arguments, folder).wait()
        self._note(step, ended)
        if ended.status == 0:
            self.typical[step.command] = (ended.seconds, ended.changes or 1)
            self._finished(step, arguments, folder, result)
            if step.command == "cache prune":
                kept = self.world.stored()
                self.world.entries = {key: value for key, value in self.world.entries.items() if key in kept}

    def _kill(self, step: Step) -> None:
        arguments, result, is_model = self.world.command(step.command)
        folder = self.home / (result or "elsewhere")
        seconds, changes = self.typical.get(step.command, (1.5, 30))
        old = self.world.results.pop(result, {}) if result else {}
        if self.rng.random() < 0.5:
            ended = self._start(arguments, folder).wait(float(self.rng.uniform(0, seconds)))
        else:
            ended = self._start(arguments, folder, kill_at_change=int(self.rng.integers(1, changes + 1))).wait()
        self._note(step, ended)
        if is_model and old and ended.killed:
            self._whole(step, folder, old)
        if step.command == "cache prune":
            kept = self.world.stored()
            self.world.entries = {key: value for key, value in self.world.entries.items() if key in kept}
            return
        again = self._start(arguments, folder).wait()
        self._note(step, again)
        if again.status == 0:
            self._finished(step, arguments, folder, result)

    def _whole(self, step: Step, folder: Path, old: dict[str, str]) -> None:
        """After a kill the old model lies there, or the new one, with its checksum."""
        now = {name: value for name, value in digests(folder).items() if name.startswith("out/model/")}
        if now == {name: value for name, value in old.items() if name.startswith("out/model/")}:
            return
        described = folder / "out" / "model" / "config.json"
        if described.exists():
            if now["out/model/model.safetensors"] != json.loads(described.read_text())["sha256"]:
                step.problems.append("a model that does not match its checksum lies there after a kill")
        else:
            step.problems.append(f"neither the old model nor the new one lies there after a kill: {sorted(now)}")

    def _full_disk(self, step: Step) -> None:
        arguments, result, _ = self.world.command(step.command)
        place = self.limits.disk / f"step{step.number}"
        folder, cache = place / "work", place / "cache"
        folder.mkdir(parents=True)
        if step.command != "embed" or self.rng.random() < 0.3:
            shutil.copytree(self.world.cache, cache)
        free = int(self.rng.choice([0, 4096, 20_000, 100_000, 400_000, 1_500_000]))
        with self.limits.full(free) as before:
            self._note(step, self._start(arguments, folder, cache, before=before).wait(), well=False)
        self.world.stored(cache)
        again = self._start(arguments, folder, cache).wait()
        self._note(step, again)
        if again.status == 0:
            self._finished(step, arguments, folder, result)
        shutil.rmtree(place)

    def _read_only(self, step: Step) -> None:
        arguments, result, _ = self.world.command(step.command)
        folder = self.home / "beside" / str(step.number)
        folder.mkdir(parents=True)
        folder.chmod(0o777)
        with self.limits.locked(self.world.cache) as (cache, before):
            ended = self._start(arguments, folder, cache, before=before).wait()
        # Without the rights to write, embedding something new must fail, and pruning something old.
        self._note(step, ended, well=step.command in ("explain", "predict", "cache show"))
        if ended.status == 0:
            self._finished(step, arguments, folder, result)
        shutil.rmtree(folder)

    def _twin(self, step: Step) -> None:
        arguments, result, _ = self.world.command(step.command)
        folders = [self.home / "beside" / f"{step.number}{side}" for side in "ab"]
        if self.rng.random() < 0.5:  # nothing cached: both want to write
            self.world.change((self.world.variant + 1) % VARIANTS)
            for entry in (self.world.cache / "embeddings").glob("*"):
                shutil.rmtree(entry, ignore_errors=True)
            self.world.entries = {}
        pruning = step.disturbance == "pruning twin"
        other = ["cache", "prune", "--max-size", "0"] if pruning else arguments
        both = [self._start(arguments, folders[0]), self._start(other, folders[1])]
        if not pruning and self.rng.random() < 0.3:  # one dies while the other waits for it
            ended = both[1].wait(float(self.rng.uniform(0.1, 0.8)))
            self._note(step, ended, well=not ended.killed)
            both.pop()
        ends = [command.wait() for command in both]
        for ended, folder in zip(ends, folders):
            self._note(step, ended)
            if ended.status == 0 and not (pruning and folder == folders[1]):
                self._finished(step, arguments, folder, result)
        if pruning:
            self.world.entries = {}
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _nothing_lost(self, step: Step) -> None:
        for name, expected in self.world.results.items():
            if digests(self.home / name) != expected:
                step.problems.append(f"the result {name!r} of an earlier command has changed")
                self.world.results[name] = digests(self.home / name)
            left = [path for path in (self.home / name).rglob(".*") if path.suffix == ".tmp"]
            for path in left:  # said once
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                self.world.results[name] = digests(self.home / name)
            if left or (self.home / name / "out" / "checkpoint").exists():
                step.problems.append(f"left over in {name!r}: {[path.name for path in left] or 'checkpoint'}")
        now = self.world.stored()
        if lost := [key[:12] for key, value in self.world.entries.items() if now.get(key) != value]:
            step.problems.append(f"lost from the cache: {lost}")
        self.world.entries = now


class Resident:
    """A process that stays alive and does everything again and again, whenever it is told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        ask, self.ask = os.pipe()
        self.answer, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self.ask)
                os.close(self.answer)
                self._live(ask, answer)
                code = 0
            finally:
                os._exit(code)
        os.close(ask)
        os.close(answer)
        self._lines = os.fdopen(self.answer)

    def cycle(self) -> dict[str, Any]:
        """Let it do its round; what it then holds."""
        os.write(self.ask, b"1")
        line = self._lines.readline()
        if not line:
            raise SystemExit("the long-lived process died")
        return json.loads(line)

    def close(self) -> None:
        """Let it go."""
        os.close(self.ask)
        os.waitpid(self.pid, 0)

    def _live(self, ask: int, answer: int) -> None:
        os.environ["SPARSECBM_CACHE"] = str(self.world.home / "resident-cache")
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - for as long as the process lives
        for count in itertools.count():
            if not os.read(ask, 1):
                return
            problem = None
            try:
                self._round(count)
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            gc.collect()
            held = {
                "rss": _memory(),
                "handles": sum(1 for _ in Path("/proc/self/fd").iterdir()),
                "threads": threading.active_count(),
            }
            os.write(answer, (json.dumps({**held, "problem": problem}) + "\n").encode())

    def _round(self, count: int) -> None:
        from sparsecbm import runs
        from sparsecbm._base.errors import InputError
        from sparsecbm.config import VaeConfig, build_config
        from sparsecbm.data import load_images
        from sparsecbm.embeddings import cache_entries, embed_images, prune_cache
        from sparsecbm.encoders import load_encoder
        from sparsecbm.estimators import SparseCBMClassifier
        from sparsecbm.heads import SparseHead

        home = self.world.home
        scratch = home / "resident"
        pictures = sorted((self.world.pictures / "test").rglob("*.png"))[:2]
        source = load_images(f"folder:{self.world.pictures}", "train")
        encoder = load_encoder("bundled")
        # What the shared cache holds is what encoding afresh gives.
        kept = embed_images(encoder, source, home / "cache", progress=False)
        fresh = embed_images(encoder, source, cache="memory", progress=False)
        assert np.array_equal(kept.vectors, fresh.vectors), "stale: cached embeddings are not those of the pictures"
        embed_images(encoder, source, progress=False)
        cache_entries()
        if count % 2:
            prune_cache(max_bytes=0)
        runs.predict_run(home / "model" / "out", pictures)
        runs.plot_ledgers(runs.explain_run(home / "model" / "out", pictures), scratch / "plots")
        concepts = np.random.default_rng(0).normal(size=(20, kept.vectors.shape[1]))
        model = SparseCBMClassifier(concepts, max_active_concepts=4, max_iter=20, random_state=0, verbose=False)
        model.fit(kept.vectors, kept.labels, checkpoint_dir=scratch / "checkpoint")
        model.save(scratch / "saved")
        activations = SparseCBMClassifier.load(scratch / "saved").transform(kept.vectors)
        SparseHead().path(activations, kept.labels, (1, 2), checkpoint_dir=scratch / "path")
        data = {"name": "digits", "max_train": 100, "max_validation": 20, "max_test": 20}
        quick = {
            "output": str(scratch / "vae"), "data": data, "model": {"groups": [8], "hidden": [16]},
            "training": {"epochs": 2}, "evaluation": {"samples": 5, "pictures": 4}, "device": "cpu",
        }  # fmt: skip
        runs.vae_run(build_config(quick, kind=VaeConfig), progress=False)
        broken = scratch / "broken"
        shutil.copytree(scratch / "saved", broken, dirs_exist_ok=True)
        (broken / "model.safetensors").write_bytes(b"\0" * 100)
        for place in (broken, scratch / "nothing"):
            with contextlib.suppress(InputError):
                runs.load_model(place)
                raise AssertionError("a damaged model was loaded")
        shutil.rmtree(scratch)


def _memory() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("no VmRSS")


def slope(values: list[float]) -> tuple[float, float]:
    """Growth a round by least squares, after the first fifth, and its standard error (of serially correlated noise)."""
    kept = np.asarray(values[len(values) // 5 :], dtype=float)
    if len(kept) < 4:
        return 0.0, float("inf")
    x = np.arange(len(kept)) - (len(kept) - 1) / 2
    rate = float(x @ kept / (x @ x))
    rest = kept - kept.mean() - rate * x
    # Newey and West's estimate of what errors that go on for a while do to a slope.
    lags, products = round(4 * (len(kept) / 100) ** (2 / 9)), x * rest
    total = float(products @ products)
    for lag in range(1, lags + 1):
        total += 2 * (1 - lag / (lags + 1)) * float(products[lag:] @ products[:-lag])
    return rate, float(np.sqrt(max(total, 0.0)) / (x @ x))


def summary(soak: Soak, rounds: list[dict[str, Any]], seconds: float, seed: int) -> dict[str, Any]:
    """Everything as JSON values."""
    counts = Counter((step.command, step.disturbance) for step in soak.steps)
    memory, handles = ([row[key] for row in rounds] for key in ("rss", "handles"))
    found = {}
    for name, values, unit in (("memory", [value / 1024 for value in memory], "KiB"), ("handles", handles, "handles")):
        rate, error = slope(values)
        tail = values[len(values) // 5 :]
        found[name] = {
            "slope": rate, "standard_error": None if np.isinf(error) else error, "unit": f"{unit} a round",
            "first": tail[0], "last": tail[-1], "growth": rate * len(tail) / max(tail[0], 1),
        }  # fmt: skip
    problems = [{"step": step.number, "command": step.command, "disturbance": step.disturbance, "what": what}
                for step in soak.steps for what in step.problems]  # fmt: skip
    problems += [{"round": i, "what": row["problem"]} for i, row in enumerate(rounds) if row["problem"]]
    # A leak grows in every round: a handle in every tenth, or memory by a tenth over the run and not by chance.
    if found["handles"]["slope"] > 0.1:
        problems.append({"what": f"handles leak: {found['handles']['slope']:.2f} a round"})
    if found["memory"]["growth"] > 0.1 and found["memory"]["slope"] > 3 * (found["memory"]["standard_error"] or 0):
        problems.append({"what": f"memory leaks: {found['memory']['slope']:.0f} KiB a round"})
    return {
        "seed": seed, "seconds": seconds, "steps": len(soak.steps),
        "commands": sum(len(step.statuses) for step in soak.steps), "kills": sum(step.kills for step in soak.steps),
        "errors": sum(status == 2 for step in soak.steps for status in step.statuses),
        "full_disk": soak.limits.full_disk, "read_only_cache": soak.limits.read_only,
        "counts": [[*key, count] for key, count in sorted(counts.items())], "rounds": len(rounds), **found,
        "problems": problems, "held": rounds, "log": [vars(step) for step in soak.steps],
    }  # fmt: skip


def text(result: dict[str, Any]) -> str:
    """The report in words."""
    disturbances = sorted({row[1] for row in result["counts"]})
    counts = {(row[0], row[1]): row[2] for row in result["counts"]}
    lines = [
        f"Soak of {result['seconds'] / 60:.1f} minutes, seed {result['seed']}: {result['steps']} steps, "
        f"{result['commands']} commands, {result['kills']} killed, {result['errors']} ended with one line of error.",
        f"Full disk: {result['full_disk']}. Read-only cache: {result['read_only_cache']}.", "",
        "| command | " + " | ".join(disturbances) + " |", "|---|" + "---:|" * len(disturbances),
    ]  # fmt: skip
    for name in sorted({row[0] for row in result["counts"]}):
        cells = [str(counts.get((name, other), "")) for other in disturbances]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("")
    for name in ("memory", "handles"):
        row = result[name]
        error = "unknown" if row["standard_error"] is None else f"{row['standard_error']:.3g}"
        lines.append(
            f"Long-lived process, {result['rounds']} rounds, {name}: {row['slope']:.3g} +- {error} {row['unit']}; "
            f"{row['first']:.0f} after the first fifth, {row['last']:.0f} at the end."
        )
    lines.append(f"\nProblems: {len(result['problems'])}.")
    lines += [f"- {problem}" for problem in result["problems"]]
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw memory and handles of the long-lived process."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 1, figsize=(8, 4.5), sharex=True, layout="constrained")
    for axes, key, scale, label in (
        (panels[0], "rss", 2**20, "resident memory, MiB"), (panels[1], "handles", 1, "open file handles"),
    ):  # fmt: skip
        axes.plot(
            [row["minutes"] for row in result["held"]], [row[key] / scale for row in result["held"]], "o-", ms=2.5
        )
        axes.set_ylabel(label)
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].set_ylim(0, 1.3 * max(row["handles"] for row in result["held"]))
    panels[1].set_xlabel("minutes")
    kills = f"{result['commands']} commands, {result['kills']} killed, {len(result['problems'])} problems"
    panels[0].set_title(
        f"A process that does everything again and again: {result['rounds']} rounds; {kills}", fontsize=9
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    """Soak, report; exit 1 on any problem."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--steps", type=int, default=0, help="go on until so many steps are done")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=4, help="steps between rounds of the long-lived process")
    parser.add_argument("--json", type=Path, help="also write everything here, and the text beside it as .md")
    parser.add_argument("--draw", type=Path, help="also draw memory and handles here")
    arguments = parser.parse_args()
    if not Path("/proc/self/fd").is_dir():
        raise SystemExit("needs Linux: fork, SIGKILL and /proc")
    preload()
    from sparsecbm._base.progress import ProgressBar

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o755)
        soak = Soak(home, arguments.seed)
        rounds: list[dict[str, Any]] = []
        start = time.perf_counter()
        seconds = 60 * arguments.minutes
        try:
            soak.prepare()
            resident = Resident(soak.world)
            with ProgressBar("soak, seconds", round(seconds)) as bar:
                shown = 0
                for number in itertools.count():
                    passed = time.perf_counter() - start
                    if passed >= seconds and number >= arguments.steps:
                        break
                    bar.update(int(passed) - shown, note=f"{sum(len(step.problems) for step in soak.steps)} problems")
                    shown = int(passed)
                    step = soak.step(number)
                    for problem in step.problems:
                        print(f"step {number}, {step.command}, {step.disturbance}: {problem}", file=sys.stderr)
                    if number % arguments.every == 0:
                        rounds.append({"minutes": (time.perf_counter() - start) / 60, **resident.cycle()})
                        soak.world.entries = soak.world.stored()
            resident.close()
        finally:
            soak.limits.close()
        result = summary(soak, rounds, time.perf_counter() - start, arguments.seed)
    print(text(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        arguments.json.with_suffix(".md").write_text(text(result) + "\n")
    if arguments.draw:
        draw(result, arguments.draw)
    raise SystemExit(bool(result["problems"]))


if __name__ == "__main__":
    main()
