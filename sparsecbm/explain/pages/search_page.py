"""The page of a search: methods side by side, and pictures with the concepts that decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm.explain.html import environment
from sparsecbm.explain.ledger import Ledgers
from sparsecbm.explain.mistakes import check_labels
from sparsecbm.explain.pages.examples import Example, make_example
from sparsecbm.explain.pages.report import Figure

if TYPE_CHECKING:
    from PIL.Image import Image

_LISTED = 60


@dataclass(frozen=True)
class MethodRow:
    """One line of the comparison.

    Attributes
    ----------
    name : str
    accuracy : float or None
        In [0, 1]; None where the pictures have no labels.
    seconds : float
        Fitting and scoring all pictures, embeddings given.
    note : str
        What it uses.
    main : bool
        Whether it is the method that the page explains.
    meaningless : float or None
        What the same method reaches on as many meaningless directions in place of the concepts, in [0, 1].
    """

    name: str
    accuracy: float | None
    seconds: float
    note: str = ""
    main: bool = False
    meaningless: float | None = None


@dataclass(frozen=True)
class UsedConcept:
    """A concept, the share of explained pictures it is named in, and its mean contribution where it is."""

    name: str
    share: float
    mean: float


@dataclass(frozen=True)
class SearchPage:
    """Everything the page shows; made by `build_search_page`."""

    title: str
    summary: str
    figures: Sequence[Figure]
    methods: Sequence[MethodRow]
    best: float
    right: Sequence[Example]
    wrong: Sequence[Example]
    concepts: Sequence[UsedConcept]
    facts: Mapping[str, str]
    n_explained: int
    version: str


def build_search_page(
    ledgers: Ledgers,
    *,
    title: str,
    summary: str,
    methods: Sequence[MethodRow],
    figures: Sequence[Figure] = (),
    facts: Mapping[str, str] | None = None,
    labels: ArrayLike | None = None,
    picture: Callable[[int], Image | None] | None = None,
    lines: int = 8,
) -> SearchPage:
    """Gather the page from the ledgers of the explained pictures.

    Parameters
    ----------
    ledgers : Ledgers
        Of the pictures to show, explaining the class each was given.
    title, summary : str
    methods : sequence of MethodRow
    figures : sequence of Figure
    facts : mapping of str to str, optional
    labels : array_like of int, shape (n,), optional
        True class of each picture.
    picture : callable, optional
        Index -> picture to show, or None.
    lines : int
        Ledger lines shown by name.

    Raises
    ------
    InputError
        If labels are not one class index a picture.
    """
    from sparsecbm import __version__

    n = len(ledgers)
    truth = None if labels is None else check_labels(ledgers, labels)
    show = picture or (lambda _: None)
    cards = [make_example(ledgers, i, None if truth is None else int(truth[i]), show(i), lines) for i in range(n)]
    return SearchPage(
        title=title,
        summary=summary,
        figures=figures,
        methods=methods,
        best=max((row.accuracy or 0.0 for row in methods), default=0.0) or 1.0,
        right=[card for card in cards if card.correct is not False],
        wrong=[card for card in cards if card.correct is False],
        concepts=_used(ledgers),
        facts=facts or {},
        n_explained=n,
        version=__version__,
    )


def render_search_page(page: SearchPage) -> str:
    """Return the page: one HTML document with inline style and pictures, no script and no request."""
    return environment().get_template("search.html.j2").render(page=page)


def _used(ledgers: Ledgers) -> list[UsedConcept]:
    if not len(ledgers):
        return []
    active = ledgers.activations != 0
    made = ledgers.activations * ledgers.weights[ledgers.targets]
    share = active.mean(axis=0)
    mean = np.where(active, made, 0.0).sum(axis=0) / np.maximum(active.sum(axis=0), 1)
    order = [j for j in np.argsort(-share, kind="stable")[:_LISTED] if share[j] > 0]
    return [UsedConcept(ledgers.concepts[j], float(share[j]), float(mean[j])) for j in order]
