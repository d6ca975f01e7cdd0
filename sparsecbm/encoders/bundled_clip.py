"""The bundled CLIP: its image tower alone, in plain torch, until somebody asks for more.

Importing open_clip takes longer than everything else that ``sparsecbm explain`` does. So pictures go through the few
lines below, which compute bit for bit what open_clip computes from the same weights; texts, and whoever touches
``.model``, get open_clip's own model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from sparsecbm._base.files import read_json, sha256_file
from sparsecbm.encoders.base import Encoder, Inputs
from sparsecbm.encoders.domain import Domain
from sparsecbm.encoders.opening import Opening

BUNDLED_FOLDER = Path(__file__).parent / "bundled"
"""The package's small CLIP, pretrained on painted birds, in open_clip's local-dir layout."""

WEIGHTS = "open_clip_model.safetensors"
SHA256 = {
    "open_clip_config.json": "5e3a1dcec8c7461ced21a2bda8e1f10df0d446f4fc3933102a9715ffa82b89a9",
    WEIGHTS: "3cd8d53a5112f453c97f33b8cced1f7578dd080299c68ced94d23793806e7b8c",
    "tokenizer.json": "bd53639f8d79aabcb44222d6042d746f20757f7fa6e69c31b170a03f87a5167f",
    "tokenizer_config.json": "8285d3f47042fc52b3dddb2f188b7b29d6d851b9c6bacb9a4d8d35854261254d",
}
"""The files as released."""
FINGERPRINT = "b578fe8d3645f689bf4b4a2f6cfe6b03ac9738d85fa67c9a8491cac90494d46f"
"""What `Encoder.fingerprint` comes to for these files; computed anew for any others."""

_IMAGE_SIZE, _HEADS, _EMBED_DIM = 64, 8, 128
_BLOCKS = {"layer1": 1, "layer2": 2, "layer3": 2, "layer4": 1}  # open_clip_config.json: vision_cfg.layers
_MEAN = _STD = 0.5  # preprocess_cfg

Weights = Mapping[str, torch.Tensor]


def is_as_released(folder: Path) -> bool:
    """Whether a folder holds the released files, byte for byte."""
    return all((folder / name).is_file() and sha256_file(folder / name) == known for name, known in SHA256.items())


def preprocess(image: Image.Image) -> torch.Tensor:
    """Shorter side to 64 pixels (bicubic), centre crop, to [-1, 1]: float32 tensor (3, 64, 64)."""
    width, height = image.size
    short, long = sorted((width, height))
    if short != _IMAGE_SIZE:
        other = int(_IMAGE_SIZE * long / short)
        size = (_IMAGE_SIZE, other) if width <= height else (other, _IMAGE_SIZE)
        image = image.resize(size, Image.Resampling.BICUBIC)
        width, height = size
    left, top = round((width - _IMAGE_SIZE) / 2.0), round((height - _IMAGE_SIZE) / 2.0)
    image = image.crop((left, top, left + _IMAGE_SIZE, top + _IMAGE_SIZE)).convert("RGB")
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
    return pixels.sub_(_MEAN).div_(_STD)


def image_features(
    pixels: torch.Tensor, w: Weights, stage: Callable[[str, torch.Tensor], torch.Tensor] = lambda name, x: x
) -> torch.Tensor:
    """CLIP's modified ResNet (Radford et al. 2021, arXiv 2103.00020, section 2.4) with attention pooling.

    Parameters
    ----------
    pixels : Tensor of shape (n, 3, 64, 64)
    w : mapping of str to Tensor
        The weights under open_clip's names, without ``visual.``.
    stage : callable
        Is given the name and the output of each of the four layers; what it returns goes on.

    Returns
    -------
    Tensor of shape (n, 128)
    """
    x = pixels
    for k in (1, 2, 3):
        x = F.relu(_normed(F.conv2d(x, w[f"conv{k}.weight"], stride=2 if k == 1 else 1, padding=1), w, f"bn{k}"))
    x = F.avg_pool2d(x, 2)
    for layer, blocks in _BLOCKS.items():
        for block in range(blocks):
            x = _bottleneck(x, w, f"{layer}.{block}", 2 if layer != "layer1" and block == 0 else 1)
        x = stage(layer, x)
    return _attention_pool(x, w)


def _normed(x: torch.Tensor, w: Weights, name: str) -> torch.Tensor:
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, w[f"{name}.weight"], w[f"{name}.bias"])


def _bottleneck(x: torch.Tensor, w: Weights, name: str, stride: int) -> torch.Tensor:
    out = F.relu(_normed(F.conv2d(x, w[f"{name}.conv1.weight"]), w, f"{name}.bn1"))
    out = F.relu(_normed(F.conv2d(out, w[f"{name}.conv2.weight"], padding=1), w, f"{name}.bn2"))
    # Strides are an average pool before a convolution of stride one, against aliasing.
    out = F.avg_pool2d(out, stride) if stride > 1 else out
    out = _normed(F.conv2d(out, w[f"{name}.conv3.weight"]), w, f"{name}.bn3")
    if f"{name}.downsample.0.weight" in w:
        x = F.avg_pool2d(x, stride)
        x = _normed(F.conv2d(x, w[f"{name}.downsample.0.weight"]), w, f"{name}.downsample.1")
    return F.relu(out + x)


def _attention_pool(x: torch.Tensor, w: Weights) -> torch.Tensor:
    x = x.flatten(2).permute(2, 0, 1)  # (positions, n, channels)
    x = torch.cat([x.mean(dim=0, keepdim=True), x])
    x = x + w["attnpool.positional_embedding"][:, None, :].to(x.dtype)
    q, k, v, c = (f"attnpool.{name}_proj" for name in "qkvc")
    pooled, _ = F.multi_head_attention_forward(
        x, x, x, x.shape[-1], _HEADS,
        None, torch.cat([w[f"{q}.bias"], w[f"{k}.bias"], w[f"{v}.bias"]]),
        None, None, False, 0.0, w[f"{c}.weight"], w[f"{c}.bias"],
        training=False, need_weights=False, use_separate_proj_weight=True,
        q_proj_weight=w[f"{q}.weight"], k_proj_weight=w[f"{k}.weight"], v_proj_weight=w[f"{v}.weight"],
    )  # fmt: skip
    return pooled[0]


class BundledEncoder(Encoder):
    """The released bundled CLIP.

    Parameters
    ----------
    spec : str
    folder : Path
        Its files, for which `is_as_released` holds.
    device, precision
        See `Encoder`.
    load_whole : callable
        Makes the same encoder by open_clip.
    """

    def __init__(
        self, spec: str, folder: Path, device: torch.device, precision: str, load_whole: Callable[[], Encoder]
    ) -> None:
        # Not Encoder.__init__: it takes the whole model, which here is made when first asked for.
        from safetensors import safe_open

        self.spec, self.device, self.precision, self.embed_dim = spec, device, precision, _EMBED_DIM
        self._weights = self._tokenizer_digest = None
        self._load_whole, self._folder = load_whole, folder
        # Where hooks find the layers' outputs, as in open_clip's model.
        self._stages = {name: torch.nn.Identity() for name in _BLOCKS}
        # Through NumPy: safetensors 0.8 leaks some bytes with every PyTorch tensor that it opens so.
        with safe_open(folder / WEIGHTS, framework="np") as stored:
            names = [name for name in stored.keys() if name.startswith("visual.")]  # noqa: SIM118
            tower = {name.removeprefix("visual."): torch.from_numpy(stored.get_tensor(name)) for name in names}
            self._tower = {name: value.to(device).float() for name, value in tower.items()}
            self._log_scale = float(torch.from_numpy(stored.get_tensor("logit_scale")).float().exp())

    @cached_property
    def _whole(self) -> Encoder:
        return self._load_whole()

    @property
    def _is_whole(self) -> bool:
        return "_whole" in self.__dict__

    @cached_property
    def domain(self) -> Domain:  # type: ignore[override]
        """Painted birds, and the words of its training captions."""
        tokens = read_json(self._folder / "tokenizer.json")["model"]["vocab"]
        # The tokenizer was trained on the captions alone and has every word of them as one token, with its blank.
        words = frozenset(token[1:] for token in tokens if token.startswith("\u0120"))
        return Domain("painted birds", ("birds",), words)

    @property
    def model(self) -> torch.nn.Module:  # type: ignore[override]
        """open_clip's model; from the first look on, it encodes the pictures too, so that editing it has an effect."""
        return self._whole.model

    @property
    def preprocess(self) -> Callable[[Image.Image], torch.Tensor]:
        """One RGB picture to a float32 tensor (3, 64, 64)."""
        return self._whole.preprocess if self._is_whole else preprocess

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine in the model's training objective."""
        return self._whole.logit_scale if self._is_whole else self._log_scale

    @property
    def fingerprint(self) -> str:
        """See `Encoder.fingerprint`; known for the released files."""
        return self._whole.fingerprint if self._is_whole else FINGERPRINT

    def _image_inputs(self, images: Iterable[Image.Image]) -> Inputs:
        return {"image": torch.stack([self.preprocess(image) for image in images])}

    def _image_features(self, inputs: Inputs) -> torch.Tensor:
        if self._is_whole:
            return self._whole._image_features(inputs)
        return image_features(inputs["image"], self._tower, lambda name, x: self._stages[name](x))

    def _opening(self, layers: int | None) -> Opening | None:
        return self._whole._opening(layers) if self._is_whole else Opening(list(self._stages.values()), layers=layers)

    def _text_inputs(self, texts: list[str]) -> Inputs:
        return self._whole._text_inputs(texts)

    def _text_features(self, inputs: Inputs) -> torch.Tensor:
        return self._whole._text_features(inputs)

    def _configuration(self) -> Mapping[str, Any]:
        return self._whole._configuration()

    def _tokenizer(self) -> Mapping[str, Any]:
        return self._whole._tokenizer()


def load(spec: str, rest: str, device: torch.device, precision: str) -> Encoder:
    """Load what stands behind ``bundled``; files that are not the released ones go through open_clip altogether."""

    def whole() -> Encoder:
        from sparsecbm.encoders.open_clip import load_local_dir

        return load_local_dir(spec, BUNDLED_FOLDER, device, precision)

    return BundledEncoder(spec, BUNDLED_FOLDER, device, precision, whole) if is_as_released(BUNDLED_FOLDER) else whole()
