"""Files are whole or absent; errors say what to do; progress bars stay out of the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsecbm._base import files
from sparsecbm._base.errors import InputError, StoredFileError, unknown
from sparsecbm._base.files import (
    atomic_path,
    read_json,
    remove_leftovers,
    replace_folder,
    sha256_file,
    write_json,
    write_text,
)
from sparsecbm._base.progress import ProgressBar


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def interrupted() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("one_step", [True, False])
def test_a_folder_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_step: bool
) -> None:
    if not one_step:  # where the system cannot swap two folders
        monkeypatch.setattr(files.sys, "platform", "darwin")

    def made(text: str, fails: bool = False):
        def write(folder: Path) -> None:
            folder.mkdir(exist_ok=True)
            (folder / "a").write_text(text)
            if fails:
                raise OSError(28, "No space left on device")

        return write

    path = tmp_path / "model"
    replace_folder(path, made("old"))
    (path / "notes").write_text("mine")
    with pytest.raises(StoredFileError, match=r"model.*No space left"):
        replace_folder(path, made("half", fails=True))
    assert (path / "a").read_text() == "old"
    replace_folder(path, made("newer"), keep=True)
    assert [(file.name, file.read_text()) for file in sorted(path.iterdir())] == [("a", "newer"), ("notes", "mine")]
    replace_folder(path, made("new"))
    assert [file.name for file in path.iterdir()] == ["a"]
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_leftovers_of_killed_processes_go_and_nothing_else(tmp_path: Path) -> None:
    stay = ["a.json", ".a.json.tmp", ".a.json.mine.tmp", ".b.json.abcdefgh.tmp", "a.json.abcdefgh.tmp"]
    for name in (*stay, ".a.json.a_c45678.tmp"):
        (tmp_path / name).write_text("")
    (tmp_path / ".a.json.abcd5678.tmp" / "new").mkdir(parents=True)
    remove_leftovers(tmp_path, ["a.json"])
    assert {path.name for path in tmp_path.iterdir()} == set(stay)
    remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(stay) - {".b.json.abcdefgh.tmp"}


def test_json_round_trip_and_what_json_has_not(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"x": [1, "é"]})
    assert read_json(tmp_path / "a.json") == {"x": [1, "é"]}
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(tmp_path / "a.json", float("nan"))
    assert read_json(tmp_path / "a.json") == {"x": [1, "é"]}
    assert sha256_file(tmp_path / "a.json") != sha256_file(Path(__file__))


def test_unreadable_and_unwritable_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("{")
    for action in (
        lambda: read_json(tmp_path / "none.json"),
        lambda: read_json(tmp_path / "file"),
        lambda: write_text(tmp_path / "file" / "below", "x"),
    ):
        with pytest.raises(StoredFileError) as caught:
            action()
        assert "\n" not in str(caught.value)
        assert str(tmp_path) in str(caught.value)


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_unknown_suggests() -> None:
    assert isinstance(unknown("loss", "gumble", ["gumbel", "l1"]), InputError)
    assert str(unknown("loss", "gumble", ["gumbel", "l1"])).endswith("did you mean 'gumbel'?")
    assert "did you mean" not in str(unknown("loss", "zzz", ["gumbel", "l1"]))


def test_progress_appears_only_when_it_is_worth_it(capfd: pytest.CaptureFixture[str]) -> None:
    with ProgressBar("quick", 3, enabled=True) as bar:
        bar.update(3)
    with ProgressBar("hidden", 3, delay=0.0) as bar:  # not on a terminal
        bar.update(3)
    assert capfd.readouterr().err == ""
    with ProgressBar("slow", 3, enabled=True, delay=0.0) as bar:
        bar.update(2, note="loss 0.5")
        bar.refresh()
    shown = capfd.readouterr().err
    assert "slow" in shown
    assert "2/3" in shown
    assert "loss 0.5" in shown
