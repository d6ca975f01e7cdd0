"""Folder layouts: what is a split, what a class, what a picture, and what is said of all the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sparsecbm import load_images
from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm.data.files import picture_files
from sparsecbm.data.splits import canonical_split

BOTH = [f"{split}/{name}/{i}.png" for split in ("train", "test") for name in ("cat", "dog") for i in range(4)]


@pytest.fixture
def tree(tmp_path: Path, encoded: Callable[..., bytes]) -> Callable[[list[str]], Path]:
    """Make files: pictures where the name says so, else text; folders where it ends in a slash."""

    def make(names: list[str]) -> Path:
        for i, name in enumerate(names):
            path = tmp_path / name
            if name.endswith("/"):
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(i, size=(4, 4)) if path.suffix == ".png" else b"x")
        return tmp_path

    return make


@pytest.mark.filterwarnings("ignore::sparsecbm._base.errors.DataWarning")
@pytest.mark.parametrize(
    ("extra", "n_train"),
    [
        ([], 8),
        (["__MACOSX/train/cat/._0.png"], 8),
        (["@eaDir/a.png"], 8),
        ([".ipynb_checkpoints/a.png"], 8),
        ([".thumbs/cat/a.png"], 8),
        (["unlabeled/"], 8),
        (["annotations/a.xml", "labels.csv", "README.md", "Thumbs.db"], 8),
        (["train/@eaDir/0.png@SynoEAStream", "train/cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.png"], 8),
        (["train/cat/.ipynb_checkpoints/0-checkpoint.png", "train/cat/Thumbs.db", "train/cat/._0.png"], 8),
        (["cover.png"], 8),
        (["val/"], 8),
        (["train/emu/"], 8),
    ],
    ids=lambda value: value[0] if isinstance(value, list) and value else "",
)
def test_strangers_beside_splits_change_nothing(tree: Callable, extra: list[str], n_train: int) -> None:
    root = tree(BOTH + extra)
    all_of_it = load_images(f"folder:{root}", "all")
    assert all_of_it.class_names == ("cat", "dog")
    assert len(all_of_it) == 2 * n_train
    assert [all_of_it.ids[i].split("/")[1] for i in np.flatnonzero(all_of_it.labels == 1)] == ["dog"] * n_train
    assert len(load_images(f"folder:{root}", "test")) == 8


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([*BOTH, "unlabeled/1.png"], "'test', 'train', named like splits, beside 'unlabeled'"),
        ([*BOTH, "annotations/cat/1.png"], "beside 'annotations'"),
        (["train/1.png", "test/1.png", "extra/1.png"], "beside 'extra'"),
        (["train/1.png", "unlabeled/1.png"], "beside 'unlabeled'"),
        (["val/1.png", "bus/1.png"], "'val', named like splits, beside 'bus'"),
        (["train/steam/1.png", "train/diesel/1.png", "bus/1.png"], "beside 'bus'"),
        (
            [f"set/{name}" for name in BOTH],
            r"level too many, 'set' holds 'test', 'train'.*give folder:.*set$",
        ),
        ([f"a/a/{name}" for name in BOTH], "give folder:.*a/a$"),
        (["set/train/cat/1.png", "set/train/dog/1.png"], "give folder:.*set$"),
        (["set/cat/1.png", "set/dog/1.png"], "'set' holds 'cat', 'dog'.*give folder:.*set$"),
        (["cat/train/1.png", "cat/test/1.png", "dog/train/1.png", "dog/test/1.png"], "'cat' holds 'test', 'train'"),
        (["train/train/cat/1.png", "train/train/dog/1.png", "test/test/cat/1.png"], "move them one level up"),
        (["train/images/cat/1.png", "train/images/dog/1.png", "test/images/cat/1.png"], "move them one level up"),
        ([f"images/{name}/1.png" for name in ("cat", "dog")] + ["annotations/1.xml"], "give folder:.*images$"),
        (["a.png", "b.png", "other/1.png"], "'a.png', 'b.png' beside the class folders"),
        ([*BOTH, "val/cat/1.png", "validation/cat/1.png"], "both 'val' and 'validation'"),
        (["cat/notes.txt", "dog/"], r"no pictures.*left out 1 file that is no picture: 1 of another type"),
    ],
)
def test_layouts_that_mean_two_things_are_refused(tree: Callable, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        load_images(f"folder:{tree(names)}", "all")
    assert "\n" not in str(error.value)


def test_an_empty_split_is_said(tree: Callable) -> None:
    root = tree([name for name in BOTH if name.startswith("train")] + ["test/cat/", "test/dog/"])
    with pytest.raises(InputError, match="no pictures in split 'test'"):
        load_images(f"folder:{root}", "test")


def test_classes_called_like_a_split(tree: Callable) -> None:
    root = tree([f"{name}/{i}.png" for name in ("bus", "train") for i in range(3)])
    assert load_images(f"folder:{root}", "all").class_names == ("bus", "train")


def test_unlabelled_splits_and_classes_that_a_split_lacks(tree: Callable) -> None:
    root = tree([*BOTH[:8], "test/1.png", "test/2.png", "val/dog/1.png"])
    assert load_images(f"folder:{root}", "test").labels is None
    assert load_images(f"folder:{root}", "val").labels.tolist() == [1]
    with pytest.warns(DataWarning, match="none in training: 'emu'"):
        assert load_images(f"folder:{tree(['val/emu/1.png'])}", "val").labels.tolist() == [1, 2]


def test_forms_of_one_class_are_one_class(tree: Callable) -> None:
    root = tree([f"train/Great_Dane/{i}.png" for i in range(3)] + [f"train/pug/{i}.png" for i in range(3)])
    tree(["test/great dane/1.png", "test/Pug /1.png"])
    with pytest.warns(DataWarning, match=r"'Great_Dane' and 'great dane'; 'pug' and 'Pug'"):
        test = load_images(f"folder:{root}", "test")
    assert test.class_names == ("Great_Dane", "pug")
    assert {test.class_names[k]: name.split("/")[1] for k, name in zip(test.labels, test.ids)} == {
        "Great_Dane": "great dane",
        "pug": "Pug ",
    }


def test_what_is_left_out_is_counted_and_said(tree: Callable) -> None:
    root = tree([*BOTH, "cover.png", ".DS_Store", "train/cat/Thumbs.db", "notes.txt", "masks/"])
    with pytest.warns(DataWarning) as said:
        load_images(f"folder:{root}", "train")
    lines = sorted(str(warning.message).split(": ", 1)[1] for warning in said)
    assert lines == [
        "left out 'cover.png', beside the class folders",
        "left out 3 files that are no pictures: 2 hidden or left behind by a system, 1 of another type ('notes.txt')",
        "left out folders without pictures: 'masks'",
    ]


@pytest.mark.filterwarnings("ignore::sparsecbm._base.errors.DataWarning")
def test_training_and_prediction_read_a_folder_alike(tree: Callable) -> None:
    names = ["b.png", "a", "c.jp2", ".thumbs/x.png", "._b.png", "notes.txt", "deep/d.png", "Thumbs.db"]
    root = tree([f"set/class/{name}" for name in names]) / "set"
    trained = load_images(f"folder:{root}", "all").ids
    assert trained == ["class/a", "class/b.png", "class/c.jp2", "class/deep/d.png"]
    assert picture_files([root]).ids == [str(root / name) for name in trained]
    by_hand = root / "class" / "notes.txt"
    assert picture_files([by_hand]).ids == [str(by_hand)]  # taken as it is
    with pytest.raises(InputError, match=r"holds no picture .*1 hidden"):
        picture_files([tree(["only/.x.png"]) / "only"])


def test_links_back_up_are_followed_once(tree: Callable) -> None:
    root = tree(["cat/deep/1.png"])
    (root / "cat" / "deep" / "loop").symlink_to(root, target_is_directory=True)
    assert load_images(f"folder:{root}", "all").ids == ["cat/deep/1.png"]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"),
        ("training_set", "train"),
        ("train2017", "train"),
        ("test-images", "test"),
        ("val ", "validation"),
        ("dataset", "dataset"),
        ("trains", "trains"),
        ("test1", "test1"),
    ],
)
def test_names_of_splits(name: str, split: str) -> None:
    assert canonical_split(name) == split
