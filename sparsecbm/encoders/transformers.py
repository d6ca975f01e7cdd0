"""Encoders of the transformers library: CLIP, SigLIP, SigLIP 2, ALIGN and AltCLIP, from the hub or a local folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from sparsecbm._base.errors import InputError, StoredFileError, suggest
from sparsecbm.encoders.base import Encoder, Inputs
from sparsecbm.encoders.fingerprint import as_plain_number, describe_hf_tokenizer, plain_config
from sparsecbm.encoders.loading import check_declared_size, check_folder, check_picture_size, explained
from sparsecbm.encoders.opening import Opening, transformers_tower


@dataclass(frozen=True)
class Family:
    """How one architecture wants its texts.

    Attributes
    ----------
    context_length : int or None
        Tokens a text, where training used fewer than the model has positions for; None takes the model's positions.
    attention_mask : bool
        Whether padding is masked.
    reserved_positions : int
        Position embeddings that no token uses.
    """

    context_length: int | None = None
    attention_mask: bool = True
    reserved_positions: int = 0


FAMILIES: dict[str, Family] = {
    "clip": Family(),
    # Trained on texts padded to 64 tokens that attend to the padding; the last position is pooled.
    "siglip": Family(attention_mask=False),
    "siglip2": Family(attention_mask=False),
    "align": Family(context_length=64),
    # XLM-RoBERTa counts positions from the padding index on, and was distilled from CLIP's 77 tokens.
    "altclip": Family(context_length=77, reserved_positions=2),
}


class TransformersEncoder(Encoder):
    """A two-tower model of transformers with its own image processor and tokenizer.

    Parameters
    ----------
    spec : str
        The spec it was loaded by.
    model : torch.nn.Module
        A model with ``get_image_features`` and ``get_text_features``.
    config : mapping
        Its ``config.json``.
    image_processor, tokenizer
        As saved beside the model.
    device, precision
        See `Encoder`.
    """

    model: Any

    def __init__(
        self,
        spec: str,
        model: Any,
        config: Mapping[str, Any],
        image_processor: Any,
        tokenizer: Any,
        device: torch.device,
        precision: str = "float32",
    ) -> None:
        family = FAMILIES[model.config.model_type]
        text = model.config.text_config
        siglip = model.config.model_type in {"siglip", "siglip2"}
        dim = getattr(text, "projection_size", None) or text.hidden_size if siglip else model.config.projection_dim
        super().__init__(spec, model, dim, device, precision)
        self.image_processor, self.tokenizer = image_processor, tokenizer
        self._config = config
        self._attention_mask = family.attention_mask
        self.context_length = min(
            family.context_length or tokenizer.model_max_length,
            tokenizer.model_max_length,
            model.config.text_config.max_position_embeddings - family.reserved_positions,
        )

    @property
    def preprocess(self) -> Callable[[Image.Image], dict[str, torch.Tensor]]:
        """One RGB picture to the keyword arguments of ``model.get_image_features``, without the batch dimension."""
        return lambda image: {name: values[0] for name, values in self._image_inputs([image]).items()}

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine in the model's training objective; for ALIGN, one over its temperature."""
        if hasattr(self.model, "temperature"):
            return 1.0 / float(self.model.temperature.detach())
        return float(self.model.logit_scale.detach().exp())

    def _image_inputs(self, images: Iterable[Image.Image]) -> Inputs:
        made = [self.image_processor(images=[image], return_tensors="pt") for image in images]
        return {name: torch.cat([part[name] for part in made]) for name in made[0]}

    def _image_features(self, inputs: Inputs) -> torch.Tensor:
        return _pooled(self.model.get_image_features(**inputs))

    def _opening(self, layers: int | None) -> Opening:
        return transformers_tower(self.model.vision_model, self.model.config.model_type, layers)

    def _text_inputs(self, texts: list[str]) -> Inputs:
        tokens = dict(
            self.tokenizer(
                texts, padding="max_length", truncation=True, max_length=self.context_length, return_tensors="pt"
            )
        )
        largest, rows = int(tokens["input_ids"].max()), self.model.config.text_config.vocab_size
        if largest >= rows:
            raise StoredFileError(
                f"encoder {self.spec!r}: its tokenizer gives token {largest} but its text model has {rows} tokens; "
                "they do not belong together"
            )
        if not self._attention_mask:
            tokens.pop("attention_mask", None)
        return tokens

    def _text_features(self, inputs: Inputs) -> torch.Tensor:
        return _pooled(self.model.get_text_features(**inputs))

    def _configuration(self) -> Mapping[str, Any]:
        return {
            "architecture": plain_config(as_plain_number(self._config)),
            "preprocess": plain_config(as_plain_number(self.image_processor.to_dict())),
            "context_length": self.context_length,
            "attention_mask": self._attention_mask,
        }

    def _tokenizer(self) -> Mapping[str, Any]:
        return describe_hf_tokenizer(self.tokenizer)


def _pooled(output: Any) -> torch.Tensor:
    # Since transformers 5 the features come inside the towers' output; the pooled entry is the projected embedding.
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def load_transformers(spec: str, rest: str, device: torch.device, precision: str) -> TransformersEncoder:
    """Load what stands behind ``transformers:``; see `sparsecbm.encoders.load_encoder`."""
    source, local = folder_or_repository(rest, f"encoder {spec!r}")
    with explained(spec, local):
        from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedConfig

        config, _ = PreTrainedConfig.get_config_dict(source)
        _check_family(spec, config.get("model_type"))
        described = AutoConfig.from_pretrained(source, trust_remote_code=False)
        # In float32 whatever the file holds.
        model = pretrained(AutoModel, described, source, spec, local, torch.float32)
        processor = AutoImageProcessor.from_pretrained(source, trust_remote_code=False)
        described = processor.to_dict()
        check_picture_size(
            spec, *(described.get(name) for name in ("size", "crop_size", "patch_size", "max_num_patches"))
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        if tokenizer.pad_token_id is None:
            raise StoredFileError(f"encoder {spec!r}: its tokenizer has no padding token (tokenizer_config.json)")
    return TransformersEncoder(spec, model, config, processor, tokenizer, device, precision)


def folder_or_repository(name: str, what: str) -> tuple[str, bool]:
    """Where `from_pretrained` finds a model, and whether that is a folder; raises StoredFileError for a missing one."""
    folder = Path(name).expanduser()
    local = folder.is_dir()
    if not name or (not local and (name.startswith((".", "/", "~")) or name.count("/") > 1)):
        raise StoredFileError(f"{what}: there is no such folder: {name!r}; expected one made by save_pretrained")
    return str(folder) if local else name, local


def pretrained(auto: Any, config: Any, source: str, name: str, local: bool, dtype: Any) -> Any:
    """Load a model by its Auto class, once its files are safe; no remote code, a pickled file only as plain tensors."""
    files = Path(source) if local else downloaded(source)
    check_folder(name, files)
    check_declared_size(name, files, config.to_dict(), lambda: auto.from_config(config))
    with _without_loading_bar():
        model, report = auto.from_pretrained(
            source, dtype=dtype, trust_remote_code=False, weights_only=True, output_loading_info=True
        )
    _check_weights(name, model, report)
    return model


def downloaded(repo: str) -> Path:
    """Fetch the weights of a repository as `from_pretrained` would, and return the folder of the cache they are in."""
    from transformers.utils import cached_file
    from transformers.utils.hub import get_checkpoint_shard_files

    # The last name raises; the others may be missing, or, without a network, not known to be.
    silent = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"):
        if found := cached_file(repo, name, **silent):
            if name.endswith(".index.json"):
                get_checkpoint_shard_files(repo, found)
            return Path(found).parent
    last = cast(str, cached_file(repo, "pytorch_model.bin.index.json"))
    get_checkpoint_shard_files(repo, last)
    return Path(last).parent


def _check_family(spec: str, model_type: str | None) -> None:
    if model_type not in FAMILIES:
        raise InputError(
            f"encoder {spec!r} is a model of type {model_type!r}: expected one of {', '.join(FAMILIES)}"
            f"{suggest(str(model_type), FAMILIES)}"
        )


def _check_weights(spec: str, model: torch.nn.Module, report: Mapping[str, Any]) -> None:
    # transformers fills what is missing with random numbers and only logs it.
    parameters = {name for name, _ in model.named_parameters()}
    missing = sorted(set(report.get("missing_keys", ())) & parameters)
    mismatched = sorted(str(entry[0]) for entry in report.get("mismatched_keys", ()))
    if missing or mismatched:
        what = "has no weights for" if missing else "has weights of another shape for"
        names = missing or mismatched
        raise StoredFileError(
            f"encoder {spec!r} {what} {len(names)} parameters, first {names[0]!r}: they do not fit its config.json"
        )


@contextlib.contextmanager
def _without_loading_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
