"""Her folder, her words: pictures as people have them, from `init` to a report that says what to know."""

from __future__ import annotations

import html
import json
import os
import shlex
import shutil
from pathlib import Path

import pytest

from sparsecbm import load_images
from sparsecbm.cli import main
from sparsecbm.config.reading import load_config

WORDS = "red crown\nblack crown\nyellow breast\nlong tail\nhooked bill\nsnow\na propeller\nheadlights\n"
QUICK = shlex.split("--set model.max_iter=30 --set evaluation.control=false --set evaluation.baseline=false")


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(list(map(str, arguments)))
    return int(stopped.value.code or 0)


@pytest.fixture
def museum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Painted birds in three formats; a broken file, what systems leave behind, a stray picture, umlauts."""
    monkeypatch.chdir(tmp_path)
    birds, folder = load_images("birds", "test", max_images=120), tmp_path / "Gemälde"
    for i in range(len(birds)):
        home = folder / f"Vögel {birds.labels[i] % 3}"
        home.mkdir(parents=True, exist_ok=True)
        birds[i].save(home / f"Bild {i:03}.{('jpg', 'png', 'webp')[i % 3]}")
    (home / "kaputt.jpg").write_bytes(b"\xff\xd8 nothing")
    (home / "leer.png").write_bytes(b"")
    (home / ".DS_Store").write_bytes(b"x")
    (folder / "@eaDir").mkdir()
    (folder / "@eaDir" / "thumb.jpg").write_bytes(b"x")
    birds[0].save(folder / "streuner.png")
    (tmp_path / "words.txt").write_text(WORDS + "Snow\n")
    return folder


def test_a_folder_and_words_are_enough(museum: Path, capsys) -> None:
    options = ["--images", "Gemälde", "--concepts", "words.txt", "--encoder", "bundled", "-o", "museum"]
    assert run("train", *options, *QUICK) == 0
    said = capsys.readouterr()
    first, *lines = said.err.splitlines()
    assert "knows painted birds and nothing else" in first
    assert "2 of the 8 concepts ('a propeller', 'headlights')" in first
    assert len(set(lines)) == len(lines)
    metrics = json.loads(Path("museum/metrics.json").read_text())
    assert {Path(left["picture"]).name for left in metrics["skipped"]} == {"kaputt.jpg", "leer.png"}
    told = "\n".join(metrics["notes"])
    for words in (
        "painted birds",
        "streuner.png",
        "2 hidden",
        "2 pictures that cannot be read",
        "kaputt.jpg",
        "repeats 'snow'",
    ):
        assert words in told
        assert words in said.out.replace("\n", " ")
        assert words in html.unescape(Path("museum/report.html").read_text())
    assert metrics["concepts_dropped"] == {"repeats 'snow'": ["Snow"]}
    assert metrics["config"] == "museum"
    assert metrics["classes"] == 3
    # The model names no place of this machine: its run does, and a copy of the model alone says what to pass.
    assert str(museum.parent) not in Path("museum/model/config.json").read_text()
    shutil.copytree("museum/model", "elsewhere/copy")
    (museum.parent / "work").mkdir()
    os.chdir("work")
    assert run("report", "../museum", "--no-training") == 0
    assert "kaputt.jpg" in Path("../museum/report.html").read_text()
    capsys.readouterr()
    assert run("explain", "../museum", "../Gemälde/streuner.png") == 0
    assert "knows painted birds and nothing else" in capsys.readouterr().err
    assert run("evaluate", "../elsewhere/copy") == 2
    assert "does not say where the pictures" in (error := capsys.readouterr().err)
    assert "--images" in error
    assert error.count("\n") == 1


def test_init_writes_what_train_reads(museum: Path, capsys) -> None:
    assert run("init", "Gemälde", "-o", "museum.yaml") == 0
    assert "open_clip:ViT-B-32/openai" in (said := capsys.readouterr().out)
    assert "Vögel 2" in said
    config = load_config("museum.yaml")
    assert config.images.spec == f"folder:{museum}"
    assert config.images.on_error == "skip"
    assert config.concepts.file == str(museum.parent / "words.txt")
    assert config.output is None
    before = Path("museum.yaml").read_text()
    assert run("init", "Gemälde", "-o", "museum.yaml") == 2
    assert "--force" in capsys.readouterr().err
    assert Path("museum.yaml").read_text() == before
    assert run("init", "Gemälde", "-o", "museum.yaml", "--force", "--concepts", "mine.txt") == 0
    assert "there is no 'mine.txt' yet" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("train", "give a CONFIG"),
        ("train --images Gemälde", "give --concepts"),
        ("train --images folder:Nix --concepts words.txt", "folder 'Nix' does not exist"),
        ("train --images Gemälde --concepts wrods.txt", "wrods.txt"),
        ("init Nix", "folder 'Nix' does not exist"),
        ("info --config model.los", "did you mean 'model.loss'"),
        ("info model.loss", "--config model.loss"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(museum: Path, command: str, words: str, capsys) -> None:
    before = sorted(museum.parent.iterdir())
    assert run(*shlex.split(command)) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ")
    assert words in last
    assert sorted(path for path in museum.parent.iterdir() if path.name != "runs") == before


def test_info_says_what_a_key_means(capsys) -> None:
    assert run("info", "--config", "images") == 0
    said = capsys.readouterr().out
    assert "images.on_error  raise|skip; default raise" in said
    assert "model." not in said
