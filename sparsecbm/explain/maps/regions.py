"""What happens when a region of a picture is painted over, beside what the map said would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm.explain.ledger import Ledger, Ledgers

if TYPE_CHECKING:
    from PIL.Image import Image

FloatArray = NDArray[np.float64]


def blanked(picture: Image, region: ArrayLike) -> Image:
    """Paint a region over with the mean colour of what is left of the picture (or of all, if nothing is).

    Parameters
    ----------
    picture : PIL.Image.Image
    region : array_like of bool, shape (h, w)
        Over the whole picture, of any resolution. Its negation keeps the region and blanks the rest.

    Raises
    ------
    InputError
        If the region is not two-dimensional.
    """
    from PIL import Image

    pixels = np.array(picture.convert("RGB"))
    where = covered(region, (pixels.shape[0], pixels.shape[1])) >= 0.5
    pixels[where] = (pixels if where.all() else pixels[~where]).reshape(-1, 3).mean(0).round()
    return Image.fromarray(pixels)


@dataclass(frozen=True)
class Effect:
    """What a line of a ledger loses with a region: as its map says, and as it is; `error` is the difference."""

    name: str
    before: float
    said: float
    happened: float

    @property
    def error(self) -> float:
        """By how much the map is wrong."""
        return self.happened - self.said


@dataclass(frozen=True, eq=False)
class RegionEffect:
    """A picture with a region blanked.

    Attributes
    ----------
    picture : PIL.Image.Image
        As it looks then.
    before, after : Ledger
        Of the same class.
    lines : tuple of Effect
        Of every concept that was active, largest loss first.
    score : Effect
    """

    picture: Image
    before: Ledger
    after: Ledger
    lines: tuple[Effect, ...]
    score: Effect

    def to_text(self) -> str:
        """One line a concept: what the map said, what happened, and the map's error."""
        width = max(len(effect.name) for effect in (*self.lines, self.score))
        return "\n".join(
            f"{effect.name:<{width}}  {effect.before:+.2f}: the map said {-effect.said:+.2f}, "
            f"it was {-effect.happened:+.2f} (error {effect.error:+.2f})"
            for effect in (*self.lines, self.score)
        )


def region_effect(
    explain: Callable[[Sequence[Image]], Ledgers], picture: Image, region: ArrayLike, target: str | None = None
) -> RegionEffect:
    """Blank a region of a picture, and compare what its lines lose with what their maps say.

    Parameters
    ----------
    explain : callable
        Pictures to ledgers with maps: ``lambda pictures: model.explain_images(pictures, maps=True)``.
    picture : PIL.Image.Image
        What the encoder sees of it is what the region lies over.
    region : array_like of bool, shape (h, w)
        Of any resolution; negate it to keep the region alone.
    target : str, optional
        Class; None takes the one predicted before.

    Raises
    ------
    InputError
        If the ledgers have no maps.
    """
    before = explain([picture]).ledger(0, target)
    if before.maps is None:
        raise InputError("the ledger has no maps: explain with maps=True")
    changed = blanked(before.maps.picture or picture, region)
    after = explain([changed]).ledger(0, before.target)
    place = before.place()
    share = covered(region, (place.grid.shape[0], place.grid.shape[1]))
    now = {entry.concept: entry.contribution for entry in after.entries}
    lines = [
        Effect(
            entry.concept,
            entry.contribution,
            float((before.place(entry.concept).grid * share).sum()),
            entry.contribution - now.get(entry.concept, 0.0),
        )
        for entry in before.entries
        if entry.concept in before.maps.concepts
    ]
    lines.sort(key=lambda effect: -abs(effect.happened))
    score = Effect("score", before.score, float((place.grid * share).sum()), before.score - after.score)
    return RegionEffect(changed, before, after, tuple(lines), score)


def covered(region: ArrayLike, shape: tuple[int, int]) -> FloatArray:
    """Share of every cell of a grid of the given shape that a region covers."""
    from PIL import Image

    flags = np.asarray(region, dtype=np.float32)
    if flags.ndim != 2:
        raise InputError(f"a region has shape {flags.shape}: expected (rows, columns) of flags")
    scaled = Image.fromarray(flags).resize((shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(scaled, dtype=np.float64)
