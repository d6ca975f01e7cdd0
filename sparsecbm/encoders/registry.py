"""Encoders by name."""

from __future__ import annotations

import torch

from sparsecbm._base.devices import resolve_device
from sparsecbm._base.errors import InputError, suggest
from sparsecbm._base.parts import ENCODERS
from sparsecbm._base.registry import load_plugins
from sparsecbm.encoders.base import Encoder
from sparsecbm.encoders.devices import resolve_precision

_NEED_MORE = ("open_clip", "transformers")
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
    if kind not in ENCODERS:
        load_plugins()
    if kind not in ENCODERS or (kind == "bundled" and colon) or (kind in _NEED_MORE and not rest):
        raise InputError(f"unknown encoder {spec!r}: expected one of {_FORMS}{suggest(kind, ENCODERS)}")
    where = resolve_device(device)
    return ENCODERS.find(kind)(spec.strip(), rest, where, resolve_precision(precision, where))
