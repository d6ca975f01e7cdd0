"""The bundled encoder's own image tower: open_clip's results bit for bit, without importing open_clip."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from sparsecbm import load_encoder, load_images
from sparsecbm.encoders import BUNDLED_FOLDER
from sparsecbm.encoders.bundled_clip import FINGERPRINT, BundledEncoder, is_as_released
from sparsecbm.encoders.open_clip import load_local_dir


@pytest.fixture(scope="module")
def whole():
    return load_local_dir("bundled", BUNDLED_FOLDER, torch.device("cpu"), "float32")


def test_pictures_of_every_shape_are_encoded_as_open_clip_does(whole, rng) -> None:
    fast = load_encoder("bundled")
    assert isinstance(fast, BundledEncoder)
    sizes = ((64, 64), (100, 64), (64, 100), (301, 77), (77, 301), (500, 333), (65, 64), (32, 33), (3, 1))
    pictures = [Image.fromarray(rng.integers(0, 255, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
    for picture in pictures:
        assert torch.equal(fast.preprocess(picture), whole.preprocess(picture)), picture.size
    for images in (pictures, load_images("birds", "test", max_images=20)):
        np.testing.assert_array_equal(fast.encode_images(images), whole.encode_images(images))
    assert not fast._is_whole
    assert fast.logit_scale == pytest.approx(whole.logit_scale)


def test_fingerprint_is_the_computed_one(whole) -> None:
    assert is_as_released(BUNDLED_FOLDER)
    assert load_encoder("bundled").fingerprint == FINGERPRINT == whole.fingerprint


def test_whoever_edits_the_model_gets_what_was_edited() -> None:
    encoder = load_encoder("bundled")
    birds = load_images("birds", "test", max_images=3)
    before = encoder.encode_images(birds)
    with torch.no_grad():
        encoder.model.visual.attnpool.c_proj.bias.add_(1.0)
    assert encoder.fingerprint != FINGERPRINT
    assert not np.allclose(encoder.encode_images(birds), before)


def test_pictures_need_no_open_clip() -> None:
    code = (
        "import sys; from sparsecbm import load_encoder, load_images; encoder = load_encoder('bundled');"
        "encoder.encode_images(load_images('birds', 'test', max_images=1)); encoder.fingerprint;"
        "print([m for m in ('open_clip', 'torchvision', 'transformers', 'timm') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
