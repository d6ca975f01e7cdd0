"""Small randomly initialised models of each architecture, saved to a folder as the libraries save them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

KINDS = ("open_clip", "clip", "siglip", "siglip2", "align", "altclip")
SIZE = 32
WORDS = ["a", "photo", "of", "the", "red", "blue", "bird", "wing", "crown", "cat", "dog", "long", "bill", "."]


def word_tokenizer(kind: str = "clip"):
    """Return a word-level fast tokenizer with the special tokens of one architecture."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    first, last, pad, unk = {
        "clip": ("<start>", "<end>", "<pad>", "<unk>"),
        "bert": ("[CLS]", "[SEP]", "[PAD]", "[UNK]"),
        "roberta": ("<s>", "</s>", "<pad>", "<unk>"),
        "siglip": (None, "</s>", "<pad>", "<unk>"),
    }[kind]
    specials = [token for token in (pad, first, last, unk) if token]
    vocabulary = {token: index for index, token in enumerate([*specials, *WORDS])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=unk))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    pattern = f"{first} $A {last}" if first else f"$A {last}"
    backend.post_processor = processors.TemplateProcessing(
        single=pattern, special_tokens=[(token, vocabulary[token]) for token in (first, last) if token]
    )
    special = {"bos_token": first, "eos_token": last, "pad_token": pad, "unk_token": unk}
    if kind == "bert":
        special |= {"cls_token": first, "sep_token": last}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        model_max_length={"clip": 16, "siglip": 16}.get(kind, 512),
        padding_side="right",
        **{name: token for name, token in special.items() if token},
    )


def save_open_clip(
    folder: Path, seed: int = 0, *, own_tokenizer: bool = True, mean: float = 0.5, vision: dict | None = None
) -> Path:
    """Save a tiny open_clip model in the local-dir layout, with a ViT or the image tower described."""
    import open_clip
    from safetensors.torch import save_file

    tokenizer = word_tokenizer("clip")
    text = {"context_length": 16, "vocab_size": len(tokenizer), "width": 16, "heads": 2, "layers": 1}
    if own_tokenizer:
        text |= {"hf_tokenizer_name": "local", "tokenizer_kwargs": {"clean": "lower"}}
    else:
        text |= {"vocab_size": 49408, "width": 8, "heads": 1}
    config = {
        "model_cfg": {
            "embed_dim": 24,
            "vision_cfg": vision or {"image_size": SIZE, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
            "text_cfg": text,
        },
        "preprocess_cfg": {"mean": [mean] * 3, "std": [0.25] * 3, "interpolation": "bilinear", "resize_mode": "squash"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    if own_tokenizer:
        tokenizer.save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(**open_clip.get_model_config(f"local-dir:{folder}"))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_transformers(kind: str, folder: Path, seed: int = 0) -> Path:
    """Save a tiny model of one transformers architecture with its image processor and tokenizer."""
    import transformers as hf

    small = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": SIZE, "patch_size": 8}
    square = {"height": SIZE, "width": SIZE}
    if kind == "siglip2":
        specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
        tokenizer = hf.Siglip2Tokenizer(
            vocab={token: index for index, token in enumerate([*specials, "▁", *"abcdefghijklmnopqrstuvwxyz."])},
            merges=[],
            padding_side="right",
            model_max_length=16,
        )
    else:
        tokenizer = word_tokenizer(
            {"align": "bert", "altclip": "roberta"}.get(kind, "siglip" if kind == "siglip" else "clip")
        )
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id}
    text = {**small, **ids, "vocab_size": len(tokenizer), "max_position_embeddings": 16}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "clip":
            text["bos_token_id"] = tokenizer.bos_token_id
            model = hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
            processor = hf.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square)
        elif kind == "siglip":
            model = hf.SiglipModel(hf.SiglipConfig(text_config=text, vision_config=vision))
            processor = hf.SiglipImageProcessor(size=square)
        elif kind == "siglip2":
            patches = {**small, "num_patches": 16, "patch_size": 8}
            model = hf.Siglip2Model(hf.Siglip2Config(text_config=text, vision_config=patches))
            processor = hf.Siglip2ImageProcessor(patch_size=8, max_num_patches=16)
        elif kind == "align":
            efficient = {
                "image_size": SIZE,
                "width_coefficient": 1.0,
                "depth_coefficient": 1.0,
                "hidden_dim": 24,
                "kernel_sizes": [3, 3],
                "in_channels": [32, 16],
                "out_channels": [16, 24],
                "strides": [1, 2],
                "num_block_repeats": [1, 1],
                "expand_ratios": [1, 2],
                "depthwise_padding": [],
            }
            text["max_position_embeddings"] = 64
            model = hf.AlignModel(hf.AlignConfig(text_config=text, vision_config=efficient, projection_dim=24))
            processor = hf.EfficientNetImageProcessor(size=square)
        else:
            text |= {"max_position_embeddings": 20, "project_dim": 24}
            vision["projection_dim"] = 24
            model = hf.AltCLIPModel(hf.AltCLIPConfig(text_config=text, vision_config=vision, projection_dim=24))
            processor = hf.CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square)
        if "siglip" in kind:
            model.logit_scale.data.fill_(2.0)  # its initial value is random
    for part in (model, processor, tokenizer):
        part.save_pretrained(folder)
    return folder


def pictures(count: int, seed: int = 0, size: int = 40) -> list[Image.Image]:
    """Return coloured noise pictures."""
    rng = np.random.default_rng(seed)
    return [Image.fromarray(rng.integers(0, 256, (size, size + 4, 3), dtype=np.uint8)) for _ in range(count)]
