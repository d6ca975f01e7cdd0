"""One cache, many processes: readers, writers, pruners, kills, a folder that nobody may write, a disk that is full."""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.cli import main
from sparsecbm.embeddings import cache_entries, prune_cache
from sparsecbm.embeddings.store import Entry, Plan, fetch, locked
from sparsecbm.runs.cache import parse_age, parse_size

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs fork and signals")

# Forked, since a fresh interpreter takes seconds to import torch; the children only need NumPy and the file system.
FORK = multiprocessing.get_context("fork") if os.name != "nt" else None


def plan(name: str, rows: int = 40, dim: int = 6) -> Plan:
    return Plan(hashlib.sha256(name.encode()).hexdigest(), rows, dim, "float32", 4, 4)


def truth(wanted: Plan) -> np.ndarray:
    return np.random.default_rng(int(wanted.key[:8], 16)).random((wanted.count, wanted.dim), dtype=np.float32)


@contextlib.contextmanager
def quiet(total: int, done: int) -> Iterator[Callable[[int], None]]:
    yield lambda rows: None


def obtain(cache: Path, wanted: Plan, delay: float = 0.0, gate: Path | None = None) -> tuple[np.ndarray, bool]:
    """Fetch an array whose every shard takes `delay` seconds to make, and from row 12 on as long as there is `gate`."""

    def encode(shards: Sequence[range]) -> Iterator[np.ndarray]:
        for shard in shards:
            while gate is not None and shard.start >= 12 and gate.exists():
                time.sleep(0.002)
            time.sleep(delay)
            yield truth(wanted)[shard.start : shard.stop]

    return fetch(
        cache, wanted, encode, {"images": {"spec": "birds", "split": "train"}, "encoder": {"spec": "x"}}, quiet
    )


def start(target: Callable, *arguments: object) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def wait_for(condition: Callable[[], object]) -> None:
    while not condition():
        time.sleep(0.002)


def _is_held(cache: Path, wanted: Plan) -> bool:
    from filelock import Timeout

    lock = Entry(cache, wanted).lock
    if not lock.exists():
        return False
    try:
        with locked(lock, wait=False):
            return False
    except Timeout:
        return True


def test_a_lock_whose_owner_was_killed_is_free(tmp_path):
    """Somebody waits already when the owner dies; it goes on with the shards that were finished."""
    wanted = plan("killed")
    owner = start(obtain, tmp_path, wanted, 0.0, tmp_path)
    wait_for(lambda: len(list(tmp_path.rglob("rows-*"))) >= 3)
    heir = start(obtain, tmp_path, wanted)
    time.sleep(0.05)
    assert not list(tmp_path.rglob("manifest.json"))  # the heir waits
    assert _is_held(tmp_path, wanted)
    owner.kill()
    owner.join()
    heir.join()
    assert (owner.exitcode, heir.exitcode) == (-signal.SIGKILL, 0)
    vectors, hit = obtain(tmp_path, wanted)
    assert hit
    np.testing.assert_array_equal(vectors, truth(wanted))


def _check_forever(cache: Path, names: Sequence[str], seed: int) -> None:
    draw = random.Random(seed)
    while True:
        wanted = plan(draw.choice(names))
        vectors, _ = obtain(cache, wanted, 0.001)
        if not np.array_equal(vectors, truth(wanted)):
            os._exit(3)


def _prune_forever(cache: Path, seed: int) -> None:
    draw = random.Random(seed)
    while True:
        prune_cache(cache, max_bytes=draw.choice([0, 2000, 5000]))
        cache_entries(cache)
        time.sleep(0.01)


def test_readers_writers_and_a_pruner_under_kills_lose_nothing(tmp_path):
    names, draw = ["a", "b", "c"], random.Random(0)
    spawn: list[Callable[[], multiprocessing.process.BaseProcess]] = [
        *(lambda seed=seed: start(_check_forever, tmp_path, names, seed) for seed in range(3)),
        lambda: start(_prune_forever, tmp_path, 9),
    ]
    running = [make() for make in spawn]
    try:
        for _ in range(30):
            time.sleep(draw.uniform(0.01, 0.06))
            victim = draw.randrange(len(running))
            assert [process.exitcode for process in running] == [None] * len(running)  # nobody failed
            running[victim].kill()
            running[victim].join()
            running[victim] = spawn[victim]()
    finally:
        for process in running:
            process.kill()
            process.join()
    for name in names:
        np.testing.assert_array_equal(obtain(tmp_path, plan(name))[0], truth(plan(name)))
    assert sorted(entry.key for entry in cache_entries(tmp_path)) == sorted(plan(name).key for name in names)
    prune_cache(tmp_path, max_bytes=0)
    assert not [path for path in (tmp_path / "embeddings").iterdir() if path.suffix != ".lock"]


def test_what_is_mapped_stays_readable_when_pruned(tmp_path):
    wanted = plan("mapped")
    vectors, _ = obtain(tmp_path, wanted)
    assert len(prune_cache(tmp_path, max_bytes=0).removed) == 1
    np.testing.assert_array_equal(vectors, truth(wanted))
    assert not obtain(tmp_path, wanted)[1]


def test_what_is_being_written_is_not_pruned(tmp_path):
    wanted = plan("busy")
    (gate := tmp_path / "gate").touch()
    writer = start(obtain, tmp_path, wanted, 0.0, gate)
    wait_for(lambda: list(tmp_path.rglob("rows-*")))
    report = prune_cache(tmp_path, max_bytes=0)
    assert [entry.key for entry in report.busy] == [wanted.key]
    assert (report.removed, report.freed_bytes) == ((), 0)
    gate.unlink()
    writer.join()
    assert writer.exitcode == 0
    assert obtain(tmp_path, wanted)[1]


# -- what is there, and less of it -------------------------------------------------------------------------------------


def _age(cache: Path, wanted: Plan, days: float) -> None:
    for path in Entry(cache, wanted).folder.iterdir():
        os.utime(path, (time.time() - 86400 * days,) * 2)


def test_pruning_by_age_and_size_takes_the_least_recently_used(tmp_path):
    for days, name in enumerate(["new", "young", "old", "older"]):
        obtain(tmp_path, plan(name))
        _age(tmp_path, plan(name), 10 * days)
    assert [entry.key for entry in cache_entries(tmp_path)] == [
        plan(name).key for name in ("older", "old", "young", "new")
    ]
    one = cache_entries(tmp_path)[0]
    assert (one.state, one.kind, one.encoder, one.source) == ("complete", "images", "x", "birds train")
    assert (one.rows, one.dim, one.dtype) == (40, 6, "float32")
    assert one.bytes == sum(path.stat().st_size for path in Entry(tmp_path, plan("older")).folder.iterdir())
    obtain(tmp_path, plan("older"))  # used again: the youngest now
    before = sorted(tmp_path.rglob("*"))
    report = prune_cache(tmp_path, older_than=15 * 86400, dry_run=True)
    assert ([entry.key for entry in report.removed], report.dry_run) == ([plan("old").key], True)
    assert sorted(tmp_path.rglob("*")) == before
    assert prune_cache(tmp_path, older_than=15 * 86400).removed == report.removed
    report = prune_cache(tmp_path, max_bytes=2 * one.bytes)
    assert [entry.key for entry in report.removed] == [plan("young").key]
    assert {entry.key for entry in report.kept} == {plan("new").key, plan("older").key}
    with pytest.raises(InputError, match="nothing to prune by"):
        prune_cache(tmp_path)


def test_pruning_follows_no_link_and_leaves_strangers_alone(tmp_path):
    obtain(tmp_path / "cache", plan("a"))
    home, outside = tmp_path / "cache" / "embeddings", tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    (home / plan("link").key).symlink_to(outside)
    (Entry(tmp_path / "cache", plan("a")).folder / "link").symlink_to(outside)
    (home / "notes.txt").write_text("mine")
    (home / "folder").mkdir()
    killed = home / (".pruned-" + "0" * 32)
    killed.mkdir()
    (killed / "vectors.npy").write_bytes(bytes(100))
    report = prune_cache(tmp_path / "cache", max_bytes=0)
    assert len(report.removed) == 1
    assert report.freed_bytes == report.removed[0].bytes + 100
    assert (outside / "precious").read_text() == "x"
    left = {path.name for path in home.iterdir() if path.suffix != ".lock"}
    assert left == {plan("link").key, "notes.txt", "folder"}


def test_unfinished_and_damaged_entries_are_shown_and_pruned(tmp_path):
    writer = start(obtain, tmp_path, plan("half"), 0.0, tmp_path)
    wait_for(lambda: len(list(tmp_path.rglob("rows-*"))) >= 2)
    writer.kill()
    writer.join()
    obtain(tmp_path, plan("odd"))
    Entry(tmp_path, plan("odd")).manifest.write_text(json.dumps({"format": 1, "provenance": [], "shape": "x"}))
    states = {entry.key: (entry.state, entry.rows) for entry in cache_entries(tmp_path)}
    assert states == {plan("half").key: ("unfinished", None), plan("odd").key: ("complete", None)}
    assert len(prune_cache(tmp_path, max_bytes=0).removed) == 2


def test_ages_and_sizes_in_words():
    assert (parse_age("30d"), parse_age("1.5h"), parse_age("2w")) == (30 * 86400, 5400, 14 * 86400)
    assert (parse_size("5GB"), parse_size("500 mb"), parse_size("1GiB"), parse_size("7")) == (5e9, 5e8, 2**30, 7)
    for text in ("", "d", "-1d", "1y", "1e9d", "inf"):
        with pytest.raises(InputError, match="expected a number and s, m, h"):
            parse_age(text)
    for text in ("", "GB", "-5GB", "5XB", "5 G B", "nan"):
        with pytest.raises(InputError, match="expected a number and kB"):
            parse_size(text)


def test_the_commands(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path))
    obtain(tmp_path, plan("a"))

    def run(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(list(words))
        return int(stopped.value.code or 0), *capsys.readouterr()

    code, out, _ = run("info", "--cache")
    assert code == 0
    assert all(word in out for word in (plan("a").key[:12], "birds train", "40", "last used", "1 entries"))
    shown = json.loads(run("info", "--cache", "--json")[1])
    assert shown == json.loads(run("cache", "show", "--json")[1])
    assert shown["bytes"] == shown["entries"][0]["bytes"] > 0
    assert run("cache", "prune")[0] == 2
    assert run("cache", "prune", "--max-size", "lots")[0] == 2
    assert "1 entries would be removed" in run("cache", "prune", "--max-size", "0", "--dry-run")[1]
    result = json.loads(run("cache", "prune", "--older-than", "0s", "--json")[1])
    assert result["freed_bytes"] == shown["bytes"]
    assert json.loads(run("cache", "show", "--json")[1])["entries"] == []


# -- where nothing can be written --------------------------------------------------------------------------------------


def _in_child(work: Callable[[], str]) -> str:
    """What `work` says in a process of its own, whose limits and rights are then gone."""
    receive, send = FORK.Pipe(duplex=False)

    def tell() -> None:
        try:
            said = work()
        except StoredFileError as error:
            said = f"StoredFileError: {error}"
        send.send(said)

    process = start(tell)
    process.join()
    return receive.recv() if receive.poll() else "nothing"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user may look into, unlike pytest's."""
    folder = Path(tempfile.mkdtemp(prefix="sparsecbm-"))
    folder.chmod(0o755)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def test_a_read_only_cache_serves_hits_and_refuses_misses_in_one_line(open_folder):
    obtain(open_folder, plan("there"))
    for path in [*open_folder.rglob("*"), open_folder]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in open_folder.rglob("*")}

    def work() -> str:
        if os.geteuid() == 0:  # root may write everywhere
            os.setgid(65534)
            os.setuid(65534)
        vectors, hit = obtain(open_folder, plan("there"))
        assert hit
        assert np.array_equal(vectors, truth(plan("there")))
        assert len(cache_entries(open_folder)) == 1
        obtain(open_folder, plan("absent"))
        return "written"

    said = _in_child(work)
    assert said.startswith("StoredFileError: cannot write the cache folder")
    assert "Permission denied" in said
    assert "\n" not in said
    assert {path: path.stat().st_mtime_ns for path in open_folder.rglob("*")} == before


def test_a_file_too_large_for_the_disk_is_one_line_and_loses_nothing(tmp_path):
    """The kernel refuses it: a limit on the size of files stands for the full disk."""
    wanted = plan("large", rows=400)

    def work() -> str:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        obtain(tmp_path, wanted)
        return "written"

    said = _in_child(work)
    assert said.startswith("StoredFileError: cannot write")
    assert "File too large" in said
    assert "free some space" in said
    assert "\n" not in said
    assert len(list(tmp_path.rglob("rows-*"))) == 100
    assert not list(tmp_path.rglob("*.tmp"))
    assert not list(tmp_path.rglob("manifest.json"))

    def none_left(shards: Sequence[range]) -> Iterator[np.ndarray]:
        raise AssertionError("every shard was kept")
        yield

    vectors, _ = fetch(tmp_path, wanted, none_left, {}, quiet)
    np.testing.assert_array_equal(vectors, truth(wanted))
