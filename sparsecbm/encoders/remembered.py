"""The encoder that a model remembers: loaded again, and checked to be the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from sparsecbm._base.errors import InputError
from sparsecbm._base.hub import NOT_PUBLISHED
from sparsecbm.encoders.base import Encoder
from sparsecbm.encoders.registry import load_encoder

_HELD: WeakKeyDictionary[object, tuple[Any, Encoder]] = WeakKeyDictionary()
"""Encoders that live as long as their models, and are neither stored nor copied with them."""


def remembered_encoder(
    note: Mapping[str, Any] | None,
    dim: int,
    *,
    spec: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    what: str = "the model",
    holder: object | None = None,
) -> Encoder:
    """Load the encoder of a model's embeddings.

    Parameters
    ----------
    note : mapping or None
        ``spec``, ``fingerprint`` and ``precision``, as far as they are known.
    dim : int
        Length of the embeddings the model takes.
    spec : str, optional
        Where the encoder lies now; None takes the spec that is noted.
    device : str
        See `load_encoder`.
    precision : str, optional
        None takes the precision that is noted.
    what : str
        The model, in words.
    holder : object, optional
        The model itself, for which the encoder is loaded once.

    Raises
    ------
    InputError
        If no encoder is known, or it is another one: its embeddings would mean something else.
    """
    noted = note or {}
    asked = dict(noted), dim, spec, device, precision
    if holder is not None and (held := _HELD.get(holder)) is not None and held[0] == asked:
        return held[1]
    wanted = spec or noted.get("spec")
    if not wanted:
        raise InputError(
            f"{what} was trained on embeddings made elsewhere and does not say by which encoder: give one "
            "(encoder=..., on the command line --encoder), such as open_clip:ViT-B-32/openai"
        )
    if NOT_PUBLISHED in wanted:
        raise InputError(
            f"{what} was trained with an encoder from a folder, and does not say where it lies: give it "
            "(encoder=..., on the command line --encoder), such as open_clip:local-dir:PATH"
        )
    encoder = load_encoder(wanted, device=device, precision=precision or noted.get("precision") or "auto")
    expected = noted.get("fingerprint")
    if expected and encoder.fingerprint != expected:
        raise InputError(
            f"encoder {wanted!r} is not the one that {what} was trained on: fingerprint {encoder.fingerprint[:12]}, "
            f"expected {expected[:12]}; its weights, preprocessing or tokenizer have changed: use the same version, or "
            "train again"
        )
    if encoder.embed_dim != dim:
        raise InputError(f"encoder {wanted!r} makes {encoder.embed_dim}-d embeddings; the model expects {dim}-d ones")
    if holder is not None:
        _HELD[holder] = asked, encoder
    return encoder
