"""Frozen CLIP encoders behind one small protocol."""

from sparsecbm.encoders.base import Encoder
from sparsecbm.encoders.registry import BUNDLED_FOLDER, ENCODERS, load_encoder

__all__ = ["BUNDLED_FOLDER", "ENCODERS", "Encoder", "load_encoder"]
