"""Spurious cues: concepts that a model leans on, and that do not hold outside its training pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm.explain.ledger import Ledgers
from sparsecbm.explain.mistakes import check_labels

if TYPE_CHECKING:
    import pandas as pd

FloatArray = NDArray[np.float64]
LOOSENED = 0.25
"""A concept whose tie to the classes falls by this much from training to test does not hold."""
LEVEL = 0.01
"""Familywise error of the sign test."""


class Cue(NamedTuple):
    """How one concept serves the model on images it was not trained on.

    Attributes
    ----------
    concept : str
    tie_train, tie_test : float
        Correlation ratio in [0, 1]: share of the variance of the activation that the true class explains. NaN where
        there are no training images to compare with.
    fixed, broken : int
        Test images that would become right, or wrong, if the model did not use the concept.
    p : float
        Two-sided sign test of fixed against broken, times the number of concepts used (Bonferroni), at most 1.
    found : bool
        Whether it is called a spurious cue; see `find_cues`.
    """

    concept: str
    tie_train: float
    tie_test: float
    fixed: int
    broken: int
    p: float
    found: bool


@dataclass(frozen=True, eq=False)
class CueReport:
    """What `find_cues` saw.

    Attributes
    ----------
    cues : tuple of Cue
        Concepts found, then the others, by what suppressing them would do.
    accuracy : float
        On the test images.
    accuracy_without : float
        On the same images with all the found concepts suppressed.
    n_images : int
    compared : bool
        Whether training images were there to compare with.
    """

    cues: tuple[Cue, ...]
    accuracy: float
    accuracy_without: float
    n_images: int
    compared: bool

    @property
    def found(self) -> list[str]:
        """Names of the spurious cues."""
        return [cue.concept for cue in self.cues if cue.found]

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas table, a row a concept."""
        import pandas as pd

        return pd.DataFrame(self.cues, columns=list(Cue._fields))

    def __repr__(self) -> str:
        """Name what was found."""
        what = ", ".join(self.found) or "no spurious cue"
        return f"<CueReport on {self.n_images} images: {what}>"


def find_cues(
    test: Ledgers, labels: ArrayLike, train: Ledgers | None = None, train_labels: ArrayLike | None = None
) -> CueReport:
    """Look for concepts that do not keep in the test what they promised in training.

    A concept is called a spurious cue in two cases. Its activation tells the classes apart in training, and in the test
    much less (by `LOOSENED` of the correlation ratio), and the model leans on it: leaving it out changes predictions,
    and does not make more of them wrong than right. Or, whatever training says: leaving it out makes significantly more
    predictions right than wrong (sign test at `LEVEL`, corrected for the number of concepts).

    Parameters
    ----------
    test : Ledgers
        Of labelled images that the model was not trained on.
    labels : array_like of int, shape (n,)
        Their true class indices.
    train, train_labels : Ledgers and array_like, optional
        The same of training images.

    Returns
    -------
    CueReport
        Choosing and judging on the same images flatters: measure the gain on others (`ModelEdits.measure`).

    Raises
    ------
    InputError
        If labels do not fit.
    """
    y = check_labels(test, labels)
    used = np.flatnonzero((test.weights != 0).any(axis=0) & (test.activations != 0).any(axis=0))
    tie_test = correlation_ratio(test.activations, y)
    tie_train = np.full(len(test.concepts), np.nan)
    if train is not None and train_labels is not None:
        tie_train = correlation_ratio(train.activations, check_labels(train, train_labels))
    right = test.scores.argmax(axis=1) == y
    made = []
    for j in used.tolist():
        fixed, broken = _without(test, y, right, j)
        p = min(1.0, _sign_test(fixed, broken) * len(used))
        loosened = tie_train[j] - tie_test[j] >= LOOSENED  # False for NaN
        harmful = fixed > broken and p < LEVEL
        leant_on = fixed + broken > 0 and fixed >= broken
        made.append(
            Cue(
                test.concepts[j],
                float(tie_train[j]),
                float(tie_test[j]),
                fixed,
                broken,
                p,
                bool(harmful or (loosened and leant_on)),
            )
        )
    made.sort(key=lambda cue: (not cue.found, cue.broken - cue.fixed, -np.nan_to_num(cue.tie_train - cue.tie_test)))
    found = [test.concepts.index(cue.concept) for cue in made if cue.found]
    without = test.scores - test.activations[:, found] @ test.weights[:, found].T
    after = without.argmax(axis=1) == y
    compared = bool(np.isfinite(tie_train).any())
    return CueReport(tuple(made), float(right.mean()), float(after.mean()), len(y), compared)


def correlation_ratio(activations: ArrayLike, labels: ArrayLike) -> FloatArray:
    """Share of each concept's variance that the class explains (eta squared), shape (M,), in [0, 1]; 0 if constant."""
    a, y = np.asarray(activations, dtype=np.float64), np.asarray(labels)
    grand = a.mean(axis=0)
    total = ((a - grand) ** 2).sum(axis=0)
    between = np.zeros(a.shape[1])
    for c in np.unique(y):
        rows = y == c
        between += rows.sum() * (a[rows].mean(axis=0) - grand) ** 2
    return np.divide(between, total, out=np.zeros_like(total), where=total > 1e-12 * max(total.max(), 1e-300))


def _without(ledgers: Ledgers, labels: NDArray[np.int64], right: NDArray[np.bool_], j: int) -> tuple[int, int]:
    """How many images turn right and wrong when concept j is left out: only those where it is active can."""
    rows = np.flatnonzero(ledgers.activations[:, j])
    left = ledgers.scores[rows] - ledgers.activations[rows, j, None] * ledgers.weights[:, j]
    now = left.argmax(axis=1) == labels[rows]
    return int((now & ~right[rows]).sum()), int((~now & right[rows]).sum())


def _sign_test(fixed: int, broken: int) -> float:
    if fixed + broken == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(fixed, fixed + broken).pvalue)
