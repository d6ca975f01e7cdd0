"""The launcher's configurations are what the installed accelerate reads, and say how many processes they start."""

from __future__ import annotations

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "configs" / "accelerate"


@pytest.mark.parametrize(
    ("name", "kind", "processes", "machines"),
    [
        ("cpu", "MULTI_GPU", 2, 1),  # torchrun's launcher, see the file
        ("one_gpu", "NO", 1, 1),
        ("several_gpus", "MULTI_GPU", 8, 1),
        ("several_nodes", "MULTI_GPU", 16, 2),
    ],
)
def test_accelerate_reads_them(name: str, kind: str, processes: int, machines: int) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert config.distributed_type == kind
    assert (config.num_processes, config.num_machines, config.use_cpu) == (processes, machines, name == "cpu")
    assert config.mixed_precision == "no"


def test_the_page_names_them_all() -> None:
    page = (FOLDER / "README.md").read_text()
    assert {path.name for path in FOLDER.glob("*.yaml")} == {
        name for name in ("cpu.yaml", "one_gpu.yaml", "several_gpus.yaml", "several_nodes.yaml") if name in page
    }
