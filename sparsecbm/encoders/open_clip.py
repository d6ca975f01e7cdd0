"""Encoders of the open_clip library: pretrained tags, hub repositories and local folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from sparsecbm._base.errors import InputError, StoredFileError, suggest
from sparsecbm._base.files import read_json
from sparsecbm.encoders.base import Encoder, Inputs
from sparsecbm.encoders.fingerprint import as_plain_number, describe_hf_tokenizer, plain_config
from sparsecbm.encoders.loading import (
    check_declared_size,
    check_folder,
    check_open_clip_config,
    check_picture_size,
    check_weights,
    explained,
)
from sparsecbm.encoders.opening import Opening, open_clip_tower

_LOCAL, _HUB = "local-dir:", "hf-hub:"
_TOKENIZER_FILES = ("*token*.json", "vocab*", "merges.txt", "*.model", "chat_template*")
_LAYOUT = "open_clip's local-dir layout asks for"


class OpenClipEncoder(Encoder):
    """An open_clip model with its own evaluation transform and tokenizer.

    Parameters
    ----------
    spec : str
        The spec it was loaded by.
    model : torch.nn.Module
        An ``open_clip.CLIP`` or relative, with weights.
    model_cfg : mapping
        Its architecture as open_clip's JSON has it.
    tokenizer : callable
        An open_clip tokenizer.
    device, precision
        See `Encoder`.
    """

    model: Any

    def __init__(
        self,
        spec: str,
        model: torch.nn.Module,
        model_cfg: Mapping[str, Any],
        tokenizer: Any,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        from open_clip.transform import PreprocessCfg, image_transform_v2

        super().__init__(spec, model, model_cfg["embed_dim"], device, precision)
        self.tokenizer = tokenizer
        self._model_cfg = model_cfg
        self._preprocess = image_transform_v2(PreprocessCfg(**self.model.visual.preprocess_cfg), is_train=False)

    @property
    def preprocess(self) -> Callable[[Image.Image], torch.Tensor]:
        """One RGB picture to a float32 tensor (3, size, size)."""
        return self._preprocess

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine in the model's training objective."""
        return float(self.model.logit_scale.detach().float().exp())

    def _image_inputs(self, images: Iterable[Image.Image]) -> Inputs:
        return {"image": torch.stack([self._preprocess(image) for image in images])}

    def _image_features(self, inputs: Inputs) -> torch.Tensor:
        return self.model.encode_image(inputs["image"])

    def _opening(self, layers: int | None) -> Opening | None:
        return open_clip_tower(self.model.visual, layers)

    def _text_inputs(self, texts: list[str]) -> Inputs:
        return {"text": self.tokenizer(texts)}

    def _text_features(self, inputs: Inputs) -> torch.Tensor:
        return self.model.encode_text(inputs["text"])

    def _configuration(self) -> Mapping[str, Any]:
        return {
            "architecture": plain_config(as_plain_number(self._model_cfg)),
            "preprocess": as_plain_number(self.model.visual.preprocess_cfg),
            "context_length": self.tokenizer.context_length,
        }

    def _tokenizer(self) -> Mapping[str, Any]:
        tokenizer = self.tokenizer
        described = {
            "clean": getattr(getattr(tokenizer, "clean_fn", None), "__name__", None),
            "reduce": getattr(getattr(tokenizer, "reduction_fn", None), "__name__", None),
            "mode": getattr(tokenizer, "tokenizer_mode", None),
            "strip_sep_token": getattr(tokenizer, "strip_sep_token", None),
        }
        if hasattr(tokenizer, "tokenizer"):
            return {**described, "tokenizer": describe_hf_tokenizer(tokenizer.tokenizer)}
        merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.__getitem__)
        return {**described, "vocabulary": tokenizer.encoder, "merges": [list(pair) for pair in merges]}


def load_open_clip(spec: str, rest: str, device: torch.device, precision: str) -> OpenClipEncoder:
    """Load what stands behind ``open_clip:``; see `sparsecbm.encoders.load_encoder`."""
    if rest.startswith(_LOCAL):
        return load_local_dir(spec, Path(rest[len(_LOCAL) :]).expanduser(), device, precision)
    if rest.startswith(_HUB):
        name, pretrained = rest, None
        _check_repository(spec, rest)
    else:
        name, _, pretrained = rest.partition("/")
        _check_name(spec, name, pretrained)
        if Path(pretrained).is_file():
            check_weights(spec, Path(pretrained))
    return _create(spec, name, pretrained, device, precision)


def load_local_dir(spec: str, folder: Path, device: torch.device, precision: str) -> OpenClipEncoder:
    """Load a folder in open_clip's local-dir layout.

    Raises
    ------
    StoredFileError
        If the folder, its ``open_clip_config.json`` or its weights are missing or do not belong together.
    """
    config = folder / "open_clip_config.json"
    if not folder.is_dir():
        raise StoredFileError(f"encoder {spec!r}: there is no folder {str(folder)!r}")
    if not config.is_file():
        raise StoredFileError(f"encoder {spec!r}: {str(folder)!r} has no open_clip_config.json, which {_LAYOUT}")
    described = read_json(config)
    model_cfg: Any = described.get("model_cfg") if isinstance(described, dict) else None
    missing = [
        key
        for key in ("embed_dim", "vision_cfg", "text_cfg")
        if not isinstance(model_cfg, dict) or key not in model_cfg
    ]
    if missing:
        raise StoredFileError(f"encoder {spec!r}: {str(config)!r} lacks model_cfg.{missing[0]}, which {_LAYOUT}")
    if not any(True for pattern in ("*.safetensors", "*.bin", "*.pth") for _ in folder.glob(pattern)):
        raise StoredFileError(f"encoder {spec!r}: {str(folder)!r} has no weights (open_clip_model.safetensors)")
    check_folder(spec, folder)
    check_open_clip_config(spec, model_cfg)
    name = f"{_LOCAL}{folder}"
    with explained(spec, local=True):
        check_declared_size(spec, folder, model_cfg, lambda: _shapes(name))
    return _create(spec, name, None, device, precision)


def _check_repository(spec: str, name: str) -> None:
    with explained(spec, local=False):
        import open_clip
        from open_clip.pretrained import download_pretrained_from_hf

        model_cfg = open_clip.get_model_config(name)
        folder = Path(download_pretrained_from_hf(name.removeprefix(_HUB))).parent
        check_folder(spec, folder)
        check_open_clip_config(spec, model_cfg)
        check_declared_size(spec, folder, model_cfg, lambda: _shapes(name))


def _shapes(name: str) -> torch.nn.Module:
    import open_clip

    return open_clip.create_model(name, load_weights=False, device="meta")


def _check_name(spec: str, name: str, pretrained: str) -> None:
    with explained(spec, local=True):
        import open_clip
    models = open_clip.list_models()
    if name not in models:
        raise InputError(
            f"encoder {spec!r}: unknown open_clip model {name!r}{suggest(name, models)}; "
            f"open_clip.list_models() has all {len(models)}"
        )
    tags = open_clip.list_pretrained_tags_by_model(name)
    known = (
        f"its pretrained tags are {', '.join(tags)}"
        if tags
        else "it has no pretrained tags, so give the path of a file"
    )
    if not pretrained:
        raise InputError(f"encoder {spec!r}: expected open_clip:MODEL/PRETRAINED; {known}")
    if pretrained.lower().replace("-", "_") not in tags and not Path(pretrained).is_file():
        raise InputError(
            f"encoder {spec!r}: unknown pretrained weights {pretrained!r}{suggest(pretrained, tags)}; {known}"
        )


def _create(spec: str, name: str, pretrained: str | None, device: torch.device, precision: str) -> OpenClipEncoder:
    local = name.startswith(_LOCAL) or (pretrained is not None and Path(pretrained).is_file())
    with explained(spec, local):
        import open_clip

        model_cfg = open_clip.get_model_config(name)
        check_open_clip_config(spec, model_cfg)
        # require_pretrained: without it, a failed download leaves a random model and a line in the log.
        # weights_only: a .bin or .pth that holds more than tensors is refused.
        model = open_clip.create_model(name, pretrained=pretrained, require_pretrained=True, weights_only=True)
        check_picture_size(spec, model.visual.preprocess_cfg)
        tokenizer = _open_tokenizer(name, model_cfg["text_cfg"])
    return OpenClipEncoder(spec, model, model_cfg, tokenizer, device, precision)


def _open_tokenizer(name: str, text: Mapping[str, Any]) -> Any:
    import open_clip
    from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

    source = text.get("hf_tokenizer_name")
    if not source:
        return open_clip.get_tokenizer(name)
    # Only tokenizers of transformers know of code in a repository.
    if name.startswith(_LOCAL):
        return open_clip.get_tokenizer(name, trust_remote_code=False)
    from huggingface_hub import snapshot_download

    # By its name, transformers would ask the hub for a config.json each time, and fail offline where there is none.
    return HFTokenizer(
        snapshot_download(source, allow_patterns=["config.json", *_TOKENIZER_FILES]),
        context_length=text.get("context_length", DEFAULT_CONTEXT_LENGTH),
        tokenizer_mode=text.get("tokenizer_mode"),
        **{**text.get("tokenizer_kwargs", {}), "trust_remote_code": False},
    )
