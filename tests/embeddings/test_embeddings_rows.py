"""Every row belongs to its own picture, whatever happens to files, shards and weights in between."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from embed_worker import StoredPictures
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm.data import load_images
from sparsecbm.embeddings import embed_images
from sparsecbm.embeddings.store import Entry
from sparsecbm.encoders import load_encoder

SHARDS = {"shard_size": 32, "batch_size": 8}


def _save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        _save(tmp_path / "pictures" / "ab"[index % 2] / f"{index}.png", index)
    return tmp_path / "pictures"


def _exchange(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


@pytest.mark.parametrize("disturb", [_exchange, lambda first, second: second.write_bytes(first.read_bytes())])
def test_a_shard_under_the_name_of_another_is_not_taken_for_it(
    disturb, encoder, pixels, tmp_path, monkeypatch, forward_passes
):
    source = StoredPictures(pixels[:96])
    with monkeypatch.context() as patch:
        patch.setattr(Entry, "assemble", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            embed_images(encoder, source, **SHARDS)
    first, second, _ = sorted((tmp_path / "cache").rglob("rows-*.safetensors"))
    disturb(first, second)
    forward_passes.clear()
    table = embed_images(encoder, source, **SHARDS)
    assert sum(forward_passes) in (32, 64)
    np.testing.assert_array_equal(table.vectors, encoder.encode_images(source, batch_size=8))


def _replaced_once_hashed(source, path: Path, times: int):
    """Let a file be replaced by another picture right after it was hashed."""
    real = source.content_hashes

    def content_hashes() -> bytes:
        nonlocal times
        hashes = real()
        if times:
            times -= 1
            _save(path, 100 + times)
        return hashes

    source.content_hashes = content_hashes
    return source


@pytest.mark.parametrize("cache", ["disk", "memory"])
def test_a_file_replaced_between_hashing_and_encoding(cache, encoder, folder):
    path = folder / "a" / "2.png"
    original = path.read_bytes()
    source = _replaced_once_hashed(load_images(f"folder:{folder}", "all"), path, times=1)
    table = embed_images(encoder, source, cache=cache)
    np.testing.assert_allclose(table.vectors, encoder.encode_images(source), atol=1e-6)
    # Put back, the pictures are what was hashed first: no row of the other one may come up now.
    path.write_bytes(original)
    back = load_images(f"folder:{folder}", "all")
    np.testing.assert_allclose(embed_images(encoder, back).vectors, encoder.encode_images(back), atol=1e-6)


def test_files_that_never_rest_are_one_line(encoder, folder):
    path = folder / "a" / "2.png"
    source = _replaced_once_hashed(load_images(f"folder:{folder}", "all"), path, times=99)
    with pytest.raises(InputError, match=r"'a/2.png' changed while it was embedded, 3 times in a row: wait"):
        embed_images(encoder, source)


def test_a_source_used_again_sees_the_files_as_they_are(encoder, folder):
    source = load_images(f"folder:{folder}", "all")
    before = np.array(embed_images(encoder, source).vectors)
    assert embed_images(encoder, source).provenance["cache"]["hit"]
    path = folder / "a" / "0.png"
    stamp = path.stat()
    _save(path, 50)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = embed_images(encoder, source)
    assert (np.abs(after.vectors - before).max(axis=1) > 1e-3).tolist() == [True, *[False] * 5]


def test_pictures_read_anew_each_time_are_compared_by_their_pixels(encoder, pixels):
    class Changing(list):
        """Its third picture is another one each time until it has been read twice."""

        reads = 0

        def __getitem__(self, index):
            self.reads += index == 2
            return Image.fromarray(pixels[50 + self.reads if index == 2 and self.reads < 3 else index])

    pictures = Changing(range(6))
    table = embed_images(encoder, pictures)
    np.testing.assert_allclose(table.vectors, encoder.encode_images(StoredPictures(pixels[:6])), atol=1e-6)


def test_a_table_rewritten_with_its_old_time_stamp(tmp_path, monkeypatch):
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as parquet

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "datasets")
    file = tmp_path / "tables" / "train-00000-of-00001.parquet"
    file.parent.mkdir()
    seen = {}
    for colour in (10, 30):
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / "one.png")
        cell = {"bytes": (tmp_path / "one.png").read_bytes(), "path": None}
        parquet.write_table(pa.table({"image": [cell], "label": [0]}), file)
        os.utime(file, ns=(10**18, 10**18))
        for spec in (f"parquet:{file}", f"hub:{file.parent}"):
            seen[colour, spec] = load_images(spec, "all")[0].getpixel((0, 0))[0]
    assert all(colour == pixel for (colour, _), pixel in seen.items())


def test_weights_that_only_change_places_are_no_stale_hit(model_folder, pixels):
    own = load_encoder(f"open_clip:local-dir:{model_folder}", device="cpu")
    source = StoredPictures(pixels[:8])
    before = np.array(embed_images(own, source).vectors)
    own.model.visual.proj.data[:, [0, 1]] = own.model.visual.proj.data[:, [1, 0]]
    after = embed_images(own, source)
    np.testing.assert_allclose(after.vectors[:, [1, 0]], before[:, :2], atol=1e-6)
