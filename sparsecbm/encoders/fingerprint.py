"""One hash for everything that decides what an encoder returns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

# Goes into every fingerprint: raise it when what is hashed, or how, changes.
SCHEME = "sparsecbm-encoder-1"

# Which library wrote a file, and where it lay, do not change what it computes.
_NOT_CONTENT = frozenset(
    {"transformers_version", "dtype", "torch_dtype", "name_or_path", "processor_class", "architectures"}
)


def digest_json(value: Any) -> str:
    """SHA-256 of a value as JSON with sorted keys; what JSON has no type for is hashed by its text."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def digest_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of tensors, whatever their device or order."""
    return _fed(hashlib.sha256(), tensors)


def weights_mark(tensors: Mapping[str, torch.Tensor]) -> str:
    """Return a mark of the same content at 15 times the speed, to know when to hash again; not safe against forgery.

    It reads every byte in its place: edits through ``.data``, also such that exchange numbers, leave no other trace.
    """
    import xxhash

    return _fed(xxhash.xxh3_128(), tensors)


def _fed(digest: Any, tensors: Mapping[str, torch.Tensor]) -> str:
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def plain_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Drop private keys, unset values and the name of the writing library from a (nested) configuration."""
    return {
        key: plain_config(value) if isinstance(value, Mapping) else value
        for key, value in config.items()
        if value is not None and not str(key).startswith("_") and key not in _NOT_CONTENT
    }


def describe_hf_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """Vocabulary, merges, normalisation, special tokens and sides of a Hugging Face tokenizer."""
    described: dict[str, Any] = {
        "special": {key: str(value) for key, value in tokenizer.special_tokens_map.items()},
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
        "inputs": list(tokenizer.model_input_names),
    }
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        pipeline = json.loads(backend.to_str())
        # Left over from the last call, not a property of the tokenizer.
        pipeline.pop("padding", None)
        pipeline.pop("truncation", None)
        described["pipeline"] = pipeline
        return described
    described["vocabulary"] = tokenizer.get_vocab()
    described["options"] = {
        key: value
        for key, value in tokenizer.init_kwargs.items()
        if isinstance(value, (bool, int, str)) and "file" not in key
    }
    model = getattr(tokenizer, "sp_model", None)
    if model is not None:
        described["sentencepiece"] = hashlib.sha256(model.serialized_model_proto()).hexdigest()
    return described


def as_plain_number(value: Any) -> Any:
    """Turn NumPy scalars and tuples inside a configuration into what JSON knows."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (tuple, list)):
        return [as_plain_number(item) for item in value]
    if isinstance(value, Mapping):
        return {key: as_plain_number(item) for key, item in value.items()}
    return value
