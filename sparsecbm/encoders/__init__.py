"""Frozen CLIP encoders behind one small protocol."""

from sparsecbm._base.parts import ENCODERS
from sparsecbm.encoders.base import Encoder
from sparsecbm.encoders.bundled_clip import BUNDLED_FOLDER
from sparsecbm.encoders.registry import load_encoder

__all__ = ["BUNDLED_FOLDER", "ENCODERS", "Encoder", "load_encoder"]
