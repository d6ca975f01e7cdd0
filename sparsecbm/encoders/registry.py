"""Encoders by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from sparsecbm._base.errors import InputError, suggest
from sparsecbm.encoders.base import Encoder
from sparsecbm.encoders.devices import resolve_device, resolve_precision

# The small CLIP of the package, pretrained on painted birds, in open_clip's local-dir layout.
BUNDLED_FOLDER = Path(__file__).parent / "bundled"


def _bundled(spec: str, rest: str, device: torch.device, precision: str) -> Encoder:
    from sparsecbm.encoders.bundled_clip import BundledEncoder, is_as_released

    def whole() -> Encoder:
        from sparsecbm.encoders.open_clip import load_local_dir

        return load_local_dir(spec, BUNDLED_FOLDER, device, precision)

    return BundledEncoder(spec, BUNDLED_FOLDER, device, precision, whole) if is_as_released(BUNDLED_FOLDER) else whole()


def _open_clip(spec: str, rest: str, device: torch.device, precision: str) -> Encoder:
    from sparsecbm.encoders.open_clip import load_open_clip

    return load_open_clip(spec, rest, device, precision)


def _transformers(spec: str, rest: str, device: torch.device, precision: str) -> Encoder:
    from sparsecbm.encoders.transformers import load_transformers

    return load_transformers(spec, rest, device, precision)


ENCODERS: dict[str, Callable[[str, str, torch.device, str], Encoder]] = {
    "bundled": _bundled,
    "open_clip": _open_clip,
    "transformers": _transformers,
}

_FORMS = "bundled, open_clip:MODEL/PRETRAINED, open_clip:local-dir:PATH, transformers:REPO_OR_PATH"


def load_encoder(spec: str, *, device: str | torch.device = "auto", precision: str = "auto") -> Encoder:
    """Load a frozen CLIP encoder.

    Parameters
    ----------
    spec : str
        - ``bundled``: the small CLIP that comes with the package; no network.
        - ``open_clip:MODEL/PRETRAINED``: an open_clip model with pretrained weights (a tag or the path of a file), such
          as ``open_clip:ViT-B-32/laion2b_s34b_b79k``; ``open_clip:hf-hub:REPO`` too.
        - ``open_clip:local-dir:PATH``: a folder in open_clip's layout (``open_clip_config.json`` and weights).
        - ``transformers:REPO_OR_PATH``: a CLIP, SigLIP, SigLIP 2, ALIGN or AltCLIP model of the Hugging Face hub or a
          local folder.
    device : str or torch.device
        ``"auto"`` is the GPU if there is one, else the CPU.
    precision : {"auto", "float32", "bfloat16", "float16"}
        ``"auto"`` is float32 on a CPU and bfloat16 (float16 on older ones) autocast on a GPU. Embeddings are float32.

    Returns
    -------
    Encoder
        With `encode_images`, `encode_texts`, `embed_dim`, `logit_scale` and `fingerprint`.

    Raises
    ------
    InputError
        If the spec, device or precision is unknown.
    StoredFileError
        If files are missing or damaged, do not fit the architecture, or cannot be had from the hub.

    Notes
    -----
    Nothing is unpickled and no code of a model repository is run: weights are read from safetensors, or by torch with
    ``weights_only=True``.
    """
    if not isinstance(spec, str):
        raise InputError(f"encoder spec {spec!r} is a {type(spec).__name__}: expected a string, one of {_FORMS}")
    kind, colon, rest = spec.strip().partition(":")
    if kind not in ENCODERS or (kind == "bundled" and colon) or (kind != "bundled" and not rest):
        raise InputError(f"unknown encoder {spec!r}: expected one of {_FORMS}{suggest(kind, ENCODERS)}")
    where = resolve_device(device)
    return ENCODERS[kind](spec.strip(), rest, where, resolve_precision(precision, where))
