"""Embed once, store, reopen: content-addressed, memory-mapped, resumable."""

from sparsecbm.embeddings.embed import embed_images, embed_texts
from sparsecbm.embeddings.store import cache_dir
from sparsecbm.embeddings.table import Embeddings
from sparsecbm.embeddings.vectors import load_embeddings, save_embeddings

__all__ = ["Embeddings", "cache_dir", "embed_images", "embed_texts", "load_embeddings", "save_embeddings"]
