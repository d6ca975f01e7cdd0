"""The fingerprint changes with everything that changes an embedding, and with nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_models import KINDS, pictures

from sparsecbm.encoders import load_encoder


def _spec(spec: str, folder: Path) -> str:
    return f"open_clip:local-dir:{folder}" if spec.startswith("open_clip") else f"transformers:{folder}"


def _edit(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def _edit_weights(folder: Path) -> None:
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = next(name for name in sorted(tensors) if "text" in name or "token" in name)
    tensors[name].view(-1)[0] += 1e-6 + tensors[name].view(-1)[0].abs() * 1e-6
    save_file(tensors, path, metadata={"format": "pt"})


def _edit_preprocessing(folder: Path) -> None:
    if (folder / "open_clip_config.json").exists():
        _edit(folder / "open_clip_config.json", lambda config: config["preprocess_cfg"].update(mean=[0.5, 0.5, 0.51]))
    else:
        name = "preprocessor_config.json" if (folder / "preprocessor_config.json").exists() else "processor_config.json"
        _edit(folder / name, lambda config: config.update(image_mean=[0.5, 0.5, 0.51]))


def _edit_tokenizer(folder: Path) -> None:
    def swap(config: dict) -> None:
        vocabulary = config["model"]["vocab"]
        first, second = list(vocabulary)[-2:]
        vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]

    _edit(folder / "tokenizer.json", swap)


def _edit_context_length(folder: Path) -> None:
    if (folder / "open_clip_config.json").exists():
        _edit(
            folder / "open_clip_config.json", lambda config: config["model_cfg"]["text_cfg"].update(context_length=12)
        )
        path = next(folder.glob("*.safetensors"))
        tensors = load_file(path)
        save_file(tensors, path)
    else:
        _edit(folder / "tokenizer_config.json", lambda config: config.update(model_max_length=12))


@pytest.mark.parametrize("kind", KINDS)
def test_equal_content_equal_fingerprint_and_each_edit_changes_it(kind, saved, tmp_path):
    spec = saved(kind)
    source = Path(spec.partition(":")[2].removeprefix("local-dir:"))
    seen = {load_encoder(spec).fingerprint}
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    assert load_encoder(_spec(spec, copy)).fingerprint in seen
    edits = [_edit_weights, _edit_preprocessing, _edit_tokenizer, _edit_context_length]
    for edit in edits:
        folder = tmp_path / edit.__name__
        shutil.copytree(source, folder)
        edit(folder)
        seen.add(load_encoder(_spec(spec, folder)).fingerprint)
    assert len(seen) == 1 + len(edits)
    assert all(len(fingerprint) == 64 for fingerprint in seen)


def test_use_does_not_change_it(saved):
    for kind in ("open_clip", "clip", "siglip2"):
        encoder = load_encoder(saved(kind))
        before = encoder.fingerprint
        encoder.encode_images(pictures(3))
        encoder.encode_texts(["a bird", "a long red bird with a blue wing and a red crown of the cat of the dog"])
        assert load_encoder(saved(kind)).fingerprint == encoder.fingerprint == before


def test_edits_in_place_are_seen(saved):
    encoder = load_encoder(saved("open_clip"))
    seen = [encoder.fingerprint]
    with torch.no_grad():
        encoder.model.logit_scale.add_(0.5)
    seen.append(encoder.fingerprint)
    encoder.model.visual.proj.data[0, 0] += 1  # leaves torch's version counter alone
    seen.append(encoder.fingerprint)
    encoder.model.text_projection = torch.nn.Parameter(encoder.model.text_projection.detach().flip(0))
    seen.append(encoder.fingerprint)
    encoder.model.visual.preprocess_cfg["mean"] = [0.1, 0.1, 0.1]
    seen.append(encoder.fingerprint)
    assert len(set(seen)) == len(seen)


def test_architecture_without_weights_of_its_own_counts(saved, tmp_path):
    source = Path(saved("open_clip").removeprefix("open_clip:local-dir:"))
    folder = tmp_path / "heads"
    shutil.copytree(source, folder)
    # The number of heads changes no tensor's shape.
    _edit(folder / "open_clip_config.json", lambda config: config["model_cfg"]["vision_cfg"].update(head_width=8))
    one, other = load_encoder(saved("open_clip")), load_encoder(f"open_clip:local-dir:{folder}")
    assert one.fingerprint != other.fingerprint
    assert not np.allclose(one.encode_images(pictures(2)), other.encode_images(pictures(2)), atol=1e-6)
