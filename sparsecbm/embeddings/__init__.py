"""Embed once, store, reopen: content-addressed, memory-mapped, resumable."""

from sparsecbm.embeddings.cache import CacheEntry, PruneReport, cache_entries, prune_cache
from sparsecbm.embeddings.embed import embed_images, embed_texts
from sparsecbm.embeddings.store import cache_dir
from sparsecbm.embeddings.table import Embeddings
from sparsecbm.embeddings.vectors import load_embeddings

__all__ = [
    "CacheEntry",
    "Embeddings",
    "PruneReport",
    "cache_dir",
    "cache_entries",
    "embed_images",
    "embed_texts",
    "load_embeddings",
    "prune_cache",
]
