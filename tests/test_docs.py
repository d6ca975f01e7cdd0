"""Every example in README and in docstrings runs, and every command README names exists."""

from __future__ import annotations

import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
from pathlib import Path

import pytest

import sparsecbm

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
MODULES = sorted(
    module.name for module in pkgutil.walk_packages(sparsecbm.__path__, "sparsecbm.") if "__main__" not in module.name
)


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples_run(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.failed == 0


def blocks(language: str, page: str = "README.md") -> list[str]:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


# The how-to pages are followed by `test_how_to.py`.
@pytest.mark.parametrize("page", ["README.md", "sparsecbm/vae/README.md", "sparsecbm/samplers/README.md"])
def test_python_of_pages_runs(page: str, forking: Path, tmp_path: Path) -> None:
    examples = blocks("python", page)
    assert examples
    for example in examples:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([str(forking / "python"), "-c", example], cwd=tmp_path, check=True, env=environment)


FEW = "--set images.max_train=40 --set images.max_validation=20 --set images.max_test=20 --set model.max_iter=10"
QUICK = "--set evaluation.control=false --set evaluation.baseline=false --set evaluation.examples=1"
SHORT = {
    "adapt": f"{FEW} {QUICK} --set adapt.max_iter=2",
    "compare": f"{FEW} --methods label_free,earned_8 --no-control",
    "demo": f"{FEW} {QUICK}",
    "train": f"{FEW} {QUICK}",
    "frontier": f"{FEW} --nec 2 --active 2,4 --ties exact",
    "evaluate": "--no-controls",
    "concepts discover": "--size 8 --active 2 --max-iter 20 --max-images 60 --force",
    "report": "--examples 1 --no-training",
    "search": "--set images.max_train=40 --set images.max_test=20 --set control=false --set baselines=[]",
    "vae": "--set training.epochs=1 --set training.evaluate_every=1 --set evaluation.samples=20",
}
"""Options that make a command short; what the page says stays as it is."""
STAND_INS = {
    "PICTURES": "pictures", "folder:PICTURES": "folder:pictures", "NEW.jpg": "PICTURE.jpg", "PICTURE...": "PICTURE.jpg",
    "MODEL": "museum", "KEY": "model.loss", "CONFIG": "birds_gumbel", "SPEC": "folder:pictures", "E": "bundled",
}  # fmt: skip


def written_commands() -> list[tuple[str, ...]]:
    """Words of each command of README and the rooms' pages that `test_how_to.py` does not run, in order, once."""
    found: dict[tuple[str, ...], None] = {}
    for page in ("README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("sparsecbm/*/README.md"))):
        code = blocks("text", page) + (blocks("bash", page) if page in ("README.md", "sparsecbm/vae/README.md") else [])
        prose = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        inline = [" ".join(match.split()) for match in re.findall(r"`(sparsecbm [^`]+)`", prose)]
        for line in (*"\n".join(code).splitlines(), *inline):
            if match := re.search(r"(?:^|&& )sparsecbm ([a-z].*)$", line):
                words = shlex.split(match[1], comments=True)
                if len(words) > 1 or words == ["demo"]:  # alone, the others are the command's name in a sentence
                    found[tuple(STAND_INS.get(word, word) for word in words)] = None
    return list(found)


def test_every_written_command_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    from sparsecbm import load_images
    from sparsecbm.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path / "cache"))
    birds = load_images("birds", "test", max_images=60)
    for i in range(len(birds)):
        place = tmp_path / "pictures" / f"kind {birds.labels[i] % 2}"
        place.mkdir(parents=True, exist_ok=True)
        birds[i].save(place / f"{i}.png")
    birds[0].save("PICTURE.jpg")
    Path("words.txt").write_text("red crown\nblack crown\nlong tail\nsnow\nlake\n")
    commands = written_commands()
    assert {command for command, *_ in commands} >= {
        *(key.split()[0] for key in SHORT),
        "app",
        "cache",
        "concepts",
        "explain",
        "init",
        "predict",
    }
    for words in commands:
        # `test_app.py` serves the page; `test_vae.py` runs the configurations that need data on stand-ins.
        if words[0] == "app" or "--data-dir" in words:
            continue
        # The default encoder there is downloaded.
        offline = "--encoder bundled " if words[0] == "train" and "--images" in words else ""
        with pytest.raises(SystemExit) as stopped:
            main([*words, *f"{offline}{SHORT.get(' '.join(words[:2]), SHORT.get(words[0], ''))}".split()])
        assert stopped.value.code in (None, 0), f"{words}\n{capsys.readouterr().err}"


def test_readme_names_files_that_exist() -> None:
    text = README.read_text(encoding="utf-8")
    for path in re.findall(r"(?:scripts|configs|notebooks|sparsecbm)/[\w./-]+\.\w+", text):
        assert (README.parent / path).exists(), path
    assert "pip install . && sparsecbm demo" in text
    assert 'pip install -e ".[test]" && pytest' in text
