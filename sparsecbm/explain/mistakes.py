"""Error analysis: which classes are taken for which and by what concepts; right answers for wrong reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm.explain.ledger import Ledger, Ledgers


@dataclass(frozen=True, eq=False)
class Confusion:
    """Images of one class taken for another.

    Attributes
    ----------
    truth, predicted : str
    rows : ndarray of int64
        The images.
    share : float
        Of the images of the true class, in [0, 1].
    ledger : Ledger
        Mean over these images of "why `predicted` and not `truth`": its largest positive lines caused the confusion.
    """

    truth: str
    predicted: str
    rows: NDArray[np.int64]
    share: float
    ledger: Ledger

    def __len__(self) -> int:
        return len(self.rows)

    def causes(self, k: int = 3) -> list[tuple[str, float]]:
        """Return the concepts that pull towards the wrong class, with their mean contributions, largest first.

        Concepts that pull less than a twentieth as much as the first are left out.
        """
        pulling = [(e.concept, e.contribution) for e in self.ledger.entries if e.contribution > 0]
        return [cause for cause in pulling[:k] if cause[1] >= 0.05 * pulling[0][1]]


def confusions(ledgers: Ledgers, labels: ArrayLike, k: int | None = 20) -> list[Confusion]:
    """Return the most frequent confusions, each with the concepts that caused it.

    Parameters
    ----------
    ledgers : Ledgers
        Of the images.
    labels : array_like of int, shape (n,)
        True class indices.
    k : int, optional
        At most so many; None returns all.

    Raises
    ------
    InputError
        If labels do not fit.
    """
    truth, predicted = check_labels(ledgers, labels), ledgers.scores.argmax(axis=1)
    wrong = np.flatnonzero(truth != predicted)
    count = len(ledgers.classes)
    pairs, sizes = np.unique(truth[wrong] * count + predicted[wrong], return_counts=True)
    of_class = np.bincount(truth, minlength=count)
    made = []
    for place in np.argsort(-sizes, kind="stable")[:k]:
        t, p = divmod(int(pairs[place]), count)
        rows = wrong[(truth[wrong] == t) & (predicted[wrong] == p)]
        made.append(
            Confusion(
                truth=ledgers.classes[t],
                predicted=ledgers.classes[p],
                rows=rows,
                share=len(rows) / int(of_class[t]),
                ledger=ledgers.select(rows).mean(p, against=t),
            )
        )
    return made


class WrongReason(NamedTuple):
    """A right answer that rests on concepts which the picture does not show.

    Attributes
    ----------
    row : int
        The image.
    absent : list of (str, float)
        The absent concepts that speak for the class and against the runner-up, with their contributions.
    share : float
        Of the positive evidence for the class against the runner-up, in [0, 1].
    decisive : bool
        Whether the runner-up would win without them.
    """

    row: int
    absent: list[tuple[str, float]]
    share: float
    decisive: bool


def right_for_absent(
    ledgers: Ledgers, labels: ArrayLike, truth: ArrayLike, known: Sequence[int] | None = None
) -> list[WrongReason]:
    """Return images that are right for concepts which truth says are absent, the worst first.

    Parameters
    ----------
    ledgers : Ledgers
        Of the images.
    labels : array_like of int, shape (n,)
        True class indices.
    truth : array_like of bool, shape (n, len(known))
        Which concepts each picture shows.
    known : sequence of int, optional
        Concept columns that `truth` tells about; by default all.

    Returns
    -------
    list of WrongReason
        Right images with at least one absent concept among the evidence for their class against the runner-up; the
        decisive ones first, then by share.

    Raises
    ------
    InputError
        If labels or truth do not fit.
    """
    y = check_labels(ledgers, labels)
    columns = np.arange(len(ledgers.concepts)) if known is None else np.asarray(known, dtype=np.int64)
    shown = np.asarray(truth, dtype=bool)
    if shown.shape != (len(ledgers), len(columns)):
        raise InputError(f"truth has shape {shown.shape}: expected ({len(ledgers)}, {len(columns)})")
    scores = ledgers.scores
    made = []
    for i in np.flatnonzero(scores.argmax(axis=1) == y):
        others = scores[i].copy()
        others[y[i]] = -np.inf
        rival = int(others.argmax())
        lead = ledgers.activations[i] * (ledgers.weights[y[i]] - ledgers.weights[rival])
        positive = float(lead[lead > 0].sum())
        absent = columns[(lead[columns] > 0) & ~shown[i]]
        if not len(absent):
            continue
        absent = absent[np.argsort(-lead[absent], kind="stable")]
        without = scores[i] - ledgers.weights[:, absent] @ ledgers.activations[i, absent]
        decisive = bool(without.argmax() != y[i])
        named = [(ledgers.concepts[j], float(lead[j])) for j in absent]
        made.append(WrongReason(int(i), named, float(lead[absent].sum()) / positive, decisive))
    return sorted(made, key=lambda one: (not one.decisive, -one.share))


def check_labels(ledgers: Ledgers, labels: ArrayLike) -> NDArray[np.int64]:
    """Return labels as class indices, one an image.

    Raises
    ------
    InputError
        If they are not.
    """
    y, n, k = np.asarray(labels), len(ledgers), len(ledgers.classes)
    if y.shape != (n,) or y.dtype.kind not in "iu" or (n and (y.min() < 0 or y.max() >= k)):
        raise InputError(f"labels: expected {n} class indices in 0..{k - 1}, got shape {y.shape}, {y.dtype}")
    return y.astype(np.int64)
