"""The encoder protocol and the batching that all encoders share."""

from __future__ import annotations

import contextlib
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike
from PIL import Image

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.parameters import Count, checked
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import row_lengths, unit_rows
from sparsecbm._base.threads import single_threaded_kernels
from sparsecbm.encoders.devices import PRECISIONS
from sparsecbm.encoders.domain import Domain
from sparsecbm.encoders.fingerprint import SCHEME, digest_json, digest_tensors, weights_mark
from sparsecbm.encoders.opening import Opening

if TYPE_CHECKING:
    from sparsecbm.encoders.maps.attribution import ImageMaps

Inputs = Mapping[str, torch.Tensor]
Picture: TypeAlias = "Image.Image | str | os.PathLike[str] | np.ndarray"
Pictures: TypeAlias = "Picture | Iterable[Picture]"
T = TypeVar("T")

# On a CPU a batch is one thread's work, so it should fit the caches; a GPU wants to be filled.
_CPU_BATCH, _GPU_BATCH = 32, 256
_MAX_WORKERS = 16


class Encoder(ABC):
    """A frozen image and text encoder.

    Both towers return float32 rows of unit length in one space. The model is in ``eval`` mode, its parameters need no
    gradient, and every forward pass runs in inference mode.

    On a CPU one thread decodes, preprocesses and encodes a batch with single-threaded kernels, and as many batches run
    at a time as torch may use threads. So the result depends on the batches but, bit for bit, not on the number of
    threads or processes. On a GPU the threads decode and preprocess ahead of the device.

    Parameters
    ----------
    spec : str
        The spec it was loaded by.
    model : torch.nn.Module
        The library's model, loaded.
    embed_dim : int
        Length d of an embedding.
    device : torch.device
        Where the model runs.
    precision : {"float32", "bfloat16", "float16"}
        Anything but float32 runs under autocast.

    Attributes
    ----------
    spec, model, embed_dim, device, precision
        As above.
    preprocess : callable
        One RGB picture to the model's input.
    logit_scale : float
        Factor of the cosine in the model's own training objective (the exponential of the learned parameter).
    fingerprint : str
        SHA-256 of weights, architecture, preprocessing and tokenizer.
    domain : Domain or None
        What it was trained on, where that is less than photographs and everyday words; a variant declares it.
    """

    domain: Domain | None = None

    def __init__(
        self, spec: str, model: torch.nn.Module, embed_dim: int, device: torch.device, precision: str = "float32"
    ) -> None:
        self.spec = spec
        self.model = model.to(device).eval().requires_grad_(False)
        self.embed_dim = int(embed_dim)
        self.device = device
        self.precision = precision
        self._weights: tuple[str, str] | None = None
        self._tokenizer_digest: str | None = None

    # What a variant provides.

    @property
    @abstractmethod
    def preprocess(self) -> Callable[[Image.Image], Any]:
        """Turn one RGB picture into the model's input."""

    @property
    @abstractmethod
    def logit_scale(self) -> float:
        """Factor of the cosine in the model's own training objective."""

    @abstractmethod
    def _image_inputs(self, images: Iterable[Image.Image]) -> Inputs:
        """Preprocess RGB pictures into one batch on the CPU, one after the other; called from several threads."""

    @abstractmethod
    def _image_features(self, inputs: Inputs) -> torch.Tensor:
        """Image tower: float tensor (batch, d), not normalised."""

    @abstractmethod
    def _text_inputs(self, texts: list[str]) -> Inputs:
        """Tokenise into one batch on the CPU, padded to the model's context length."""

    @abstractmethod
    def _text_features(self, inputs: Inputs) -> torch.Tensor:
        """Text tower: float tensor (batch, d), not normalised."""

    @abstractmethod
    def _configuration(self) -> Mapping[str, Any]:
        """Architecture, preprocessing and text settings, as JSON values; cheap."""

    @abstractmethod
    def _tokenizer(self) -> Mapping[str, Any]:
        """Everything the tokenizer's output depends on, as JSON values."""

    def _opening(self, layers: int | None) -> Opening | None:
        """Where the image tower is opened for exact maps (see `sparsecbm.encoders.maps`); None: nobody knows."""
        return None

    # What every encoder does.

    @property
    def fingerprint(self) -> str:
        """SHA-256 of weights, architecture, preprocessing and tokenizer: equal means the same embeddings.

        It does not depend on where the files lie, on the device, or on the precision. The weights are hashed on first
        use and again only after they were edited.
        """
        weights = self.model.state_dict()
        mark = weights_mark(weights)
        if self._weights is None or self._weights[0] != mark:
            self._weights = mark, digest_tensors(weights)
        if self._tokenizer_digest is None:
            self._tokenizer_digest = digest_json(self._tokenizer())
        return digest_json(
            {
                "scheme": SCHEME,
                "weights": self._weights[1],
                "tokenizer": self._tokenizer_digest,
                "configuration": self._configuration(),
            }
        )

    @property
    def default_batch_size(self) -> int:
        """Batch size used where none is given: 32 on a CPU (a batch is one thread's work), 256 on a GPU."""
        return _CPU_BATCH if self.device.type == "cpu" else _GPU_BATCH

    def encode_images(
        self,
        images: Pictures,
        batch_size: int | None = None,
        progress: bool | None = None,
    ) -> np.ndarray:
        """Encode pictures, decoding and preprocessing them batch by batch.

        Parameters
        ----------
        images : picture, path, array, or a sequence or iterable of them, length n
            A picture is a PIL.Image.Image; an array is of uint8, shape (height, width) or (height, width, channels), or
            (n, height, width, channels). An `ImageSource` is indexed from several threads; anything else is read in
            order by the calling thread.
        batch_size : int, optional
            Pictures a forward pass; `default_batch_size` where None.
        progress : bool, optional
            Show a progress bar; None shows it on a terminal.

        Returns
        -------
        ndarray of float32, shape (n, embed_dim)
            Rows of unit length.

        Raises
        ------
        InputError
            If an item is no picture, cannot be decoded, or its embedding is NaN, infinite or zero.
        """
        size = self._batch_size(batch_size)
        given = as_pictures(images)
        count = len(given) if hasattr(given, "__len__") else 0
        if count and hasattr(given, "__getitem__"):
            batches: Iterable[Any] = (range(start, min(start + size, count)) for start in range(0, count, size))
            blocks = self.iter_encode_images(given, batches)
        else:
            jobs = self._read_batches(given, size)
            blocks = self._run(
                jobs, lambda job: self._image_inputs(_rgb(job[1], job[0])), self._image_features, "image"
            )
        return self._collect(blocks, count, "Encoding pictures", progress)

    def iter_encode_images(
        self, images: Sequence[Image.Image], batches: Iterable[Sequence[int]]
    ) -> Iterator[np.ndarray]:
        """Encode chosen pictures, one batch of indices at a time, in order; the next batches are under way meanwhile.

        Parameters
        ----------
        images : sequence of PIL.Image.Image
            Pictures; see `encode_images`.
        batches : iterable of sequence of int
            Indices of the pictures of each forward pass.

        Yields
        ------
        ndarray of float32, shape (len(batch), embed_dim)
            Rows of unit length.
        """
        # A source that knows its own fingerprint is an ImageSource, whose pictures may be decoded by several threads.
        # Not `hasattr(images, ...)`, which would compute it.
        by_worker = getattr(images, "several_threads", "fingerprint" in dir(images))
        jobs = ((batch, None if by_worker else [_taken(images[i], i) for i in batch]) for batch in batches)

        def prepare(job: tuple[Sequence[int], list[Any] | None]) -> Inputs:
            batch, ready = job
            return self._image_inputs(_rgb((images[i] for i in batch) if ready is None else ready, batch))

        yield from self._run(
            jobs, prepare, self._image_features, "image", getattr(images, "ids", None) if by_worker else None
        )

    def encode_texts(
        self, texts: Sequence[str], batch_size: int | None = None, progress: bool | None = None
    ) -> np.ndarray:
        """Encode texts as they are; prompt templates are the caller's.

        Parameters
        ----------
        texts : sequence of str, length n
            Texts; what exceeds the model's context length is cut off by its tokenizer.
        batch_size : int, optional
            Texts a forward pass; `default_batch_size` where None.
        progress : bool, optional
            Show a progress bar; None shows it on a terminal.

        Returns
        -------
        ndarray of float32, shape (n, embed_dim)
            Rows of unit length. Every text is padded to the same length, so its row does not depend on its neighbours.

        Raises
        ------
        InputError
            If `texts` is a single string or holds anything but strings, or an embedding is NaN, infinite or zero.
        """
        if isinstance(texts, str):
            raise InputError(f"texts is the single string {texts!r}: expected a list of strings, here [{texts!r}]")
        texts = list(texts)
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"text {index} is {text!r} ({type(text).__name__}): expected a string")
        size = self._batch_size(batch_size)
        # Tokenizers keep state, so the calling thread alone uses them.
        jobs = (
            (range(start, min(start + size, len(texts))), self._text_inputs(texts[start : start + size]))
            for start in range(0, len(texts), size)
        )
        blocks = self._run(jobs, lambda job: job[1], self._text_features, "text", texts)
        return self._collect(blocks, len(texts), "Encoding texts", progress)

    def map_images(self, images: Sequence[Image.Image], directions: ArrayLike, **options: Any) -> ImageMaps:
        """Map what each place of pictures adds to their embeddings' products with directions; see `maps.map_images`."""
        from sparsecbm.encoders.maps.attribution import map_images

        return map_images(self, images, directions, **options)

    def seen(self, image: Image.Image) -> Image.Image:
        """Return what the encoder sees of a picture, cut and scaled: what its maps lie over."""
        from sparsecbm.encoders.maps.attribution import seen

        return seen(self, image)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.spec!r}, embed_dim={self.embed_dim}, device={str(self.device)!r}, "
            f"precision={self.precision!r})"
        )

    def _batch_size(self, batch_size: int | None) -> int:
        return checked("batch_size", batch_size, Count | None) or self.default_batch_size

    def _read_batches(self, images: Iterable[Any], size: int) -> Iterator[tuple[Sequence[int], list[Any]]]:
        numbered = enumerate(images)
        start = 0
        while batch := [_taken(image, index) for index, image in islice(numbered, size)]:
            yield range(start, start + len(batch)), batch
            start += len(batch)

    def _run(
        self,
        jobs: Iterable[tuple[Sequence[int], Any]],
        prepare: Callable[[Any], Inputs],
        features: Callable[[Inputs], torch.Tensor],
        what: str,
        names: Sequence[str] | None = None,
    ) -> Iterator[np.ndarray]:
        """Prepare and encode jobs ``(indices, ...)`` in order, several at a time."""

        def encode(job: tuple[Sequence[int], Any], inputs: Inputs) -> np.ndarray:
            return _checked_rows(self._forward(inputs, features), job[0], what, names, self.spec, self.embed_dim)

        if self.device.type == "cpu":
            with single_threaded_kernels() as threads:
                yield from _in_order(jobs, lambda job: encode(job, prepare(job)), min(threads, _MAX_WORKERS))
            return
        workers = min(_MAX_WORKERS // 2, os.cpu_count() or 1)
        for job, inputs in _in_order(jobs, lambda job: (job, prepare(job)), workers):
            yield encode(job, inputs)

    def _forward(self, inputs: Inputs, features: Callable[[Inputs], torch.Tensor]) -> torch.Tensor:
        mixed = self.precision != "float32"
        # Both modes belong to the thread, so the thread that runs the model enters them.
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, PRECISIONS[self.precision]) if mixed else contextlib.nullcontext(),
        ):
            on_device = {name: tensor.to(self.device, non_blocking=True) for name, tensor in inputs.items()}
            return features(on_device).float()

    def _collect(self, blocks: Iterator[np.ndarray], count: int, description: str, progress: bool | None) -> np.ndarray:
        rows: list[np.ndarray] = []
        with contextlib.closing(blocks), ProgressBar(description, count, progress) as bar:  # type: ignore[type-var]
            for block in blocks:
                rows.append(block)
                bar.update(len(block))
        return np.concatenate(rows) if rows else np.empty((0, self.embed_dim), dtype=np.float32)


def as_pictures(images: Any) -> Any:
    """Return one picture, path or array as a list of one, and an array of pictures as a list; others as they are."""
    if isinstance(images, (str, os.PathLike, Image.Image)):
        return [images]
    if isinstance(images, np.ndarray):
        one = images.ndim == 2 or (images.ndim == 3 and images.shape[-1] in (1, 3, 4))
        return [images] if one else list(images)
    return images


def loaded(image: Any, index: int) -> Image.Image:
    """Return a picture whose pixels are decoded, from a file or an array too, or say which is none."""
    if isinstance(image, (str, os.PathLike)):
        from sparsecbm.data.decode import UndecodableError, decode_image, read_picture

        try:
            return decode_image(read_picture(os.fspath(image)))
        except UndecodableError as error:
            raise InputError(f"cannot decode {os.fspath(image)!r}: {error}; repair or remove it") from error
    if isinstance(image, np.ndarray):
        pixels = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
        if (
            image.dtype != np.uint8
            or pixels.ndim not in (2, 3)
            or (pixels.ndim == 3 and pixels.shape[-1] not in (3, 4))
        ):
            raise InputError(
                f"image {index} is an array of {image.dtype}, shape {image.shape}: expected uint8 of shape (height, "
                "width) or (height, width, 1, 3 or 4)"
            )
        return Image.fromarray(pixels)
    # One picture object may stand in a list several times, and Pillow decodes lazily without a lock.
    if not isinstance(image, Image.Image):
        raise InputError(f"image {index} is a {type(image).__name__}: expected a picture, a path or an array")
    try:
        image.load()
    except (OSError, SyntaxError, ValueError) as error:
        name = getattr(image, "filename", "") or f"image {index}"
        raise InputError(f"cannot decode {name!r}: {error}; repair or remove it") from error
    return image


def _taken(image: Any, index: int) -> Any:
    """What a thread may go on with: a path, or a picture decoded here, since Pillow decodes lazily without a lock."""
    return image if isinstance(image, (str, os.PathLike)) else loaded(image, index)


def _rgb(images: Iterable[Any], indices: Sequence[int]) -> Iterator[Image.Image]:
    """Decode one picture when the one before is done with: a batch of large photographs would take gigabytes."""
    for index, image in zip(indices, images):
        if isinstance(image, (str, os.PathLike)):
            image = loaded(image, index)
        if not isinstance(image, Image.Image):
            raise InputError(f"image {index} is a {type(image).__name__}: expected a PIL.Image.Image")
        yield image if image.mode == "RGB" else image.convert("RGB")


def _checked_rows(
    features: torch.Tensor, indices: Sequence[int], what: str, names: Sequence[str] | None, spec: str, embed_dim: int
) -> np.ndarray:
    rows = features.cpu().numpy()
    if rows.shape != (len(indices), embed_dim):
        raise StoredFileError(
            f"encoder {spec!r} embeds {what}s in {rows.shape[-1]} dimensions: its configuration says {embed_dim}"
        )
    lengths = row_lengths(rows)
    wrong = np.flatnonzero(~(lengths > 0))
    if len(wrong):
        index = indices[int(wrong[0])]
        name = f" ({names[index]!r})" if names is not None else ""
        kind = "zero" if lengths[wrong[0]] == 0 else "not finite"
        raise InputError(
            f"the embedding of {what} {index}{name} by encoder {spec!r} is {kind}: expected finite, non-zero rows; "
            f"look at this {what}, try precision='float32', or check the encoder's weights"
        )
    return unit_rows(rows)


def _in_order(jobs: Iterable[Any], work: Callable[[Any], T], workers: int) -> Iterator[T]:
    """Yield ``work(job)`` in the order of the jobs, a few ahead of the consumer on a pool of threads."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sparsecbm-encode")
    pending: deque[Future[T]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(work, job))
            if len(pending) > 2 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
