"""Maps of scores: what every place of a picture adds to its embedding's product with a direction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from sparsecbm._base.errors import InputError
from sparsecbm._base.parts import MAPS
from sparsecbm._base.progress import ProgressBar
from sparsecbm.encoders.opening import Seeing


@dataclass(frozen=True, eq=False)
class ImageMaps:
    """What the places of pictures add to their scores: ``scores = maps.sum((2, 3)) + rest``.

    Attributes
    ----------
    maps : ndarray of float64, shape (n, m, h, w)
        Of n pictures and m directions, over what the encoder sees of each picture (see `seen`).
    rest : ndarray of float64, shape (n, m)
        What belongs to no place.
    error : ndarray of float64, shape (n, m), or None
        Of integrated gradients: by how much the sum of a map misses the difference to the blank picture.
    """

    maps: NDArray[np.float64]
    rest: NDArray[np.float64]
    error: NDArray[np.float64] | None = None

    @property
    def scores(self) -> NDArray[np.float64]:
        """Products of the unit rows with the directions, shape (n, m)."""
        return self.maps.sum((2, 3)) + self.rest


def map_images(
    encoder: Seeing,
    images: Sequence[Image.Image],
    directions: ArrayLike,
    *,
    method: str = "exact",
    batch_size: int | None = None,
    progress: bool | None = None,
    **options: Any,
) -> ImageMaps:
    """Map what each place of pictures adds to the products of their unit rows with directions.

    Parameters
    ----------
    encoder : Encoder
    images : sequence of PIL.Image.Image, length n
    directions : array_like, shape (m, d)
        Concept embeddings, or the weights of units.
    method : {"exact", "gradients", "occlusion"}
        "exact" opens the encoder; the others take any, and need captum (``pip install "sparsecbm[maps]"``).
    batch_size : int, optional
        Pictures at a time; the encoder's default where None.
    progress : bool, optional
        Show a progress bar; None shows it on a terminal.
    **options
        Of the method: `layers` (exact), `steps` and `cells` (gradients), `cells` (occlusion).

    Returns
    -------
    ImageMaps

    Raises
    ------
    InputError
        If the directions do not fit, or the encoder has no exact maps.
    """
    rows = np.atleast_2d(np.asarray(directions, dtype=np.float32))
    if rows.ndim != 2 or rows.shape[1] != encoder.embed_dim or not np.isfinite(rows).all():
        raise InputError(
            f"directions have shape {rows.shape}: expected (m, {encoder.embed_dim}), finite, as encoder "
            f"{encoder.spec!r} embeds"
        )
    size = encoder._batch_size(batch_size)
    work = MAPS.make(method, encoder, torch.tensor(rows, device=encoder.device), **options)
    parts: list[ImageMaps] = []
    with ProgressBar("Mapping pictures", len(images), progress) as bar:
        for start in range(0, len(images), size):
            batch = [images[i].convert("RGB") for i in range(start, min(start + size, len(images)))]
            parts.append(work(batch))
            bar.update(len(batch))
    if not parts:
        raise InputError("no pictures to map: expected at least one")
    if len({part.maps.shape[2:] for part in parts}) > 1:
        raise InputError("the encoder gives these pictures grids of several shapes: map them one at a time")
    errors = [part.error for part in parts if part.error is not None]
    return ImageMaps(
        np.concatenate([part.maps for part in parts]),
        np.concatenate([part.rest for part in parts]),
        np.concatenate(errors) if errors else None,
    )


def of_one_colour(image: Image.Image) -> Image.Image:
    """The blank that a picture is compared with: its own mean colour, everywhere."""
    red, green, blue = np.asarray(image).reshape(-1, 3).mean(0).round().astype(int).tolist()
    return Image.new("RGB", image.size, (red, green, blue))


def on_device(encoder: Seeing, images: list[Image.Image]) -> dict[str, torch.Tensor]:
    """Inputs of one batch, where the model is."""
    return {name: tensor.to(encoder.device) for name, tensor in encoder._image_inputs(images).items()}


def pixels_of(encoder: Seeing, inputs: dict[str, torch.Tensor]) -> str:
    """Name of the input (n, 3, height, width) that holds the pixels.

    Raises
    ------
    InputError
        If the encoder takes its pictures in another form.
    """
    for name, tensor in inputs.items():
        if tensor.ndim == 4 and tensor.is_floating_point() and tensor.shape[1] == 3:
            return name
    raise InputError(f"encoder {encoder.spec!r} takes no plain pixels: use method='exact'")


def unit_scores(features: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Products (n, m) of rows, made of length one, with directions (m, d)."""
    return torch.nn.functional.normalize(features.float(), dim=1) @ directions.T


def seen(encoder: Seeing, image: Image.Image) -> Image.Image:
    """What the encoder sees of a picture, cut and scaled: what a map lies over."""
    image = image.convert("RGB")
    flat = [Image.new("RGB", image.size, (level,) * 3) for level in (0, 255)]
    inputs = encoder._image_inputs([image, *flat])
    if "spatial_shapes" in inputs:  # encoders that keep a picture's proportions see all of it
        return image
    picture, black, white = inputs[pixels_of(encoder, dict(inputs))].float()
    # Whatever the normalisation, it is affine and the same for every pixel of a channel.
    low, high = (flat.mean((1, 2), keepdim=True) for flat in (black, white))
    shown = ((picture - low) / (high - low)).clamp(0, 1).mul(255).round().byte()
    return Image.fromarray(shown.permute(1, 2, 0).contiguous().numpy())
