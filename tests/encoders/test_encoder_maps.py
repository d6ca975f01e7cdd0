"""Maps add up, and a tower with its decisions held is affine in what it was opened at: for every architecture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm.data import birds
from sparsecbm.encoders import Encoder, load_encoder
from sparsecbm.encoders.bundled_clip import BundledEncoder
from sparsecbm.encoders.maps import map_images
from sparsecbm.encoders.maps.attribution import on_device, seen
from sparsecbm.encoders.maps.exact import modules_of, shares_of
from tests.helpers import tiny_models

SQUARE = {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8}
TIMM = {"timm_pool": "", "timm_proj": "linear", "image_size": 160}
TOWERS = {
    "vit class token": SQUARE,
    "vit mean": {**SQUARE, "pool_type": "avg"},
    "modified resnet": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 64, "head_width": 32},
    "timm resnet": {**TIMM, "timm_model_name": "test_resnet", "timm_pool": "avg"},
    "timm convnext": {**TIMM, "timm_model_name": "test_convnext", "timm_pool": "avg"},
    "timm attention pooling": {**TIMM, "timm_model_name": "test_vit3"},
    "timm class token": {**TIMM, "timm_model_name": "test_vit"},
}
KINDS = [*TOWERS, *tiny_models.KINDS[1:]]
# Biases, and what else does not come from the picture.
CONSTANTS = ("bias", "class_embedding", "cls_token", "reg_token", "pos_embed", "positional_embedding")
CONSTANTS += ("position_embedding.weight",)
# Where MLPs write to the residual stream.
MLP_ENDS = ("mlp.c_proj.weight", "mlp.fc2.weight")


def encoder_of(kind: str, folder):
    if kind in TOWERS:
        return load_encoder(
            f"open_clip:local-dir:{tiny_models.save_open_clip(folder, vision=TOWERS[kind])}", device="cpu"
        )
    return load_encoder(f"transformers:{tiny_models.save_transformers(kind, folder)}", device="cpu")


@pytest.fixture(scope="module", params=KINDS)
def encoder(request, tmp_path_factory):
    return encoder_of(request.param, tmp_path_factory.mktemp("model"))


def directions(encoder, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, encoder.embed_dim)).astype(np.float32)


def test_maps_and_rest_sum_to_the_score(encoder):
    pictures, rows = tiny_models.pictures(5), directions(encoder)
    made = map_images(encoder, pictures, rows, batch_size=2)
    scores = encoder.encode_images(pictures) @ rows.T
    assert made.maps.shape[:2] == (5, 3)
    assert min(made.maps.shape[2:]) >= 4
    np.testing.assert_allclose(made.maps.sum((2, 3)) + made.rest, scores, atol=1e-4)
    assert np.abs(made.maps).max() > 1e-4
    # Linear in the direction; and more directions than dimensions go another way to the same maps.
    many = np.concatenate([rows, rows[:1] - 2 * rows[1:2], np.eye(encoder.embed_dim, dtype=np.float32)])
    again = map_images(encoder, pictures, many).maps
    np.testing.assert_allclose(again[:, :3], made.maps, atol=1e-4)
    np.testing.assert_allclose(again[:, 3], made.maps[:, 0] - 2 * made.maps[:, 1], atol=1e-4)


def test_of_gates_and_averages_nothing_is_lost(tmp_path):
    """A network of ReLUs and linear maps: the rest is what it says of the blank, and nothing else."""
    encoder = encoder_of("timm resnet", tmp_path)
    pictures, rows = tiny_models.pictures(3, size=160), directions(encoder)
    blanks = [Image.new("RGB", picture.size, mean_colour(picture)) for picture in pictures]
    with torch.no_grad():
        features, empty = (encoder._image_features(on_device(encoder, some)) for some in (pictures, blanks))
    expected = (empty / features.norm(dim=1, keepdim=True)) @ torch.from_numpy(rows).T
    for layers in (0, 2, 3):
        made = map_images(encoder, pictures, rows, layers=layers)
        np.testing.assert_allclose(made.rest, expected.numpy(), atol=1e-4)


def test_a_blank_picture_has_no_map(encoder):
    made = map_images(encoder, [Image.new("RGB", (40, 40), (200, 30, 90))], directions(encoder))
    np.testing.assert_allclose(made.maps, 0, atol=1e-5)


def test_a_held_tower_is_affine(encoder):
    """Without biases it is linear, and nothing comes of zeros: values times gradients sum to the score (Euler)."""
    kept = {name: value.clone() for name, value in encoder.model.state_dict().items()}
    blocks = encoder._opening(None).blocks
    for name, value in encoder.model.state_dict().items():  # views of what the model holds
        if name.endswith((*CONSTANTS, "running_mean")) or (blocks and name.endswith(MLP_ENDS)):
            value.zero_()
    inputs, opening = on_device(encoder, tiny_models.pictures(3)), encoder._opening(len(blocks) or None)
    nothing = {name: x * 0 if x.is_floating_point() else x for name, x in inputs.items()}
    with torch.no_grad():
        features = encoder._image_features(inputs)
    modules = modules_of(encoder, opening, inputs)
    axis = torch.eye(encoder.embed_dim)[:1]
    score, shares = shares_of(encoder, opening, modules, inputs, nothing, axis)
    total = next(shares).flatten(1).sum(1)
    encoder.model.load_state_dict(kept)
    torch.testing.assert_close(score[:, 0], F.normalize(features, dim=1)[:, 0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(total, score[:, 0], rtol=1e-3, atol=1e-4 * float(score.abs().max()))


def test_class_tokens_take_what_the_attention_weights_say(tmp_path):
    """Direct effects by the formula of Gandelsman et al. (2024): attention times value, through the last norm."""
    encoder = encoder_of("vit class token", tmp_path)
    pictures, rows = tiny_models.pictures(2), directions(encoder, 2)
    visual, inputs = encoder.model.visual, on_device(encoder, pictures)
    normed: list[torch.Tensor] = []
    hook = visual.transformer.resblocks[1].ln_1.register_forward_hook(lambda m, a, out: normed.append(out))
    last: list[torch.Tensor] = []
    other = visual.ln_post.register_forward_pre_hook(lambda m, args: last.append(args[0][:, 0]))
    with torch.no_grad():
        features = encoder._image_features(inputs)
        encoder._image_features(on_device(encoder, [Image.new("RGB", p.size, mean_colour(p)) for p in pictures]))
    hook.remove(), other.remove()
    attention, expected = visual.transformer.resblocks[1].attn, []
    for n in range(2):
        q, k, _ = F.linear(normed[0][n], attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        total = torch.zeros(16, 32)
        for head in range(2):
            some = slice(16 * head, 16 * head + 16)
            weights = (q[0, some] @ k[:, some].T / 4).softmax(-1)[1:]
            value = (normed[0][n] - normed[1][n])[1:] @ attention.in_proj_weight[64:][some].T
            total += weights[:, None] * (value @ attention.out_proj.weight[:, some].T)
        centred = (total - total.mean(-1, keepdim=True)) / (last[0][n].var(correction=0) + 1e-5).sqrt()
        written = (centred * visual.ln_post.weight) @ visual.proj / features[n].norm()
        expected.append((written @ torch.from_numpy(rows).T).T.reshape(2, 4, 4))
    made = map_images(encoder, pictures, rows, layers=1)
    np.testing.assert_allclose(made.maps, torch.stack(expected).detach().numpy(), atol=1e-5)
    both = map_images(encoder, pictures, rows, layers=2)
    assert np.abs(both.maps - made.maps).max() > 1e-4
    np.testing.assert_allclose(both.scores, made.scores, atol=1e-5)


def mean_colour(image: Image.Image) -> tuple[int, ...]:
    return tuple(np.asarray(image).reshape(-1, 3).mean(0).round().astype(int).tolist())


@pytest.fixture(scope="module")
def bundled():
    return load_encoder("bundled", device="cpu")


def test_the_bundled_encoder_sees_the_crown_at_the_crown(bundled):
    images = birds.BirdImages("validation", n_images=40)
    concepts = bundled.encode_texts(list(birds.concept_phrases()))
    pictures = [images[i] for i in range(40)]
    made = map_images(bundled, pictures, concepts)
    assert made.maps.shape == (40, 31, 8, 8)
    np.testing.assert_allclose(made.scores, bundled.encode_images(pictures) @ concepts.T, atol=1e-5)
    found = []
    for i in range(40):
        for name, mask in images.masks(i).items():
            if name.endswith("crown"):
                cells = mask.reshape(8, 8, 8, 8).sum((1, 3))
                cell = made.maps[i, birds.ATTRIBUTE_NAMES.index(name)].argmax()
                found.append(np.abs(np.subtract(np.divmod(cell, 8), np.divmod(cells.argmax(), 8))).max() <= 1)
    assert np.mean(found) > 0.95
    assert map_images(bundled, pictures[:1], concepts, layers=3).maps.shape[2:] == (16, 16)


def test_the_bundled_encoder_opens_alike_in_both_of_its_forms():
    images, rows = birds.BirdImages("test", n_images=3), np.eye(128, dtype=np.float32)[:4]
    pictures, encoder = [images[i] for i in range(3)], load_encoder("bundled", device="cpu")
    before = map_images(encoder, pictures, rows).maps
    assert encoder.model is not None
    np.testing.assert_allclose(map_images(encoder, pictures, rows).maps, before, atol=1e-6)


def test_an_opened_tower_encodes_as_before_for_other_threads(bundled):
    pictures = tiny_models.pictures(3, size=64)
    expected = bundled.encode_images(pictures)
    opening = bundled._opening(None)
    with opening.opened(opening.stages) as leaves:
        np.testing.assert_array_equal(bundled.encode_images(pictures), expected)  # on threads of its own
        assert not leaves
        bundled._image_features(on_device(bundled, pictures))
        assert len(leaves) == 4


def test_any_encoder_has_gradients_and_occlusion(bundled):
    pytest.importorskip("captum")
    images = birds.BirdImages("test", n_images=2)
    pictures, rows = [images[i] for i in range(2)], bundled.encode_texts(["a bird with a red crown"])
    scores = bundled.encode_images(pictures) @ rows.T
    made = map_images(bundled, pictures, rows, method="gradients", steps=24)
    blank = bundled.encode_images([Image.new("RGB", p.size, mean_colour(p)) for p in pictures]) @ rows.T
    np.testing.assert_allclose(made.scores, scores, atol=1e-5)
    np.testing.assert_allclose(made.maps.sum((2, 3)) - made.error, scores - blank, atol=1e-5)
    assert np.abs(made.error).max() < 0.1
    lost = map_images(bundled, pictures, rows, method="occlusion")
    pixels = np.array(pictures[0])
    pixels[16:24, 40:48] = mean_colour(pictures[0])
    without = bundled.encode_images([Image.fromarray(pixels)]) @ rows.T
    assert lost.maps[0, 0, 2, 5] == pytest.approx((scores[:1] - without).item(), abs=1e-5)
    assert lost.error is None


def test_what_lies_under_a_map_is_what_the_encoder_sees(bundled):
    wide = Image.new("RGB", (120, 60), (10, 20, 30))
    wide.paste((240, 100, 5), (30, 0, 90, 60))
    shown = seen(bundled, wide)
    assert shown.size == (64, 64)
    np.testing.assert_array_equal(np.asarray(shown)[32, [8, 32, 56]], [(240, 100, 5)] * 3)


def test_pictures_keep_their_proportions_where_the_encoder_keeps_them(tmp_path):
    encoder = load_encoder(f"transformers:{tiny_models.save_transformers('siglip2', tmp_path)}", device="cpu")
    wide = [Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 64, 3), dtype=np.uint8))]
    rows = directions(encoder)
    made = map_images(encoder, wide, rows)
    assert made.maps.shape[2:] == (2, 8)
    np.testing.assert_allclose(made.scores, encoder.encode_images(wide) @ rows.T, atol=1e-5)
    assert seen(encoder, wide[0]).size == (64, 16)
    for method in ("gradients", "occlusion"):
        with pytest.raises(InputError, match="plain pixels"):
            map_images(encoder, wide, rows, method=method)
    with pytest.raises(InputError, match="one at a time"):
        map_images(encoder, [wide[0], wide[0].rotate(90, expand=True)], rows)


def test_bad_input_gets_one_line(bundled):
    picture, rows = [Image.new("RGB", (64, 64))], np.zeros((1, 128), dtype=np.float32)
    with pytest.raises(InputError, match="expected \\(m, 128\\)"):
        map_images(bundled, picture, np.zeros((1, 5)))
    with pytest.raises(InputError, match="layers=4: expected 0 to 3"):
        map_images(bundled, picture, rows, layers=4)
    with pytest.raises(InputError, match="at least one"):
        map_images(bundled, [], rows)
    with pytest.raises(InputError, match="method of maps"):
        map_images(bundled, picture, rows, method="exakt")
    with pytest.raises(InputError, match="layers"):
        map_images(bundled, picture, rows, layer=2)
    with pytest.raises(InputError, match="not known where to open"):
        map_images(Closed("closed", torch.nn.Identity(), 128, torch.device("cpu")), picture, rows)


class Closed(BundledEncoder):
    model = None
    __init__ = Encoder.__init__
    _opening = Encoder._opening
