"""A short soak: random commands with kills, a full disk, a read-only cache and twins; the long one is run by hand."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux: fork, SIGKILL and /proc")
def test_a_short_soak_finds_nothing(forking: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    # With this seed a full disk under `vae` and a kill of `embed`.
    command = [
        str(forking / "python"),
        str(ROOT / "scripts" / "soak.py"),
        "--minutes",
        "0",
        "--steps",
        "2",
        "--seed",
        "248",
    ]
    done = subprocess.run(
        [*command, "--json", str(tmp_path / "soak.json")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "soak.json").read_text())
    assert result["problems"] == []
    assert result["steps"] == 2
    assert result["rounds"] == 1
    assert {tuple(row[:2]) for row in result["counts"]} == {("vae", "full disk"), ("embed", "kill")}
