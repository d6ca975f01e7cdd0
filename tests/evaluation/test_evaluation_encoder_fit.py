"""Whether an encoder relates words to pictures: seen where it does, missed where it does not, never claimed of few."""

from __future__ import annotations

import numpy as np
import pytest

from sparsecbm import embed_images, load_encoder, load_images
from sparsecbm.data.birds import concept_phrases
from sparsecbm.evaluation import encoder_fit


@pytest.fixture(scope="module")
def birds():
    encoder = load_encoder("bundled")
    return encoder, embed_images(encoder, load_images("birds", "train", max_images=400), cache="memory").vectors


def test_words_it_was_trained_on_single_out_pictures(birds):
    encoder, vectors = birds
    found = encoder_fit(vectors, encoder.encode_texts(list(concept_phrases())))
    assert found.tails > 5
    assert found.related
    assert found.note is None


def test_foreign_words_do_not(birds):
    encoder, vectors = birds
    words = [f"{a} {b}" for a in ("rusty", "oval", "furry", "wooden", "striped", "shiny", "broken") for b in
             ("wheel", "window", "hoof", "antler", "sail", "engine")]  # fmt: skip
    texts = encoder.encode_texts(words)
    found = encoder_fit(vectors, texts)
    assert found.related is False
    assert "nothing shows" in found.note
    few = encoder_fit(vectors, texts[:10])
    assert few.related is None
    assert few.note is None
    labels = np.arange(len(vectors)) % 3  # classes that no text tells apart
    named = encoder_fit(vectors, texts[:10], labels, texts[20:23])
    assert named.related is False
    assert "names of the classes" in named.note


def test_classes_found_by_name_are_a_sign(rng):
    centres = rng.normal(size=(4, 32))
    labels = np.repeat(np.arange(4), 30)
    found = encoder_fit(centres[labels] + rng.normal(size=(120, 32)), rng.normal(size=(10, 32)), labels, centres)
    assert found.names > 4
    assert found.related


def test_texts_that_are_one_to_the_encoder_are_counted(rng):
    texts = np.repeat(rng.normal(size=(3, 16)), 4, axis=0)
    found = encoder_fit(rng.normal(size=(50, 16)), texts)
    assert found.alike == 12
    assert "12 of 12 concepts are one and the same" in found.note


def test_no_false_alarm_on_real_embeddings(data_dir):
    with np.load(data_dir / "clip_vitb32" / "concepts_attributes.npz") as held:
        attributes = held["embeddings"]
    for name in ("caltech101", "oxford_pets", "oxford_flowers", "fgvc", "dtd"):
        with np.load(data_dir / "clip_vitb32" / f"{name}.npz") as held:
            pictures = held["train16_images" if "train16_images" in held else "val_images"]
        assert encoder_fit(pictures, attributes).related, name
