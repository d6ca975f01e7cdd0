"""The command as a user meets it: help, results, and one clear line for everything that goes wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main

from sparsecbm.cli import main
from sparsecbm.cli.base import app
from sparsecbm.config.reading import KINDS, builtin_configs

ROOT = Path(__file__).parents[2]
SMALL = ["images.max_train=120", "images.max_validation=40", "images.max_test=60", "model.max_iter=40"]
SMALL_OPTIONS = [word for pair in SMALL for word in ("--set", pair)]


def run(*arguments: str) -> int:
    """Run in this process; return the exit code."""
    with pytest.raises(SystemExit) as stopped:
        main(list(arguments))
    return int(stopped.value.code or 0)


@pytest.fixture(scope="module")
def folder(forking: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output folder of a small run, made by the command itself in a new process, in an empty folder."""
    home = tmp_path_factory.mktemp("cli")
    environment = os.environ | {"SPARSECBM_CACHE": str(home / "cache"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    environment["OMP_NUM_THREADS"] = "1"  # several test processes share the cores
    command = [str(forking / "sparsecbm"), "demo", *SMALL_OPTIONS]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in ("Accuracy", "Active concepts per image", "NEC", "Name alignment", "Concept AUC", "report.html"):
        assert words in done.stdout
    assert "= score" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    return home / "sparsecbm-demo"


@pytest.fixture
def bird(tmp_path: Path) -> Path:
    from sparsecbm.data.birds import BirdImages

    path = tmp_path / "bird [red].png"
    BirdImages("test", n_images=1)[0].save(path)
    return path


def commands() -> dict[tuple[str, ...], object]:
    """All commands by their words."""
    root = typer.main.get_command(app)
    found: dict[tuple[str, ...], object] = {}

    def visit(command, words) -> None:
        children = getattr(command, "commands", None)
        if not children:
            found[words] = command
            return
        for name, child in children.items():
            visit(child, (*words, name))

    visit(root, ())
    return found


def test_all_commands_of_the_contract_exist() -> None:
    names = {words[0] for words in commands()}
    assert {"demo", "embed", "train", "evaluate", "predict", "explain", "report", "concepts", "search", "info"} <= names


@pytest.mark.parametrize("words", sorted(commands()), ids=" ".join)
def test_every_command_has_help_with_an_example(words, capsys) -> None:
    assert run(*words, "--help") == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"sparsecbm {' '.join(words)}" in re.sub(r"\s+", " ", shown)
    for option in ("--debug", "--json"):
        assert option in shown


def documented() -> list[str]:
    """Every command line in the README's code, in the comments of the configurations, and in the help texts."""
    texts = [path.read_text(encoding="utf-8") for kind in KINDS for path in builtin_configs(kind).values()]
    readme = ROOT / "README.md"
    if readme.is_file():  # its code blocks; prose may begin with the package's name too
        texts += re.findall(r"^```\w*\n(.*?)^```", readme.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    texts += [re.sub(r"\[/?bold\]", "\n", command.callback.__doc__ or "") for command in commands().values()]
    lines = [line for text in texts for line in text.splitlines()]
    found = [re.search(r"(?:^|&&|[#$:]|-m)\s*(sparsecbm [a-z].*)$", line) for line in lines]
    return sorted({match[1].strip() for match in found if match})


@pytest.mark.parametrize("line", documented())
def test_documented_commands_exist(line: str) -> None:
    words = shlex.split(line.replace("`", ""), comments=True)[1:]
    known = commands()
    command = next((known[tuple(words[:n])] for n in (1, 2) if tuple(words[:n]) in known), None)
    assert command is not None, f"no such command: {line}"
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for word in words:
        if word.startswith("-") and not word.lstrip("-").isdigit():
            assert word.split("=")[0] in options | {"--help", "-h"}, f"{word} is no option in: {line}"


def test_help_and_what_is_wrong_with_a_folder_load_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom sparsecbm.cli import main\n"
        "def loaded(*arguments):\n    try: main(list(arguments))\n    except SystemExit: pass\n"
        "    print([m for m in ('torch', 'transformers', 'sklearn', 'matplotlib', 'pydantic') if m in sys.modules])\n"
        "loaded('--help')\nloaded('train', '--images', 'folder:none', '--concepts', 'words.txt')"
    )
    (tmp_path / "words.txt").write_text("wings\n")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    lines = done.stdout.strip().splitlines()
    assert "[]" in lines
    assert lines[-1] == "['pydantic']"
    assert "folder 'none' does not exist" in done.stderr


def test_version_and_bare_command(capsys) -> None:
    assert run("--version") == 0
    assert re.fullmatch(r"sparsecbm \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)
    assert run() == 0
    assert "Commands" in capsys.readouterr().out


# -- results -----------------------------------------------------------------------------------------------------------


def test_evaluate_in_a_hurry_prints_json_equal_to_the_metrics(folder: Path, tmp_path: Path, capsys) -> None:
    assert run("evaluate", str(folder), "--no-controls", "--json", "--output", str(tmp_path)) == 0
    result = json.loads(capsys.readouterr().out)
    stored = json.loads((folder / "metrics.json").read_text())["test"]
    names = [row["name"] for row in stored.pop("controls")]
    assert names == ["The model", "Meaningless directions", "Linear probe", "Nearest class mean"]
    assert stored.pop("linear_probe") > 0.5
    assert set(stored.pop("advantage")) == {"own_recipe", "equal_freedom"}
    assert "meaningless directions" in stored.pop("verdict")
    assert result["metrics"] == stored
    assert result["controls"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "test-confusion.csv",
        "test-reliability.svg",
        "test.json",
    ]


def test_evaluate_shows_and_saves_the_controls(folder: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("SPARSECBM_CACHE", str(folder.parent / "cache"))
    assert run("evaluate", str(folder), "--nec", "2,5") == 0
    shown = capsys.readouterr().out
    rows = {line[:22].strip(): line for line in reversed(shown.splitlines())}  # the table of controls comes first
    for name in ("Random words", "Meaningless directions", "Shuffled names", "Linear probe", "Nearest class mean"):
        assert re.search(r"\d+\.\d%", rows[name]), shown
    assert max(len(line.rstrip()) for line in shown.splitlines() if str(folder.parent) not in line) <= 100
    saved = json.loads((folder / "evaluation" / "test.json").read_text())
    table = {row["name"]: row for row in saved["controls"]["table"]}
    assert table["concepts"]["accuracy"] == saved["metrics"]["accuracy"]
    assert table["concepts"]["name_alignment"] == pytest.approx(saved["metrics"]["name_alignment"], abs=1e-6)
    assert table["concepts"]["concept_auc"] == pytest.approx(saved["metrics"]["concept_auc"]["mean"], abs=1e-6)
    assert abs(table["shuffled_names"]["concept_auc"] - 0.5) < 0.1
    assert table["shuffled_names"]["name_alignment"] < 0.3
    assert saved["controls"]["skipped"] == {}
    assert [point["nec"] for point in saved["controls"]["paths"]["random_words"]] == [2, 5]
    from PIL import Image

    assert Image.open(folder / "evaluation" / "test-nec.png").size[0] > 900
    lines = (folder / "evaluation" / "test-confusion.csv").read_text().splitlines()
    counts = [[int(value) for value in line.split(",")[1:]] for line in lines[1:]]
    assert sum(map(sum, counts)) == 60
    assert sum(row[i] for i, row in enumerate(counts)) == saved["metrics"]["correct"]


@pytest.mark.parametrize("columns", ["80", "200"])
def test_predictions_fit_the_terminal(folder: Path, bird: Path, columns, monkeypatch, capsys) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    assert run("predict", str(folder), str(bird)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert max(len(line.rstrip()) for line in lines) <= int(columns)
    assert "[red].png" in lines[1]  # square brackets are no markup
    assert re.search(r"[A-Z]\w+ \w+ +\d+\.\d% +\d ", lines[1])


def test_demo_leaves_a_bird_that_the_next_commands_take(folder: Path, tmp_path: Path, capsys) -> None:
    assert run("explain", str(folder), str(folder / "bird.png")) == 0
    assert "= score" in capsys.readouterr().out
    assert run("predict", str(folder), str(folder / "bird.png"), "-o", str(tmp_path / "species.csv")) == 0
    shown = capsys.readouterr()
    assert "species.csv: 1 pictures" in shown.out
    assert shown.err == ""  # a painted bird is what the encoder knows, in a file as well


def test_the_glossary_is_one(folder: Path, capsys) -> None:
    assert run("info", "--glossary", "--json") == 0
    words = json.loads(capsys.readouterr().out)["words"]
    readme = (ROOT / "README.md").read_text()
    listed = re.findall(
        r"^- \*\*(\w+)\*\*: ((?:.+)(?:\n  .+)*)", readme.split("## Glossary")[1].split("\n## ")[0], re.M
    )
    assert {word: re.sub(r"[*`]", "", " ".join(text.split())) for word, text in listed} == words
    page = (folder / "report.html").read_text()
    assert all(f'id="word-{word.lower()}"' in page for word in words)
    assert '<a href="#word-nec">NEC</a>' in page


def test_predict_explain_report_in_words_and_json(folder: Path, bird: Path, tmp_path: Path, capsys) -> None:
    assert run("predict", str(folder), str(bird), "--json") == 0
    (prediction,) = json.loads(capsys.readouterr().out)["predictions"]
    assert prediction["image"] == str(bird)
    assert sum(row["probability"] for row in prediction["top"]) <= 1 + 1e-9
    assert run("explain", str(folder), str(bird)) == 0
    assert f"{prediction['class']} (" in capsys.readouterr().out
    assert run("explain", str(folder), str(bird), "--json", "--top", "3", "--plot", str(tmp_path / "drawn")) == 0
    (row,) = json.loads(capsys.readouterr().out)["explanations"]
    total = row["bias"] + sum(c["contribution"] for c in row["contributions"]) + row["others"]["contribution"]
    assert total == pytest.approx(row["score"], abs=1e-9)
    assert len(row["contributions"]) <= 3
    assert len(list((tmp_path / "drawn").glob("*.png"))) == 1
    assert run("report", str(folder), "--output", str(tmp_path / "r.html"), "--examples", "2") == 0
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")


def test_embed_and_info(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("SPARSECBM_CACHE", str(folder.parent / "cache"))
    assert run("embed", "birds_gumbel", *SMALL_OPTIONS, "--json") == 0
    assert json.loads(capsys.readouterr().out)["splits"]["train"]["images"] == 120
    assert run("info", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert info["cache"] == str(folder.parent / "cache")
    assert info["cache_bytes"] > 0


def test_concepts(tmp_path: Path, capsys) -> None:
    words = tmp_path / "words.txt"
    words.write_text("red  crown\n\nRed Crown\nlake\n" + "x" * 40 + "\n")
    assert run("concepts", "show", str(words)) == 0
    assert capsys.readouterr().out.splitlines() == ["red crown", "lake", "x" * 40]
    assert run("concepts", "check", str(words), "--json") == 0
    checked = json.loads(capsys.readouterr().out)
    assert checked["count"] == 3
    assert checked["long"] == ["x" * 40]
    assert len(checked["changes"]) == 3
    kept = tmp_path / "kept.txt"
    assert run("concepts", "filter", str(words), "-o", str(kept)) == 0
    assert "kept 2 of 3" in capsys.readouterr().out
    assert (
        run("concepts", "filter", str(words), "--encoder", "bundled", "-s", "max_mutual_similarity=-0.99", "--json")
        == 0
    )
    assert any(row["filter"] == "mutual" for row in json.loads(capsys.readouterr().out)["dropped"])


# -- bad input ---------------------------------------------------------------------------------------------------------

BAD = [
    (["trian"], r"No such command 'trian'.*train"),
    (["train"], "nothing to train: give a CONFIG"),
    (["train", "birds_gumbel", "--sett", "a=b"], r"No such option: --sett"),
    (["predict", "m", "x.png", "--top", "0"], r"Invalid value for .?--top"),
    (["train", "birds_gumble"], r"unknown config 'birds_gumble'.*did you mean 'birds_gumbel'\?"),
    (["train", "birds_gumbel", "--set", "model.los=l1"], r"unknown key 'model\.los'; did you mean 'model\.loss'\?"),
    (
        ["train", "birds_gumbel", "--set", "model.loss=gumbl"],
        r"unknown loss 'gumbl'.*did you mean 'gumbel'",
    ),
    (["train", "birds_gumbel", "--set", "encoder.spec=bundeld"], r"unknown encoder 'bundeld'.*did you mean 'bundled'"),
    (["train", "birds_gumbel", "--set", "images.spec=birdz"], r"unknown images 'birdz'.*did you mean 'birds'"),
    (["embed", "birds_gumbel", "--set", "concepts.file=EMPTY"], r"concept file .* is empty"),
    (["embed", "birds_gumbel", "--set", "concepts.file=nowhere.txt"], r"cannot read concept file .*nowhere\.txt"),
    (["embed", "birds_gumbel", "--set", "images.spec=folder:nowhere"], r"folder .*nowhere.* does not exist"),
    (["evaluate", "nowhere"], r"there is no model 'nowhere'"),
    (["predict", "nowhere", "nowhere.png"], r"there is no picture 'nowhere\.png'"),
    (["report", "."], r"'\.' holds no model"),
    (["concepts", "check", "nowhere.txt"], r"cannot read concept file"),
    (["concepts", "filter", "EMPTY"], r"is empty"),
    (["concepts", "filter", "nowhere.txt", "-s", "max_lenth=3"], r"did you mean 'concepts\.filters\.max_length'"),
]


@pytest.mark.parametrize(("arguments", "match"), BAD, ids=[" ".join(arguments) for arguments, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(arguments, match, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n\n")
    small = SMALL_OPTIONS if arguments[0] in ("train", "embed") and "--set" in arguments else []
    code = run(*[word.replace("EMPTY", "empty.txt") for word in arguments], *small)
    shown = capsys.readouterr()
    assert code == 2, shown.err
    lines = shown.err.strip().splitlines()
    assert len(lines) == 1, shown.err
    assert lines[0].startswith("error: ")
    assert re.search(match, lines[0])
    assert shown.out == ""


def test_pictures_left_out_and_broken_are_said_in_the_words_of_the_command(
    folder: Path, bird: Path, tmp_path: Path, capsys
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, data in {"a.png": bird.read_bytes(), "b.png": b"x", "c.png": b"y", ".d.png": b"z"}.items():
        (photos / name).write_bytes(data)
    assert run("predict", str(folder), str(photos)) == 2
    warning, error = capsys.readouterr().err.strip().splitlines()
    assert warning.startswith("warning: ")
    assert "left out 1 file that is no picture: 1 hidden" in warning
    assert error.startswith("error: cannot decode 2 of 3 pictures")
    assert "b.png" in error
    assert "c.png" in error
    assert "or pass --on-error skip to leave" in error
    assert run("predict", str(folder), str(photos), "--on-error", "skip") == 0


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch, capsys) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    assert run("embed", "birds_gumbel", *SMALL_OPTIONS) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert "cache" in lines[0]


def test_an_internal_error_is_exit_code_1_and_debug_shows_it(tmp_path: Path, monkeypatch, capsys) -> None:
    from sparsecbm import runs

    def broken() -> None:
        raise ZeroDivisionError("a bug\nin two lines")

    monkeypatch.setattr(runs, "info_run", broken)
    assert run("info") == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == ["error: internal error: ZeroDivisionError: a bug in two lines (add --debug for the traceback)"]
    with pytest.raises(ZeroDivisionError):
        main(["info", "--debug"])


def test_ctrl_c_ends_with_130_and_the_same_command_finishes(tmp_path: Path, monkeypatch, capsys, ctrl_c) -> None:
    from sparsecbm._base.checkpoint import load_state
    from sparsecbm.bottleneck import Trainer

    def weights(name: str) -> bytes:
        return (tmp_path / name / "model" / "model.safetensors").read_bytes()

    assert run("train", "birds_gumbel", "--output", str(tmp_path / "whole"), *SMALL_OPTIONS) == 0
    capsys.readouterr()
    step = Trainer._optimizer_step

    def pressed(self: Trainer, *args: object) -> object:
        if self._step == 23:
            ctrl_c()
        return step(self, *args)

    again = ["train", "birds_gumbel", "--output", str(tmp_path / "cut"), *SMALL_OPTIONS]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_optimizer_step", pressed)
        assert run(*again) == 130
    printed = capsys.readouterr()
    assert printed.err == (
        "interrupted: finished embeddings and the training checkpoint are kept; the same command goes on from there\n"
    )
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["checkpoint"]
    assert load_state(tmp_path / "cut" / "checkpoint")["counters"]["_step"] == 24
    assert run(*again) == 0
    assert weights("cut") == weights("whole")


def test_ctrl_c_before_a_command_begins_is_one_line(monkeypatch, capsys, ctrl_c) -> None:
    monkeypatch.setattr(typer.main, "get_command", lambda _: ctrl_c())
    assert run("info") == 130
    assert capsys.readouterr().err == "interrupted: nothing was written\n"
