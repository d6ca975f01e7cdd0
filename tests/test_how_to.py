"""The pages that show how to add a part or use the package are followed word for word, in a folder of their own."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    "sparsecbm/encoders/README.md",
    "sparsecbm/bottleneck/README.md",
    "sparsecbm/heads/README.md",
    "sparsecbm/data/README.md",
    "sparsecbm/embeddings/README.md",
    "sparsecbm/concepts/README.md",
    "sparsecbm/estimators/README.md",
    "sparsecbm/dictionary/README.md",
    "sparsecbm/runs/README.md",
]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", flags=re.MULTILINE | re.DOTALL)
FILE = re.compile(r"# (\w+\.(?:py|txt|yaml))\n")


@pytest.mark.parametrize("page", PAGES)
def test_page_is_followed(page: str, forking: Path, tmp_path: Path) -> None:
    """A Python block that begins with a file's name is written to it; every other block is run."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "PATH": f"{forking}{os.pathsep}{os.environ['PATH']}",
    }
    ran = 0
    for language, text in BLOCK.findall((ROOT / page).read_text(encoding="utf-8")):
        name = FILE.match(text)
        if name and language == "python":
            (tmp_path / name[1]).write_text(text, encoding="utf-8")
            continue
        call = [str(forking / "python"), "-c", text] if language == "python" else ["bash", "-ec", text]
        result = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert result.returncode == 0, f"{text}\n{result.stdout}\n{result.stderr}"
        ran += 1
    assert ran
