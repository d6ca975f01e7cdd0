"""The maps of a picture's active concepts, in the units of its activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError, unknown

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = NDArray[np.float64]


class ScoreMaps(Protocol):
    """Maps (n, m, h, w) and scores (n, m); see `sparsecbm.encoders.maps.ImageMaps`."""

    @property
    def maps(self) -> FloatArray: ...
    @property
    def scores(self) -> FloatArray: ...


class MapsPictures(Protocol):
    """What is needed of an encoder; `sparsecbm.encoders.Encoder` has it."""

    def map_images(self, images: Sequence[Image], directions: NDArray[Any], **options: Any) -> ScoreMaps: ...
    def seen(self, image: Image) -> Image: ...


@dataclass(frozen=True, eq=False)
class PictureMaps:
    """Where one picture's active concepts are seen: ``activation = grid.sum() + rest`` for each.

    Attributes
    ----------
    concepts : tuple of str
        The a active ones.
    grids : ndarray of float64, shape (a, h, w)
        What each cell of the picture adds to each activation.
    rest : ndarray of float64, shape (a,)
        What has no place: biases, the class token, and what the encoder says of a picture of one colour.
    picture : PIL.Image.Image or None
        What the encoder sees, which the grids lie over.
    """

    concepts: tuple[str, ...]
    grids: FloatArray
    rest: FloatArray
    picture: Image | None = None

    def of(self, concept: str) -> tuple[FloatArray, float]:
        """Return grid (h, w) and rest of one concept's activation; zeros for one that is not active."""
        if concept in self.concepts:
            place = self.concepts.index(concept)
            return self.grids[place], float(self.rest[place])
        return np.zeros(self.grids.shape[1:]), 0.0


def map_pictures(
    encoder: MapsPictures,
    images: Sequence[Image],
    activations: FloatArray,
    weight: NDArray[np.floating],
    bias: NDArray[np.floating],
    concepts: Sequence[str],
    *,
    only: Sequence[str] | None = None,
    batch: int = 64,
    **options: Any,
) -> list[PictureMaps]:
    """Map the active concepts of pictures.

    Parameters
    ----------
    encoder : Encoder
        That made the embeddings.
    images : sequence of PIL.Image.Image, length n
    activations : ndarray of shape (n, M)
    weight, bias : ndarray of shape (M, d), (M,)
        Of the units: ``unit = weight . embedding + bias``. A gate is held at its value: what it makes of a unit, it
        makes of every part of it.
    concepts : sequence of str
        M names.
    only : sequence of str, optional
        Concepts to map; all active ones where None.
    batch : int
        Pictures mapped at a time: their concepts are mapped together.
    **options
        Of the maps, such as `method`; see `sparsecbm.encoders.maps.map_images`.

    Raises
    ------
    InputError
        If a name in `only` is unknown, there is not one picture a row, or the encoder has no such maps.
    """
    if len(images) != len(activations):
        raise InputError(f"{len(images)} pictures given for {len(activations)} rows of activations: expected as many")
    wanted = np.ones(len(concepts), dtype=bool)
    for name in only or ():
        if name not in concepts:
            raise unknown("concept", name, concepts)
    if only is not None:
        wanted = np.isin(concepts, list(only))
    made = []
    for start in range(0, len(images), batch):
        rows = np.asarray(activations[start : start + batch], dtype=np.float64)
        some = [images[i] for i in range(start, start + len(rows))]
        used = np.flatnonzero((rows != 0).any(0) & wanted)
        # Where nothing is active a map has a shape all the same.
        found = encoder.map_images(some, weight[used] if len(used) else weight[:1], progress=False, **options)
        units = found.scores + bias[used if len(used) else slice(0, 1)]
        for i, image in enumerate(some):
            active = np.flatnonzero(rows[i, used])
            values, unit = rows[i, used[active]], units[i, active]
            held = np.divide(values, unit, out=np.zeros_like(values), where=np.abs(unit) > 1e-9)
            grids = found.maps[i, active] * held[:, None, None]
            names = tuple(concepts[j] for j in used[active])
            made.append(PictureMaps(names, grids, values - grids.sum((1, 2)), encoder.seen(image)))
    return made
