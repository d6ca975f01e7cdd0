"""Output folders: one run at a time, results that come together or not at all, no evaluation of another model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparsecbm import runs
from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.config.reading import load_config
from sparsecbm.runs import folders, train
from sparsecbm.runs.folders import output_folder, publish, remove_evaluations

NAMES = ("a.txt", "folder", "last.txt")
SMALL = ["images.max_train=60", "images.max_validation=20", "images.max_test=40", "evaluation.examples=1"]
SMALL += ["evaluation.baseline=false"]


def results(text: str, names: tuple[str, ...] = NAMES):
    def write(new: Path) -> None:
        for name in names:
            if name == "folder":
                (new / name).mkdir()
            (new / name / "in.txt" if name == "folder" else new / name).write_text(text)

    return write


def found(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def whole(text: str) -> dict[str, str]:
    return {"a.txt": text, "folder/in.txt": text, "last.txt": text}


def test_results_take_their_places_together_and_others_go(tmp_path: Path) -> None:
    publish(tmp_path, NAMES, results("old"))
    (tmp_path / "mine.txt").write_text("mine")
    publish(tmp_path, NAMES, results("new", ("a.txt", "last.txt")))
    assert found(tmp_path) == {"a.txt": "new", "last.txt": "new", "mine.txt": "mine"}
    publish(tmp_path, NAMES, results("third"))
    assert found(tmp_path) == whole("third") | {"mine.txt": "mine"}

    def failing(new: Path) -> None:
        results("fourth")(new)
        raise InputError("no")

    with pytest.raises(InputError):
        publish(tmp_path, NAMES, failing)
    assert found(tmp_path) == whole("third") | {"mine.txt": "mine"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_kill_at_any_change_leaves_all_old_or_says_that_it_is_not_whole(tmp_path: Path) -> None:
    changes, ends = 0, set()
    while True:
        changes += 1
        place = tmp_path / str(changes)
        place.mkdir()
        publish(place, NAMES, results("old"))
        if (pid := os.fork()) == 0:
            count = 0

            def hook(event: str, details: tuple) -> None:
                nonlocal count
                written = event == "open" and isinstance(details[2], int) and details[2] & os.O_CREAT
                if written or event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir"):
                    count += 1
                    if count == changes:  # noqa: B023 - in a child of its own
                        os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(hook)
            publish(place, NAMES, results("new"))
            os._exit(0)
        killed = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
        left = {name: text for name, text in found(place).items() if not name.startswith(".")}
        assert left in (whole("old"), whole("new")) or "last.txt" not in left, (changes, left)
        ends.add("last.txt" in left and left["last.txt"])
        publish(place, NAMES, results("new"))
        assert found(place) == whole("new")
        if not killed:
            break
    assert ends == {"old", "new", False}


def test_a_second_run_is_refused_while_one_is_at_work_and_not_after(forking: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with output_folder(out) as checkpoint:
        with (
            pytest.raises(StoredFileError, match=r"another run is at work .* choose another with --output"),
            output_folder(out),
        ):
            pass
        assert checkpoint.is_dir()
    assert not list(out.iterdir())
    # Not even where the first was killed: the lock went with it.
    code = "import os, sys\nfrom sparsecbm.runs.folders import output_folder\nfrom pathlib import Path\n"
    code += "with output_folder(Path(sys.argv[1])): os.kill(os.getpid(), 9)"
    killed = subprocess.run([str(forking / "python"), "-c", code, str(out)])
    assert killed.returncode == -signal.SIGKILL
    assert [path.name for path in out.iterdir()] == ["checkpoint"]
    with output_folder(out), pytest.raises(StoredFileError), output_folder(out):
        pass


def test_what_no_run_wrote_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("mine")
    with (
        pytest.raises(StoredFileError, match=r"holds a\.txt, which no earlier run wrote"),
        output_folder(tmp_path, NAMES, lambda _: False),
    ):
        pass
    assert found(tmp_path) == {"a.txt": "mine"}


def test_evaluations_of_other_models_go(tmp_path: Path) -> None:
    for split, checksum in (("test", "old"), ("train", "new"), ("other", None)):
        noted = {} if checksum is None else {"checksum": checksum}
        (tmp_path / f"{split}.json").write_text(json.dumps({"model": "m", "split": split, "metrics": {}, **noted}))
        for end in ("-confusion.csv", "-nec.png"):
            (tmp_path / f"{split}{end}").write_text("")
    (tmp_path / "mine.json").write_text("[]")
    (tmp_path / "half.json").write_text("{")
    remove_evaluations(tmp_path, keep="new")
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"train.json", "train-confusion.csv", "train-nec.png", "mine.json", "half.json"}
    remove_evaluations(tmp_path / "nothing", keep="new")


def test_an_evaluation_goes_with_its_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    def trained(steps: int) -> None:
        runs.train_run(load_config("birds_gumbel", [*SMALL, f"output={out}", f"model.max_iter={steps}"]))

    def evaluated() -> list[str]:
        runs.evaluate_run(out, controls=False, output=out / "evaluation")
        return sorted(path.name for path in (out / "evaluation").iterdir())

    trained(20)
    assert evaluated() == ["test-confusion.csv", "test-reliability.svg", "test.json"]
    trained(20)  # the same model again
    assert (out / "evaluation" / "test.json").is_file()
    concept = runs.load_model(out).classifier.concept_names_[0]
    runs.edit_run(out, suppress=[concept], measure=False)
    assert not (out / "evaluation").exists()
    assert evaluated() == ["test-confusion.csv", "test-reliability.svg", "test.json"]
    trained(30)
    assert not (out / "evaluation").exists()
    assert sorted(path.name for path in out.iterdir()) == ["config.yaml", "metrics.json", "model", "report.html"]
    # A model that changes while it is measured, and a second training meanwhile.
    measure = folders.model_checksum

    def changed(model: Path) -> str:
        monkeypatch.setattr("sparsecbm.runs.evaluate.model_checksum", measure)
        with pytest.raises(StoredFileError, match="another run is at work"), output_folder(out):
            trained(20)
        return "another"

    monkeypatch.setattr("sparsecbm.runs.evaluate.model_checksum", changed)
    with pytest.raises(InputError, match="was changed while it was evaluated"):
        runs.evaluate_run(out, controls=False, output=out / "evaluation")
    assert train._FILES[-1] == "metrics.json"
