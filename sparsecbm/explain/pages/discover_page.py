"""The page of concepts found in pictures: top pictures, name, confidence and share of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sparsecbm.explain.pages.base import Document, Figure
from sparsecbm.explain.pages.pictures import InlinePicture, inline_picture

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["DiscoverPage", "Figure", "Found"]

_SIDE = 96


@dataclass(frozen=True)
class Found:
    """A concept that was found.

    Attributes
    ----------
    name : str
    share : float
        Of the pictures, in [0, 1], that use it.
    pictures : tuple of int
        Those that use it most.
    word, named, confidence : str, bool, float, or None
        The best word, whether it is clearly better than chance, and how sure that is; None without a vocabulary.
    auc, chance : float or None
        How well the word's own score tells the pictures that use it from all others; the same of a unit that means
        nothing.
    parent : str or None
        A more general concept that is there wherever this one is.
    twins : sequence of str
        Concepts that say the same.
    """

    name: str
    share: float
    pictures: tuple[int, ...]
    word: str | None = None
    named: bool | None = None
    confidence: float | None = None
    auc: float | None = None
    chance: float | None = None
    parent: str | None = None
    twins: Sequence[str] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class DiscoverPage(Document):
    """The page of `concepts discover`.

    Parameters
    ----------
    found : sequence of Found
    picture : callable, optional
        Index -> picture to show.
    **others
        See `Document`.
    """

    found: Sequence[Found]
    picture: Callable[[int], Image] | None = None

    template = "discover.html.j2"

    @cached_property
    def _inline(self) -> dict[int, InlinePicture]:
        return {}

    def inline(self, i: int) -> Any:
        """Picture `i`, small, or None."""
        if self.picture is None:
            return None
        if i not in self._inline:
            image = self.picture(i).convert("RGB")
            image.thumbnail((_SIDE, _SIDE))
            self._inline[i] = inline_picture(image, _SIDE)
        return self._inline[i]
