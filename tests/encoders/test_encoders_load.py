"""Loading: every architecture through the real code, and what a user sees when it fails."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import KINDS, pictures, save_open_clip, save_transformers

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm.encoders import BUNDLED_FOLDER, load_encoder

CONFIG = "open_clip_config.json"
TEXTS = ["a red bird", "a blue wing.", "unheard of"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_the_normalised_features_of_the_library(kind, saved):
    encoder = load_encoder(saved(kind))
    images = pictures(5)
    folder = saved(kind).partition(":")[2].removeprefix("local-dir:")
    with torch.inference_mode():
        if kind == "open_clip":
            import open_clip

            model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
            model.eval()
            expected = model.encode_image(torch.stack([transform(image) for image in images]))
            expected_text = model.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS))
        else:
            from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

            model = AutoModel.from_pretrained(folder).eval()
            processor, tokenizer = AutoImageProcessor.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
            expected = model.get_image_features(**processor(images=images, return_tensors="pt")).pooler_output
            # As each architecture was trained: ALIGN with 64 tokens; SigLIP without a mask over the padding.
            length = {"align": 64, "altclip": 18}.get(kind, 16)
            tokens = tokenizer(TEXTS, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
            if "siglip" in kind:
                tokens = {"input_ids": tokens["input_ids"]}
            expected_text = model.get_text_features(**tokens).pooler_output
    got, got_text = encoder.encode_images(images), encoder.encode_texts(TEXTS)
    assert got.dtype == got_text.dtype == np.float32
    assert got.shape == (5, encoder.embed_dim)
    assert got_text.shape == (3, encoder.embed_dim)
    np.testing.assert_allclose(got, torch.nn.functional.normalize(expected, dim=-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(got_text, torch.nn.functional.normalize(expected_text, dim=-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, atol=1e-6)
    assert not np.allclose(got[0], got[1], atol=1e-4)
    assert not np.allclose(got_text[0], got_text[1], atol=1e-4)


def test_the_bundled_encoder_needs_nothing_else():
    encoder = load_encoder("bundled")
    assert encoder.spec == "bundled"
    assert encoder.encode_images(pictures(3)).shape == encoder.encode_texts(TEXTS).shape == (3, encoder.embed_dim)
    assert encoder.fingerprint == load_encoder(f"open_clip:local-dir:{BUNDLED_FOLDER}").fingerprint


@pytest.mark.parametrize("kind", ["clip", "siglip", "align", "altclip"])
def test_logit_scale_is_the_factor_of_the_models_own_logits(kind, saved):
    encoder = load_encoder(saved(kind))
    image_rows, text_rows = encoder.encode_images(pictures(3)), encoder.encode_texts(TEXTS)
    images, texts = encoder._image_inputs(pictures(3)), encoder._text_inputs(TEXTS)
    with torch.inference_mode():
        logits = encoder.model(**images, **texts).logits_per_image.numpy()
    bias = float(getattr(encoder.model, "logit_bias", torch.zeros(1)))
    np.testing.assert_allclose(encoder.logit_scale * image_rows @ text_rows.T + bias, logits, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_model_is_frozen_and_in_eval_mode(kind, saved):
    encoder = load_encoder(saved(kind))
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not any(module.training for module in encoder.model.modules())
    assert encoder.precision == "float32" or encoder.device.type == "cuda"


def test_preprocess_is_what_encode_images_uses(saved):
    encoder = load_encoder(saved("open_clip"), device="cpu")
    image = pictures(1)[0]
    with torch.inference_mode():
        row = encoder.model.encode_image(encoder.preprocess(image)[None])
    np.testing.assert_allclose(
        encoder.encode_images([image]), torch.nn.functional.normalize(row, dim=-1).numpy(), atol=1e-6
    )
    siglip = load_encoder(saved("siglip2"), device="cpu")
    assert siglip.preprocess(image)["pixel_values"].shape == (16, 8 * 8 * 3)


def test_the_default_clip_tokenizer_works_too(tmp_path):
    encoder = load_encoder(f"open_clip:local-dir:{save_open_clip(tmp_path / 'm', own_tokenizer=False)}")
    rows = encoder.encode_texts(["a red bird", "a blue bird"])
    assert rows.shape == (2, 24)
    assert not np.allclose(rows[0], rows[1])


def test_a_file_of_weights_for_a_builtin_architecture(tmp_path):
    import open_clip

    folder = save_open_clip(tmp_path / "m", own_tokenizer=False)
    architecture = tmp_path / "tiny-for-tests.json"
    architecture.write_text(json.dumps(json.loads((folder / CONFIG).read_text())["model_cfg"]))
    open_clip.add_model_config(architecture)
    encoder = load_encoder(f"open_clip:tiny-for-tests/{folder}/open_clip_model.safetensors", device="cpu")
    expected = load_file(folder / "open_clip_model.safetensors")["visual.proj"]
    torch.testing.assert_close(encoder.model.visual.proj.detach(), expected)
    with pytest.raises(InputError, match="it has no pretrained tags, so give the path of a file"):
        load_encoder("open_clip:tiny-for-tests/openai")


def test_pickled_weights_that_hold_code_are_refused(own_model):
    tensors = load_file(own_model / "open_clip_model.safetensors")
    (own_model / "open_clip_model.safetensors").unlink()
    torch.save(tensors, own_model / "open_clip_pytorch_model.bin")
    assert load_encoder(f"open_clip:local-dir:{own_model}").embed_dim == 24
    torch.save({**tensors, "code": _Code(str(own_model / "ran"))}, own_model / "open_clip_pytorch_model.bin")
    with pytest.raises(StoredFileError, match="cannot load encoder"):
        load_encoder(f"open_clip:local-dir:{own_model}")
    assert not (own_model / "ran").exists()


class _Code:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (Path(self.path),)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("bundeld", "did you mean 'bundled'"),
        ("openclip:ViT-B-32/openai", "did you mean 'open_clip'"),
        ("bundled:extra", "unknown encoder 'bundled:extra'"),
        ("transformers:", "REPO_OR_PATH"),
        ("open_clip:ViT-B32/openai", "did you mean 'ViT-B-32'"),
        ("open_clip:ViT-B-32", "its pretrained tags are"),
        ("open_clip:ViT-B-32/laion2b_s34b_b79", "did you mean 'laion2b_s34b_b79k'"),
        ("open_clip:local-dir:/nowhere/at/all", "there is no folder"),
        ("transformers:/nowhere/at/all", "there is no such folder"),
    ],
)
def test_wrong_specs_are_named(spec, words):
    with pytest.raises(InputError, match="(?s)" + words) as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"device": "gpu"}, {"precision": "half"}, {"device": "cpu", "precision": "float16"}]
)
def test_wrong_device_or_precision(options, saved):
    with pytest.raises(InputError, match=next(reversed(options.values()))):
        load_encoder(saved("open_clip"), **options)


@pytest.mark.parametrize("spec", ["transformers:openai/clip-vit-base-patch32", "open_clip:ViT-B-32/openai"])
def test_no_network_says_what_to_do(spec, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        StoredFileError, match="run once with a network connection, or copy the model to a folder"
    ) as caught:
        load_encoder(spec)
    assert "\n" not in str(caught.value)


def _drop(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _rewrite(folder: Path, name: str, change) -> None:
    value = json.loads((folder / name).read_text())
    change(value)
    (folder / name).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda f: _drop(f, "open_clip_config.json"), "has no open_clip_config.json"),
        (lambda f: _drop(f, "open_clip_model.safetensors"), "has no weights"),
        (lambda f: (f / "open_clip_config.json").write_text("{"), "is not valid JSON"),
        (
            lambda f: _rewrite(f, "open_clip_config.json", lambda c: c["model_cfg"].pop("text_cfg")),
            "lacks model_cfg.text_cfg",
        ),
        (lambda f: _rewrite(f, CONFIG, lambda c: c["model_cfg"]["vision_cfg"].update(width=48)), "size mismatch"),
        (lambda f: (f / "open_clip_model.safetensors").write_bytes(b"nonsense"), "cannot load encoder"),
        (lambda f: _drop(f, "tokenizer.json"), "cannot load encoder"),
    ],
)
def test_damaged_open_clip_folders(damage, words, own_model):
    damage(own_model)
    with pytest.raises(StoredFileError, match=words) as caught:
        load_encoder(f"open_clip:local-dir:{own_model}")
    assert "\n" not in str(caught.value)


def test_missing_transformers_weights_are_not_replaced_by_random_ones(tmp_path):
    folder = save_transformers("clip", tmp_path / "clip")
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("visual_projection.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StoredFileError, match=r"no weights for 1 parameters, first 'visual_projection\.weight'"):
        load_encoder(f"transformers:{folder}")
    _rewrite(folder, "config.json", lambda config: config.update(model_type="bert"))
    with pytest.raises(InputError, match="model of type 'bert': expected one of clip, siglip"):
        load_encoder(f"transformers:{folder}")


def test_a_foreign_tokenizer_is_found(tmp_path):
    folder = save_transformers("clip", tmp_path / "clip")
    _rewrite(folder, "tokenizer.json", lambda config: config["model"]["vocab"].update(crow=400))
    encoder = load_encoder(f"transformers:{folder}")
    assert encoder.encode_texts(["a bird"]).shape == (1, 24)
    with pytest.raises(StoredFileError, match="token 400 but its text model has 18 tokens"):
        encoder.encode_texts(["a crow"])
