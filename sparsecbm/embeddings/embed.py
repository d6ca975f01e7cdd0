"""Embed pictures and texts once, through the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence, Sized
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
from PIL import Image

from sparsecbm._base.errors import DomainWarning, InputError, StoredFileError, unknown
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import row_lengths, unit_rows
from sparsecbm.concepts import PromptTemplates
from sparsecbm.embeddings.store import FORMAT, Plan, Rows, fetch
from sparsecbm.embeddings.store import cache_dir as default_cache_dir
from sparsecbm.embeddings.table import Embeddings
from sparsecbm.encoders import Encoder
from sparsecbm.encoders.base import Pictures, as_pictures, loaded

if TYPE_CHECKING:
    from sparsecbm.data import ImageSource

Cache = Literal["disk", "disk-or-memory", "memory"]

SHARD_SIZE = 512
_ATTEMPTS = 3
_SAID = ("spec", "fingerprint", "precision", "embed_dim", "logit_scale")
"""Of the encoder, in the provenance."""

logger = logging.getLogger(__name__)


def embed_images(
    encoder: Encoder,
    images: Pictures | ImageSource,
    cache_dir: str | Path | None = None,
    *,
    batch_size: int | None = None,
    shard_size: int = SHARD_SIZE,
    dtype: str = "float32",
    progress: bool | None = None,
    cache: Cache = "disk",
) -> Embeddings:
    """Embed pictures, or reopen their embeddings from the cache.

    The cache entry is named by the encoder's fingerprint and precision, the content and order of the pictures, and the
    dtype: a change of any of them is a miss. Each picture is decoded from the very bytes that were hashed; where a file
    changed in between, the pictures are hashed and embedded again. A run that was stopped resumes with the first
    unfinished shard. Under ``accelerate launch`` every process must call this; the shards are divided among them and
    all get the whole array.

    Parameters
    ----------
    encoder : Encoder
        From `load_encoder`.
    images : ImageSource, or a picture, path, array, or sequence of them, length n
        From `load_images`, or as `Encoder.encode_images` takes them.
    cache_dir : str or Path, optional
        Cache folder; None takes ``$SPARSECBM_CACHE``, else the platform's user cache folder.
    batch_size : int, optional
        Pictures a forward pass; None takes the encoder's default.
    shard_size : int
        Pictures a shard, the unit that a stopped run loses at most.
    dtype : {"float32", "float16"}
        How the vectors are stored and returned; float16 rows are of unit length to about 1e-3.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.
    cache : {"disk", "disk-or-memory", "memory"}
        ``"disk-or-memory"`` keeps the embeddings in memory where the cache cannot be written; ``"memory"`` never
        touches the disk. In memory every process encodes everything.

    Returns
    -------
    Embeddings
        `vectors` (n, d), memory-mapped and read-only unless kept in memory; labels, class names and ids of the source.

    Raises
    ------
    InputError
        If a picture cannot be decoded or its embedding is NaN, infinite or zero, or pictures keep changing while they
        are embedded; finished shards stay.
    StoredFileError
        If the cache cannot be written (full disk, no permission); finished shards stay.
    """
    images = _sequence(as_pictures(images))
    count = len(cast(Sized, images))
    if count == 0:
        raise InputError("there are no images to embed: expected at least one")
    if encoder.domain is not None and (outside := encoder.domain.note(images=getattr(images, "spec", None))):
        warnings.warn(f"{encoder.spec}: {outside}", DomainWarning, stacklevel=2)
    # A source with a fingerprint that hashes no single pictures paints them, or is somebody's own: it answers for it.
    answers = not hasattr(images, "open_hashed") and getattr(images, "fingerprint", None)
    for _ in range(_ATTEMPTS):
        pictures: Any = images if answers else _Checked(images)
        source = {
            "spec": getattr(images, "spec", None),
            "split": getattr(images, "split", None),
            "fingerprint": pictures.fingerprint,
            "count": count,
            "skipped": len(getattr(images, "skipped", ())),
        }

        def encode(plan: Plan, shards: Sequence[Rows], pictures: Any = pictures) -> Iterator[np.ndarray]:
            return encoder.iter_encode_images(pictures, plan.batches(shards))

        obtain = _Obtain(encoder, dtype, shard_size, batch_size, cache_dir, cache, progress)
        try:
            vectors, provenance = obtain("pictures", encode, {"images": pictures.fingerprint}, images=source)
        except _PictureChanged as error:
            changed = str(error)
            logger.warning("%s: embedding the pictures as they are now", changed)
            continue
        return Embeddings(
            vectors,
            getattr(images, "labels", None),
            tuple(getattr(images, "class_names", ())),
            tuple(getattr(images, "ids", ())),
            provenance,
        )
    raise InputError(f"{changed}, {_ATTEMPTS} times in a row: wait until nothing writes the pictures and run again")


def embed_texts(
    encoder: Encoder,
    texts: Sequence[str],
    templates: PromptTemplates | str | Sequence[str] | None = None,
    cache_dir: str | Path | None = None,
    *,
    batch_size: int | None = None,
    dtype: str = "float32",
    progress: bool | None = None,
    cache: Cache = "disk",
) -> Embeddings:
    """Embed texts, or reopen their embeddings from the cache.

    Parameters
    ----------
    encoder : Encoder
        From `load_encoder`.
    texts : sequence of str, length n
        Concept or class names, or whole captions.
    templates : PromptTemplates, str or sequence of str, optional
        Prompt templates with one ``{}`` each, such as ``"a photo of a {}."``, or the name of a set. With several, a
        text's embedding is the mean of the unit rows of its prompts, rescaled to unit length (the prompt ensemble of
        Radford et al. 2021, section 3.1.4). None embeds the texts as they are.
    cache_dir, batch_size, dtype, progress, cache
        See `embed_images`.

    Returns
    -------
    Embeddings
        `vectors` (n, d); `ids` are the texts.

    Raises
    ------
    InputError
        If a text is not a string, a template lacks ``{}``, or an embedding is NaN, infinite or zero.
    StoredFileError
        If the cache cannot be written.
    """
    if isinstance(texts, str):
        raise InputError(f"texts is the single string {texts!r}: expected a list of strings, here [{texts!r}]")
    texts = list(texts)
    if not texts:
        raise InputError("there are no texts to embed: expected at least one")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {index} is {text!r} ({type(text).__name__}): expected a string")
    if encoder.domain is not None and (outside := encoder.domain.note(texts)):
        warnings.warn(f"{encoder.spec}: {outside}", DomainWarning, stacklevel=2)
    patterns = PromptTemplates.of(templates)
    # A prompt decides, not the name or template that it was made of.
    prompts = [patterns.format(text) for text in texts]

    def encode(plan: Plan, shards: Sequence[Rows]) -> Iterator[np.ndarray]:
        for shard in shards:
            flat = [prompt for row in shard for prompt in prompts[row]]
            rows = encoder.encode_texts(flat, batch_size=plan.batch_size, progress=False)
            yield _ensemble(rows.reshape(len(shard), len(patterns), -1), [texts[row] for row in shard])

    obtain = _Obtain(encoder, dtype, 8192, batch_size, cache_dir, cache, progress)
    source = {"count": len(texts), "templates": list(patterns)}
    vectors, provenance = obtain("texts", encode, {"prompts": prompts}, texts=source)
    return Embeddings(vectors, ids=tuple(texts), provenance=provenance)


class _Obtain(NamedTuple):
    """How vectors are had: from the cache, or encoded."""

    encoder: Encoder
    dtype: Any
    shard_size: int
    batch_size: int | None
    cache_dir: str | Path | None
    cache: str
    progress: bool | None

    def __call__(
        self,
        what: str,
        encode: Callable[[Plan, Sequence[Rows]], Iterator[np.ndarray]],
        content: dict[str, Any],
        **source: dict[str, Any],
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return vectors of `content`, which names the entry, and where they come from; `source` is said there."""
        if self.cache not in get_args(Cache):
            raise unknown("cache", self.cache, get_args(Cache))
        encoder, (said,) = self.encoder, source.values()
        note = {name: getattr(encoder, name) for name in _SAID}
        identity = {
            "format": FORMAT,
            "encoder": note["fingerprint"],
            "precision": note["precision"],
            "dtype": self.dtype,
            "count": said["count"],
            **content,
        }
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        size = encoder.default_batch_size if self.batch_size is None else self.batch_size
        plan = Plan(key, said["count"], encoder.embed_dim, self.dtype, self.shard_size, size)
        provenance: dict[str, Any] = {"encoder": note, **source, "dtype": self.dtype}

        @contextlib.contextmanager
        def bar(total: int, done: int) -> Iterator[Callable[[int], None]]:
            with ProgressBar(f"Embedding {what}", total, self.progress) as shown:
                if done:
                    shown.update(done, note="resumed")
                yield shown.update

        if self.cache != "memory":
            root = default_cache_dir() if self.cache_dir is None else Path(self.cache_dir).expanduser()
            try:
                vectors, hit = fetch(root, plan, partial(encode, plan), provenance, bar)
            except StoredFileError:
                if self.cache != "disk-or-memory":
                    raise
            else:
                return vectors, {**provenance, "cache": {"folder": str(root), "key": plan.key, "hit": hit}}
        with bar(plan.count, 0) as on_rows, contextlib.closing(encode(plan, plan.shards)) as blocks:  # type: ignore[type-var]
            rows = []
            for block in blocks:
                rows.append(block)
                on_rows(len(block))
        return np.concatenate(rows).astype(plan.dtype, copy=False), {**provenance, "cache": None}


def _sequence(images: Any) -> Any:
    return images if hasattr(images, "__getitem__") and hasattr(images, "__len__") else list(images)


class _PictureChanged(InputError):
    """A picture is not what it was when it was hashed."""


class _Checked:
    """Pictures, each decoded from the very bytes whose hash is among those that name the cache entry.

    Attributes
    ----------
    fingerprint : str
        SHA-256 of `hashes`, 32 bytes a picture.
    ids : list of str or None
        Names of pictures.
    several_threads : bool
        Whether several may decode at a time.
    """

    def __init__(self, images: Any) -> None:
        hashed = hasattr(images, "open_hashed")
        self.several_threads = hashed or all(isinstance(image, (str, os.PathLike)) for image in images)
        self.ids = getattr(images, "ids", None)
        if hashed:
            self._open: Callable[[int], tuple[Image.Image, bytes]] = images.open_hashed
            self._hashes: bytes = images.content_hashes()
            self.fingerprint = images.fingerprint_of(self._hashes)
        else:
            self._open = partial(_open_pixels, images)
            self._hashes = b"".join(self._open(index)[1] for index in range(len(images)))
            self.fingerprint = hashlib.sha256(b"sparsecbm pixels 2" + self._hashes).hexdigest()

    def __len__(self) -> int:
        return len(self._hashes) // 32

    def __getitem__(self, index: int) -> Image.Image:
        picture, found = self._open(index)
        if found != self._hashes[32 * index : 32 * index + 32]:
            name = index if self.ids is None else self.ids[index]
            raise _PictureChanged(f"picture {name!r} changed while it was embedded")
        return picture


def _open_pixels(images: Sequence[Image.Image], index: int) -> tuple[Image.Image, bytes]:
    # Through RGB, as the encoder sees it: a palette's indices alone would not tell its colours.
    pixels = loaded(images[index], index).convert("RGB")
    return pixels, hashlib.sha256(f"{pixels.size}".encode() + pixels.tobytes()).digest()


def _ensemble(rows: np.ndarray, texts: Sequence[str]) -> np.ndarray:
    mean = rows.mean(axis=1, dtype=np.float64) if rows.shape[1] > 1 else rows[:, 0]
    wrong = np.flatnonzero(row_lengths(mean) < 1e-6)
    if len(wrong):
        raise InputError(f"the prompts of {texts[wrong[0]]!r} cancel out: their mean is zero; use other templates")
    return unit_rows(mean, dtype=np.float32)
