"""Batching, order, threads, laziness and bad pictures or texts."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_models import KINDS, pictures

from sparsecbm._base.errors import InputError
from sparsecbm.encoders import load_encoder


@pytest.fixture(scope="module")
def encoder(saved):
    return load_encoder(saved("open_clip"), device="cpu")


class Source:
    """An image source that notes what is read."""

    def __init__(self, images):
        self.images, self.read = images, []
        self.ids = [f"file-{index}.png" for index in range(len(images))]
        self.fingerprint = "x"

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        return self.images[index]


def test_lists_sources_and_generators_give_the_same_rows_in_order(encoder):
    images = pictures(45)
    expected = encoder.encode_images(images, batch_size=7)
    np.testing.assert_array_equal(encoder.encode_images(Source(images), batch_size=7), expected)
    np.testing.assert_array_equal(encoder.encode_images((image for image in images), batch_size=7), expected)
    one_by_one = np.concatenate([encoder.encode_images([image]) for image in images])
    np.testing.assert_allclose(expected, one_by_one, atol=1e-6)


@pytest.mark.parametrize("kind", ["open_clip", "clip"])
def test_no_more_pictures_are_decoded_at_a_time_than_threads_work(kind, saved, tmp_path):
    made, most = [], []

    class Painted(Source):
        def __getitem__(self, index):
            picture = super().__getitem__(index).copy()
            made.append(weakref.ref(picture))
            most.append(sum(one() is not None for one in made))
            return picture

    encoder, images = load_encoder(saved(kind), device="cpu"), pictures(40)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        rows = encoder.encode_images(Painted(images), batch_size=20)
    finally:
        torch.set_num_threads(before)
    assert max(most) <= 2 * 2  # one in work and one on its way out, of each thread
    paths = [tmp_path / f"{i}.png" for i in range(len(images))]
    for path, image in zip(paths, images):
        image.save(path)
    np.testing.assert_array_equal(encoder.encode_images(paths, batch_size=20), rows)


@pytest.mark.parametrize("kind", KINDS)
def test_number_of_threads_does_not_change_a_bit(kind, saved):
    encoder, images, texts = load_encoder(saved(kind), device="cpu"), pictures(24), [f"a {w}" for w in "cdefghij"]
    results, before = [], torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append((encoder.encode_images(images, 4), encoder.encode_texts(texts, 2)))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for image_rows, text_rows in results[1:]:
        np.testing.assert_array_equal(image_rows, results[0][0])
        np.testing.assert_array_equal(text_rows, results[0][1])


def test_reading_is_lazy(encoder):
    source = Source(pictures(200))
    batches = (range(start, start + 4) for start in range(0, 200, 4))
    blocks = encoder.iter_encode_images(source, batches)
    assert source.read == []
    next(blocks)
    blocks.close()
    assert 4 <= len(source.read) < 200


def test_colour_modes_are_converted(encoder):
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 44), dtype=np.uint8))
    rows = encoder.encode_images([grey, grey.convert("RGB"), grey.convert("RGBA"), grey.convert("P")])
    np.testing.assert_allclose(rows[1:], np.repeat(rows[:1], 3, axis=0), atol=1e-6)


def test_empty_input_gives_an_empty_matrix(encoder):
    assert encoder.encode_images([]).shape == (0, 24)
    assert encoder.encode_images(iter([])).shape == (0, 24)
    assert encoder.encode_texts([]).shape == (0, 24)


def test_a_truncated_picture_is_named(encoder, tmp_path):
    path = tmp_path / "broken.png"
    pictures(1)[0].save(path)
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(InputError, match=r"cannot decode '.*broken.png'"):
        encoder.encode_images([*pictures(2), Image.open(path)])


def test_what_is_no_picture_is_named(encoder):
    with pytest.raises(InputError, match="image 2 is an array of float64"):
        encoder.encode_images([*pictures(2), np.zeros((8, 8, 3))])
    with pytest.raises(InputError, match="image 1 is a dict"):
        encoder.encode_images(Source([*pictures(1), {"image": None}]))


@pytest.mark.parametrize("batch_size", [0, -3, 2.5, True])
def test_wrong_batch_size(encoder, batch_size):
    with pytest.raises(InputError, match="batch_size"):
        encoder.encode_images(pictures(1), batch_size=batch_size)


def test_texts_must_be_strings(encoder):
    with pytest.raises(InputError, match="single string 'a bird'"):
        encoder.encode_texts("a bird")
    with pytest.raises(InputError, match="text 1 is None"):
        encoder.encode_texts(["a bird", None])


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "not finite"), (0.0, "zero")])
def test_nan_and_zero_embeddings_name_the_picture(saved, value, word):
    encoder = load_encoder(saved("open_clip"))
    encoder.model.visual.proj.data.fill_(value)
    with pytest.raises(InputError, match=rf"image 0 \('file-0.png'\) .* is {word}"):
        encoder.encode_images(Source(pictures(3)))
    encoder.model.text_projection.data.fill_(value)
    with pytest.raises(InputError, match=rf"text 0 \('a bird'\) .* is {word}"):
        encoder.encode_texts(["a bird"])


def test_bfloat16_is_close_and_comes_back_as_float32(saved):
    exact, mixed = (load_encoder(saved("clip"), device="cpu", precision=p) for p in ("float32", "bfloat16"))
    rows = mixed.encode_images(pictures(6))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, exact.encode_images(pictures(6)), atol=0.02)
    assert not np.array_equal(rows, exact.encode_images(pictures(6)))
    assert exact.fingerprint == mixed.fingerprint
