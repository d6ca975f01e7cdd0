"""Explained pictures as the pages show them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sparsecbm.explain.html import Layout, lay_out
from sparsecbm.explain.interventions.counterfactual import Counterfactual
from sparsecbm.explain.ledger import Ledger, Ledgers
from sparsecbm.explain.pages.pictures import InlinePicture, inline_picture

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Example:
    """An explained picture.

    `rival` answers, for a wrong prediction, why the true class lost; `turned` what it takes to change the prediction.
    """

    ledger: Ledger
    layout: Layout
    picture: InlinePicture | None
    alt: str
    correct: bool | None
    rival: Layout | None = None
    turned: Counterfactual | None = None


def make_example(ledgers: Ledgers, i: int, truth: int | None, image: Image | None, lines: int) -> Example:
    """Gather what a page shows of picture `i`; `truth` is its class, if known."""
    ledger = ledgers[i]
    target = int(ledgers.targets[i])
    if truth is not None and ledger.truth is None:
        ledger = replace(ledger, truth=ledgers.classes[truth])
    wrong = truth is not None and target != truth
    alt = f"{ledger.source or f'image {i}'}, predicted {ledger.target}"
    return Example(
        ledger=ledger,
        layout=lay_out(ledger.lines(lines)),
        picture=None if image is None else inline_picture(image),
        alt=f"{alt}, truly {ledger.truth}" if wrong else alt,
        correct=None if truth is None else not wrong,
        rival=lay_out(ledgers.ledger(i, target, against=truth).lines(lines)) if wrong else None,
    )
