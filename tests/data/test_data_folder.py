from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsecbm import load_images
from sparsecbm._base.errors import InputError
from sparsecbm.data import ImageSource


def test_class_folders_are_read_in_order_with_their_unicode_names(class_folders: Path) -> None:
    source = load_images(f"folder:{class_folders}", "all")
    assert isinstance(source, ImageSource)
    assert source.class_names == ("Bär mit Hut", "ant", "鳥")
    assert source.labels.dtype == np.int64
    assert source.labels.tolist() == [0] * 10 + [1] * 10 + [2] * 10
    assert source.ids[0] == "Bär mit Hut/0.png"
    assert source.skipped == []
    for i in (0, 17, 29):
        with Image.open(class_folders / source.ids[i]) as expected:
            assert np.array_equal(np.asarray(source[i]), np.asarray(expected.convert("RGB")))


def test_decomposed_folder_names_give_composed_class_names(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    for name in ("e\u0301tang", "mer"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(1))
    assert load_images(f"folder:{tmp_path}", "all").class_names == ("mer", "\u00e9tang")


def test_splits_of_a_folder_are_disjoint_and_complete(class_folders: Path) -> None:
    parts = {split: load_images(f"folder:{class_folders}", split) for split in ("train", "val", "test")}
    assert [len(part) for part in parts.values()] == [21, 3, 6]
    assert parts["val"].split == "validation"
    assert len(set().union(*(part.ids for part in parts.values()))) == 30
    for part in parts.values():
        assert set(part.labels) == {0, 1, 2}
        assert all(part.class_names[k] == id_.split("/")[0] for k, id_ in zip(part.labels, part.ids))


def test_split_folders_are_official(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    for split, names in {"train": ["cat", "dog"], "test": ["cat", "dog"]}.items():
        for k, name in enumerate(names):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(8):
                (tmp_path / split / name / f"{i}.png").write_bytes(encoded(i + 10 * k))
    train, val, test = (load_images(f"folder:{tmp_path}", split) for split in ("train", "validation", "test"))
    assert (len(train), len(val), len(test)) == (14, 2, 16)
    assert {i.split("/")[0] for i in [*train.ids, *val.ids]} == {"train"}
    assert {i.split("/")[0] for i in test.ids} == {"test"}
    assert train.class_names == test.class_names == ("cat", "dog")


def test_a_class_called_train_is_a_class(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    for name in ("bus", "train"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes(encoded(i))
    assert load_images(f"folder:{tmp_path}", "all").class_names == ("bus", "train")


def test_flat_folder_has_no_labels(tmp_path: Path, encoded: Callable[..., bytes]) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    source = load_images(f"folder:{tmp_path}", "all")
    assert source.labels is None
    assert source.class_names == ()
    assert len(source) == 3


def damage(root: Path, encoded: Callable[..., bytes]) -> list[str]:
    """Put pictures that cannot be decoded into the class "ant"."""
    good = encoded(7, size=(64, 64), form="JPEG")
    (root / "ant" / "a truncated.jpg").write_bytes(good[: len(good) // 2])
    (root / "ant" / "b text.png").write_text("not a picture")
    (root / "ant" / "c empty.jpg").write_bytes(b"")
    (root / "ant" / "d without suffix").write_bytes(b"x")
    (root / "ant" / ".DS_Store").write_bytes(b"\0")  # clutter of a file manager: no picture and no error
    return ["ant/a truncated.jpg", "ant/b text.png", "ant/c empty.jpg", "ant/d without suffix"]


def test_all_pictures_that_cannot_be_decoded_are_named_in_one_go(
    class_folders: Path, encoded: Callable[..., bytes]
) -> None:
    bad = damage(class_folders, encoded)
    source = load_images(f"folder:{class_folders}", "all")
    assert len(source) == 34
    for name in bad:
        with pytest.raises(InputError, match=f"4 of 34 pictures of .*: '{name}'") as error:
            source[source.ids.index(name)]
        assert all(other in str(error.value) for other in bad)
        assert "on_error='skip'" in str(error.value)
        assert "\n" not in str(error.value)
    for name in bad[1:]:
        (class_folders / name).unlink()
    with pytest.raises(InputError, match=f"cannot decode picture '{bad[0]}'"):
        list(load_images(f"folder:{class_folders}", "all"))


def test_skipped_pictures_are_counted_and_leave_no_gap(class_folders: Path, encoded: Callable[..., bytes]) -> None:
    before = load_images(f"folder:{class_folders}", "all")
    bad = damage(class_folders, encoded)
    source = load_images(f"folder:{class_folders}", "all", on_error="skip")
    assert [name for name, _ in source.skipped] == bad
    assert all(reason for _, reason in source.skipped)
    assert source.ids == before.ids
    assert source.labels.tolist() == before.labels.tolist()
    assert source.fingerprint == before.fingerprint
    assert len(list(source)) == 30


def test_skipping_moves_no_picture_to_another_split(class_folders: Path, encoded: Callable[..., bytes]) -> None:
    damage(class_folders, encoded)
    for split in ("train", "validation", "test"):
        all_of_it = load_images(f"folder:{class_folders}", split)
        readable = load_images(f"folder:{class_folders}", split, on_error="skip")
        assert set(readable.ids) | {name for name, _ in readable.skipped} == set(all_of_it.ids)


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ant").mkdir()
    (tmp_path / "ant" / "1.png").write_text("no picture")
    with pytest.raises(InputError, match=r"ant/1\.png"):
        load_images(f"folder:{tmp_path}", "all", on_error="skip")


def test_decompression_bomb_is_named(
    class_folders: Path, encoded: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    (class_folders / "ant" / "bomb.png").write_bytes(encoded(1, size=(40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    source = load_images(f"folder:{class_folders}", "all", on_error="skip")
    assert [name for name, _ in source.skipped] == ["ant/bomb.png"]
    assert "too large" in source.skipped[0][1]


def test_fingerprint_is_of_content_and_order(class_folders: Path, encoded: Callable[..., bytes]) -> None:
    def fingerprint(**options: object) -> str:
        return load_images(f"folder:{class_folders}", "all", **options).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(max_images=15) != first
    one, two = (class_folders / "ant" / f"{i}.png" for i in range(2))
    a, b = one.read_bytes(), two.read_bytes()
    one.write_bytes(b), two.write_bytes(a)
    assert fingerprint() != first  # another order
    one.write_bytes(a), two.write_bytes(b)
    assert fingerprint() == first
    one.write_bytes(encoded(999))
    assert fingerprint() != first


def test_fingerprint_keeps_bytes_in_their_picture(tmp_path: Path) -> None:
    prints = set()
    for name, (a, b) in {"x": (b"ab", b"c"), "y": (b"a", b"bc"), "z": (b"abc", b"")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(a)
        (tmp_path / name / "2.png").write_bytes(b)
        prints.add(load_images(f"folder:{tmp_path / name}", "all").fingerprint)
    assert len(prints) == 3


def test_max_images_is_stratified_and_seeded(class_folders: Path) -> None:
    source = load_images(f"folder:{class_folders}", "train", max_images=6)
    assert np.bincount(source.labels).tolist() == [2, 2, 2]
    assert load_images(f"folder:{class_folders}", "train", max_images=6).ids == source.ids
    assert len(load_images(f"folder:{class_folders}", "train", max_images=999)) == 21


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_every_mode_becomes_rgb(tmp_path: Path, encoded: Callable[..., bytes], mode: str) -> None:
    (tmp_path / "1.png").write_bytes(encoded(3, mode=mode))
    picture = load_images(f"folder:{tmp_path}", "all")[0]
    assert picture.mode == "RGB"
    assert picture.size == (12, 10)


def test_sixteen_bit_greys_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = (np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "1.png")
    pixels = np.asarray(load_images(f"folder:{tmp_path}", "all")[0])[..., 0]
    assert np.array_equal(pixels, ramp >> 8)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.new("RGB", (20, 10), (255, 0, 0))
    picture.paste((0, 0, 255), (0, 0, 10, 10))  # blue on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn 90 degrees clockwise to show
    handle = io.BytesIO()
    picture.save(handle, "PNG", exif=exif)
    (tmp_path / "1.png").write_bytes(handle.getvalue())
    upright = load_images(f"folder:{tmp_path}", "all")[0]
    assert upright.size == (10, 20)
    assert upright.getpixel((5, 2)) == (0, 0, 255)  # what was left is on top
    assert upright.getpixel((5, 17)) == (255, 0, 0)


@pytest.mark.parametrize("make", ["missing", "file", "empty", "strays"])
def test_unusable_folders_are_named(tmp_path: Path, encoded: Callable[..., bytes], make: str) -> None:
    root = tmp_path / "set"
    if make == "file":
        root.write_text("x")
    elif make != "missing":
        (root / "ant").mkdir(parents=True)
    if make == "strays":
        for name in ("ant/1.png", "lost.png", "lost too.png"):
            (root / name).write_bytes(encoded(1))
    messages = {"missing": "does not exist", "file": "is a file", "empty": "no pictures", "strays": r"lost too\.png"}
    with pytest.raises(InputError, match=messages[make]):
        load_images(f"folder:{root}", "all")


def test_a_file_that_may_not_be_read_is_named(class_folders: Path) -> None:
    source = load_images(f"folder:{class_folders}", "all")
    (class_folders / source.ids[4]).unlink()
    with pytest.raises(InputError, match=r"4\.png.*cannot be read"):
        source[4]
    with pytest.raises(InputError, match=r"4\.png"):
        _ = source.fingerprint
    with pytest.raises(IndexError):
        source[30]
