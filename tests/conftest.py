"""Shared by all tests: no network, a cache of their own, and the optional folder of real data."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from forking_python import Server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # the tests run in parallel processes; threads on top only contend

# The same examples every time, so that a run on another machine says what this one said;
# `pytest --hypothesis-profile=explore` looks for new ones.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")

_SERVER = pytest.StashKey[Server]()
_FORKING = "SPARSECBM_TESTS_FORKING"


def pytest_configure(config: pytest.Config) -> None:
    """One process serves the commands of all workers; it loads what they need when the first one asks."""
    if not hasattr(config, "workerinput"):
        root = Path(__file__).parents[1]
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        config.stash[_SERVER] = server = Server()
        os.environ[_FORKING] = str(server.bin)


def pytest_unconfigure(config: pytest.Config) -> None:
    if _SERVER in config.stash:
        config.stash[_SERVER].close()


@pytest.fixture(scope="session")
def forking() -> Path:
    """Folder of the executables ``python`` and ``sparsecbm`` that start at once: see `forking_python`."""
    return Path(os.environ[_FORKING])


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Embeddings of tests never meet the user's cache."""
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path_factory.getbasetemp() / "sparsecbm-cache"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real data, named by SPARSECBM_DATA_DIR; tests that need it skip where it is absent."""
    folder = os.environ.get("SPARSECBM_DATA_DIR")
    if not folder:
        pytest.skip("SPARSECBM_DATA_DIR is not set: the real embeddings and pictures are not here")
    path = Path(folder)
    if not path.is_dir():
        pytest.skip(f"SPARSECBM_DATA_DIR={folder} is not a folder: the real embeddings and pictures are not here")
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def ctrl_c() -> Iterator[Callable[[], None]]:
    """Press Ctrl-C: this process hears it as Python does by itself, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: os.kill(os.getpid(), signal.SIGINT)
    signal.signal(signal.SIGINT, before)
