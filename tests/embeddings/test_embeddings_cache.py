"""The cache: what hits, what misses, what is found damaged, what a stopped run leaves."""

from __future__ import annotations

import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from embed_worker import StoredPictures
from PIL import Image
from tiny_models import save_open_clip

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.embeddings import cache_dir, embed_images, embed_texts
from sparsecbm.embeddings.store import locked
from sparsecbm.encoders import load_encoder

SHARDS = {"shard_size": 32, "batch_size": 8}


def _entry(folder: Path) -> Path:
    (manifest,) = folder.rglob("manifest.json")
    return manifest.parent


def test_second_call_opens_the_same_rows_without_the_encoder(encoder, pixels, tmp_path, forward_passes):
    first = embed_images(encoder, StoredPictures(pixels), **SHARDS)
    assert sum(forward_passes) == len(pixels)
    forward_passes.clear()
    second = embed_images(encoder, StoredPictures(pixels), **SHARDS)
    assert forward_passes == []
    assert (first.provenance["cache"]["hit"], second.provenance["cache"]["hit"]) == (False, True)
    assert isinstance(second.vectors, np.memmap)
    assert not second.vectors.flags.writeable
    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(
        second.vectors, encoder.encode_images([Image.fromarray(p) for p in pixels], batch_size=8)
    )
    assert second.class_names == ("noise",)
    assert second.labels.tolist() == [0] * 120
    assert second.ids[7] == "picture-7"
    assert second.provenance["encoder"]["fingerprint"] == encoder.fingerprint
    json.dumps(second.provenance)
    assert sorted(path.name for path in _entry(tmp_path / "cache").iterdir()) == ["manifest.json", "vectors.npy"]


def test_what_a_run_killed_after_finishing_left_is_cleaned(encoder, pixels, tmp_path):
    embed_images(encoder, StoredPictures(pixels[:8]))
    entry = _entry(tmp_path / "cache")
    for name in ("rows-0000000-0000008-b8.safetensors", ".vectors.npy.a1b2c3d4.tmp"):
        (entry / name).write_bytes(b"left")
    with locked(entry.with_suffix(".lock")):  # somebody is at it
        assert embed_images(encoder, StoredPictures(pixels[:8])).provenance["cache"]["hit"]
    assert len(list(entry.iterdir())) == 4
    assert embed_images(encoder, StoredPictures(pixels[:8])).provenance["cache"]["hit"]
    assert sorted(path.name for path in entry.iterdir()) == ["manifest.json", "vectors.npy"]


def test_anything_that_changes_the_numbers_is_a_miss(encoder, pixels, tmp_path):
    base = pixels[:12]

    def key(source=None, by=encoder, **options) -> str:
        table = embed_images(by, source or StoredPictures(base), **options)
        return table.provenance["cache"]["key"]

    edited = base.copy()
    edited[5, 0, 0, 0] ^= 1
    other = load_encoder(f"open_clip:local-dir:{save_open_clip(tmp_path / 'other', seed=1)}", device="cpu")
    brighter = load_encoder(f"open_clip:local-dir:{save_open_clip(tmp_path / 'mean', mean=0.4)}", device="cpu")
    mixed = load_encoder(encoder.spec, device="cpu", precision="bfloat16")
    keys = [
        key(),
        key(StoredPictures(edited)),
        key(StoredPictures(base[::-1].copy())),
        key(StoredPictures(base[:11])),
        key(by=other),
        key(by=brighter),
        key(by=mixed),
        key(dtype="float16"),
    ]
    assert len(set(keys)) == len(keys)
    # How the work was cut does not change what it is.
    assert key(batch_size=3, shard_size=5) == keys[0]


def test_prompts_decide_for_texts(encoder, forward_passes):
    def key(texts, templates=None) -> str:
        return embed_texts(encoder, texts, templates).provenance["cache"]["key"]

    names = ["red bird", "blue wing"]
    keys = [key(names), key(names[::-1]), key(names, ["a {}"]), key(names, ["a {}", "the {}"]), key(["red bird"])]
    assert len(set(keys)) == len(keys)
    assert key(["a red bird", "a blue wing"]) == keys[2]  # the same prompts
    forward_passes.clear()
    assert key(names, "a {}") == keys[2]
    assert forward_passes == []


def test_an_edited_file_of_the_same_name_is_no_stale_hit(encoder, tmp_path):
    from sparsecbm.data import load_images

    folder = tmp_path / "pictures"
    for name, colour in (("cat", (200, 10, 10)), ("dog", (10, 200, 10))):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), colour).save(folder / name / "0.png")
        Image.new("RGB", (40, 40), colour).save(folder / name / "1.png")
    before = embed_images(encoder, load_images(f"folder:{folder}", "all"))
    status = (folder / "cat" / "0.png").stat()
    Image.new("RGB", (40, 40), (10, 10, 200)).save(folder / "cat" / "0.png")
    os.utime(folder / "cat" / "0.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    after = embed_images(encoder, load_images(f"folder:{folder}", "all"))
    assert not after.provenance["cache"]["hit"]
    row = after.ids.index(next(name for name in after.ids if "cat" in name and "0.png" in name))
    assert not np.allclose(before.vectors[row], after.vectors[row], atol=1e-3)
    rest = [i for i in range(4) if i != row]
    np.testing.assert_allclose(before.vectors[rest], after.vectors[rest], atol=1e-6)


def test_an_encoder_edited_in_place_is_no_stale_hit(model_folder, pixels):
    own = load_encoder(f"open_clip:local-dir:{model_folder}", device="cpu")
    before = embed_images(own, StoredPictures(pixels[:8]))
    own.model.visual.proj.data *= -1
    after = embed_images(own, StoredPictures(pixels[:8]))
    np.testing.assert_allclose(after.vectors, -np.asarray(before.vectors), atol=1e-6)


def _flip_byte(path: Path, at: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    status = path.stat()
    path.write_bytes(raw)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    "damage",
    [
        lambda entry: _flip_byte(entry / "vectors.npy", -5),
        lambda entry: (entry / "vectors.npy").write_bytes((entry / "vectors.npy").read_bytes()[:-64]),
        lambda entry: (entry / "vectors.npy").unlink(),
        lambda entry: (entry / "manifest.json").write_text("{"),
        lambda entry: (entry / "manifest.json").write_text("[]"),
        lambda entry: (entry / "manifest.json").unlink(),
    ],
)
def test_a_damaged_array_is_found_and_encoded_again(damage, encoder, pixels, tmp_path):
    source = StoredPictures(pixels[:20])
    good = np.array(embed_images(encoder, source).vectors)
    damage(_entry(tmp_path / "cache"))
    again = embed_images(encoder, source)
    assert not again.provenance["cache"]["hit"]
    np.testing.assert_array_equal(again.vectors, good)
    assert embed_images(encoder, source).provenance["cache"]["hit"]


def test_a_copied_cache_still_hits(encoder, pixels, tmp_path):
    import shutil

    first = embed_images(encoder, StoredPictures(pixels), tmp_path / "here", **SHARDS)
    shutil.copytree(tmp_path / "here", tmp_path / "there", copy_function=shutil.copy)  # new modification times
    second = embed_images(encoder, StoredPictures(pixels), tmp_path / "there", **SHARDS)
    assert second.provenance["cache"]["hit"]
    np.testing.assert_array_equal(first.vectors, second.vectors)


class Interrupted(StoredPictures):
    """Raises at one picture, once."""

    def __init__(self, pixels, at: int, error: BaseException) -> None:
        super().__init__(pixels)
        self.at, self.error = at, error

    def __getitem__(self, index):
        if index == self.at:
            raise self.error
        return super().__getitem__(index)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), InputError("cannot decode picture 'x.png'")])
def test_what_was_finished_before_an_interruption_is_kept(error, encoder, pixels, tmp_path, forward_passes):
    reference = encoder.encode_images([Image.fromarray(p) for p in pixels], batch_size=8)
    with pytest.raises(type(error)):
        embed_images(encoder, Interrupted(pixels, 100, error), **SHARDS)
    assert len(list((tmp_path / "cache").rglob("rows-*.safetensors"))) == 3
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    forward_passes.clear()
    resumed = embed_images(encoder, StoredPictures(pixels), **SHARDS)
    assert sum(forward_passes) == 120 - 96
    np.testing.assert_array_equal(resumed.vectors, reference)


@pytest.mark.parametrize(
    "damage",
    [
        lambda shard: _flip_byte(shard, -3),
        lambda shard: shard.write_bytes(shard.read_bytes()[:200]),
        lambda shard: shard.write_bytes(b""),
        lambda shard: _flip_byte(shard, 40),  # in the header
    ],
)
def test_a_half_written_or_corrupted_shard_is_redone(damage, encoder, pixels, tmp_path, forward_passes):
    with pytest.raises(KeyboardInterrupt):
        embed_images(encoder, Interrupted(pixels, 100, KeyboardInterrupt()), **SHARDS)
    damage(min((tmp_path / "cache").rglob("rows-*.safetensors")))
    forward_passes.clear()
    resumed = embed_images(encoder, StoredPictures(pixels), **SHARDS)
    assert sum(forward_passes) == 120 - 64
    np.testing.assert_array_equal(
        resumed.vectors, encoder.encode_images([Image.fromarray(p) for p in pixels], batch_size=8)
    )


def test_shards_of_other_batches_are_not_mixed_in(encoder, pixels, forward_passes):
    with pytest.raises(KeyboardInterrupt):
        embed_images(encoder, Interrupted(pixels, 100, KeyboardInterrupt()), **SHARDS)
    forward_passes.clear()
    embed_images(encoder, StoredPictures(pixels), shard_size=32, batch_size=16)
    assert sum(forward_passes) == 120


def test_float16_is_stored_and_returned_as_float16(encoder, pixels):
    table = embed_images(encoder, StoredPictures(pixels[:10]), dtype="float16")
    assert table.vectors.dtype == np.float16
    exact = embed_images(encoder, StoredPictures(pixels[:10]))
    np.testing.assert_array_equal(table.vectors, np.asarray(exact.vectors).astype(np.float16))
    with pytest.raises(InputError, match="dtype='float23': expected"):
        embed_images(encoder, StoredPictures(pixels[:10]), dtype="float23")


def test_template_ensembles_are_the_renormalised_mean_of_unit_rows(encoder):
    names, templates = ["red bird", "dog"], ["a photo of a {}.", "the {}", "{}"]
    table = embed_texts(encoder, names, templates)
    for row, name in zip(table.vectors, names):
        mean = encoder.encode_texts([template.replace("{}", name) for template in templates]).mean(axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)
    assert table.ids == tuple(names)
    np.testing.assert_allclose(embed_texts(encoder, names).vectors, encoder.encode_texts(names), atol=1e-7)


def test_two_threads_of_work_on_one_entry_do_it_once(encoder, pixels, tmp_path, forward_passes):
    images = StoredPictures(pixels)
    tables = []
    threads = [
        threading.Thread(target=lambda: tables.append(embed_images(encoder, images, **SHARDS))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(forward_passes) == len(pixels)
    np.testing.assert_array_equal(tables[0].vectors, tables[1].vectors)


def test_plain_pictures_are_told_by_their_pixels(encoder, pixels):
    images = [Image.fromarray(p) for p in pixels[:6]]
    first = embed_images(encoder, images)
    assert first.labels is None
    assert embed_images(encoder, list(images)).provenance["cache"]["hit"]
    assert embed_images(encoder, (image for image in images)).provenance["cache"]["hit"]
    assert not embed_images(encoder, images[::-1]).provenance["cache"]["hit"]


def test_where_the_cache_is(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSECBM_CACHE", str(tmp_path / "x"))
    assert cache_dir() == tmp_path / "x"
    monkeypatch.delenv("SPARSECBM_CACHE")
    assert "sparsecbm" in str(cache_dir())


def test_a_full_disk_is_one_line_and_loses_nothing(encoder, pixels, tmp_path, monkeypatch, forward_passes):
    real, written = os.fsync, []

    def full(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoredFileError, match="No space left on device; free some space") as caught:
        embed_images(encoder, StoredPictures(pixels), **SHARDS)
    assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "cache").rglob("rows-*.safetensors"))) == 2
    assert not list((tmp_path / "cache").rglob("*.tmp"))
    in_memory = embed_images(encoder, StoredPictures(pixels), cache="disk-or-memory", **SHARDS)
    assert in_memory.provenance["cache"] is None
    monkeypatch.setattr(os, "fsync", real)
    forward_passes.clear()
    resumed = embed_images(encoder, StoredPictures(pixels), **SHARDS)
    assert sum(forward_passes) == 120 - 64
    np.testing.assert_array_equal(resumed.vectors, in_memory.vectors)


def test_a_cache_that_cannot_be_written(encoder, pixels, tmp_path):
    (tmp_path / "file").write_text("")
    source = StoredPictures(pixels[:4])
    with pytest.raises(StoredFileError, match=r"cannot write the cache folder .* SPARSECBM_CACHE") as caught:
        embed_images(encoder, source, tmp_path / "file" / "below")
    assert "\n" not in str(caught.value)
    table = embed_images(encoder, source, tmp_path / "file" / "below", cache="disk-or-memory")
    assert table.provenance["cache"] is None
    memory = embed_images(encoder, source, cache="memory")
    assert not (tmp_path / "cache").exists()
    np.testing.assert_array_equal(memory.vectors, table.vectors)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_no_permission(encoder, pixels, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    with pytest.raises(StoredFileError, match="Permission denied"):
        embed_images(encoder, StoredPictures(pixels[:4]), locked)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"shard_size": 0}, "shard_size=0"),
        ({"batch_size": -1}, "batch_size=-1"),
        ({"cache": "disc"}, "did you mean 'disk'"),
    ],
)
def test_wrong_options(options, words, encoder, pixels):
    with pytest.raises(InputError, match=words):
        embed_images(encoder, StoredPictures(pixels[:4]), **options)


def test_nothing_to_embed(encoder):
    with pytest.raises(InputError, match="no images"):
        embed_images(encoder, [])
    with pytest.raises(InputError, match="no texts"):
        embed_texts(encoder, [])
    with pytest.raises(InputError, match="single string"):
        embed_texts(encoder, "a bird")
    with pytest.raises(InputError, match="text 1 is 3"):
        embed_texts(encoder, ["a bird", 3])
    with pytest.raises(InputError, match="exactly one"):
        embed_texts(encoder, ["a bird"], ["a photo"])
    with pytest.raises(InputError, match="image 0 is an array of float64"):
        embed_images(encoder, [np.zeros((3, 3))])
