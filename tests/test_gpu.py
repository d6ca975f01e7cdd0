"""The rows of `scripts/check_devices.py` on this machine's accelerator: `pytest -m gpu`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "check_devices.py"
spec = importlib.util.spec_from_file_location("check_devices", SCRIPT)
check_devices = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check_devices)


@pytest.mark.gpu
@pytest.mark.parametrize("check", check_devices.CHECKS, ids=lambda check: check.__name__)
def test_an_accelerator_gives_what_the_cpu_gives(check) -> None:
    device = check_devices.accelerator()
    if device is None:
        pytest.skip("this machine has no accelerator that PyTorch can use")
    rows = check(device)
    assert all(row.holds for row in rows), rows
    if all(row.value is None for row in rows):
        pytest.skip("; ".join(row.note for row in rows))


def test_the_check_sees_what_differs() -> None:
    """On the CPU against itself nothing differs."""
    cpu = check_devices.torch.device("cpu")
    rows = {row.name: row for row in check_devices.encoders(cpu)}
    assert rows["encoder, float32: 1 - cosine"].value < 1e-6
    assert "not for a CPU" in rows["encoder, float16: 1 - cosine"].note
    assert not rows["encoder, float32: 1 - cosine"]._replace(value=0.1).holds
