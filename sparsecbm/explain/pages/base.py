"""What every page is made of: headline numbers, facts, and explained pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm.explain.html import Layout, environment, lay_out
from sparsecbm.explain.interventions.counterfactual import Counterfactual
from sparsecbm.explain.ledger import Ledger, Ledgers
from sparsecbm.explain.maps.picture_maps import PictureMaps
from sparsecbm.explain.mistakes import check_labels
from sparsecbm.explain.pages.pictures import InlinePicture, inline_picture

if TYPE_CHECKING:
    from PIL.Image import Image

LINES = 8
"""Ledger lines shown by name."""


@dataclass(frozen=True)
class Figure:
    """One number of the summary: value as shown, and what it means in a few words."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Example:
    """An explained picture.

    `rival` answers, for a wrong prediction, why the true class lost; `turned` what it takes to change the prediction;
    `also` names what else is said of it, where classes do not exclude each other.
    """

    ledger: Ledger
    layout: Layout
    picture: InlinePicture | None
    alt: str
    correct: bool | None
    rival: Layout | None = None
    turned: Counterfactual | None = None
    also: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Document:
    """A page.

    Parameters
    ----------
    title, summary : str
        Heading and one sentence under it.
    figures : sequence of Figure
        Headline numbers.
    facts : mapping of str to str
        How it was made.
    notes : sequence of str
        What to know before reading.
    """

    title: str
    summary: str
    figures: Sequence[Figure] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    template: ClassVar[str]

    @property
    def version(self) -> str:
        """Of the package that made the page."""
        from sparsecbm import __version__

        return __version__

    def render(self) -> str:
        """Return the page: one HTML document with inline style, script and pictures, and no request."""
        return environment().get_template(self.template).render(page=self)


@dataclass(frozen=True, eq=False, kw_only=True)
class Page(Document):
    """A page about pictures.

    Parameters
    ----------
    ledgers : Ledgers
        Of the pictures, explaining the predicted class of each.
    title, summary, figures, facts, notes
        See `Document`.
    labels : array_like of int, shape (n,), optional
        True class of each picture; without it nothing is called right or wrong.
    picture : callable, optional
        Index -> picture to show, or None.
    maps : callable, optional
        Index -> where in the picture its concepts are seen, or None.

    Raises
    ------
    InputError
        If labels are not one class index a picture.
    """

    ledgers: Ledgers = field(kw_only=False)
    labels: ArrayLike | None = None
    picture: Callable[[int], Image | None] | None = None
    maps: Callable[[int], PictureMaps | None] | None = None

    def __post_init__(self) -> None:
        _ = self.truth_of  # labels that do not fit are refused here

    @cached_property
    def truth_of(self) -> NDArray[np.int64] | None:
        """True class of each picture, where labels are given."""
        return None if self.labels is None else check_labels(self.ledgers, self.labels)

    def example(self, i: int) -> Example:
        """Gather what the page shows of picture `i`."""
        ledgers, ledger, target = self.ledgers, self.ledgers[i], int(self.ledgers.targets[i])
        truth = None if self.truth_of is None else int(self.truth_of[i])
        image = None if self.picture is None else self.picture(i)
        if truth is not None and ledger.truth is None:
            ledger = replace(ledger, truth=ledgers.classes[truth])
        if image is not None and self.maps is not None:
            ledger = replace(ledger, maps=self.maps(i))
            seen = None if ledger.maps is None else ledger.maps.picture
            # An encoder that cuts or squeezes sees less than the picture: the map lies over what it sees.
            if seen is not None and abs(seen.width * image.height - seen.height * image.width) > max(image.size):
                image = seen
        wrong = truth is not None and target != truth
        alt = f"{ledger.source or f'image {i}'}, predicted {ledger.target}"
        return Example(
            ledger=ledger,
            layout=lay_out(ledger.lines(LINES)),
            picture=None if image is None else inline_picture(image),
            alt=f"{alt}, truly {ledger.truth}" if wrong else alt,
            correct=None if truth is None else not wrong,
            rival=lay_out(ledgers.ledger(i, target, against=truth).lines(LINES)) if wrong else None,
        )


def in_turns(rows: NDArray[np.int64], groups: NDArray[np.int64]) -> list[int]:
    """Order rows so that every group has its turn."""
    seen: dict[int, int] = {}
    turns = []
    for place, i in enumerate(rows.tolist()):
        turn = seen[int(groups[i])] = seen.get(int(groups[i]), -1) + 1
        turns.append((turn, place, i))
    return [i for _, _, i in sorted(turns)]
