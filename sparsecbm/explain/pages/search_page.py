"""The page of a search: methods side by side, and pictures with the concepts that decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from sparsecbm.explain.pages.base import Example, Page

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


class UsedConcept(NamedTuple):
    """A concept, the share of explained pictures it is named in, and its mean contribution where it is."""

    name: str
    share: float
    mean: float


@dataclass(frozen=True, eq=False, kw_only=True)
class SearchPage(Page):
    """The page of a search, whose ledgers are those of the pictures to show.

    Parameters
    ----------
    methods : sequence of MethodRow
    **others
        See `Page`.
    """

    methods: Sequence[MethodRow]

    template = "search.html.j2"

    @cached_property
    def _examples(self) -> list[Example]:
        return [self.example(i) for i in range(len(self.ledgers))]

    @property
    def right(self) -> list[Example]:
        """Pictures that are not known to be wrong."""
        return [example for example in self._examples if example.correct is not False]

    @property
    def wrong(self) -> list[Example]:
        """Pictures that are."""
        return [example for example in self._examples if example.correct is False]

    @property
    def concepts(self) -> list[UsedConcept]:
        """Concepts that the ledgers name, the most frequent first."""
        ledgers = self.ledgers
        active = ledgers.activations != 0
        made = ledgers.activations * ledgers.weights[ledgers.targets]
        count = active.sum(axis=0)
        share, mean = count / max(len(ledgers), 1), np.where(active, made, 0.0).sum(axis=0) / np.maximum(count, 1)
        order = [j for j in np.argsort(-share, kind="stable")[:_LISTED] if share[j] > 0]
        return [UsedConcept(ledgers.concepts[j], float(share[j]), float(mean[j])) for j in order]
