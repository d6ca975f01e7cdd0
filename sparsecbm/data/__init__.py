"""Image sources: the hub, folders, parquet files and painted birds, behind one small protocol."""

from sparsecbm.data.base import ImageSource
from sparsecbm.data.registry import load_images

__all__ = ["ImageSource", "load_images"]
