"""What the truth of a concept is worth in activations, and how unsure a model is of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.logistic import logistic_columns, sigmoid

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ConceptTruth:
    """The activations that stand for "there" and "not there", learned from images whose truth is known.

    An activation is no probability, so a true value has to be translated: here by the mean activation of the training
    images that show the concept, and of those that do not, the values the head has learned its weights on (after the
    percentiles of Koh et al. 2020, arXiv 2007.04612, section 4.3).

    Attributes
    ----------
    present, absent : ndarray of float64, shape (M,)
        NaN for a concept whose truth is not known.
    """

    present: FloatArray
    absent: FloatArray

    @classmethod
    def fit(cls, activations: ArrayLike, truth: ArrayLike, known: Sequence[int] | None = None) -> ConceptTruth:
        """Learn both values from training images.

        Parameters
        ----------
        activations : array_like, shape (n, M)
        truth : array_like of bool, shape (n, len(known))
        known : sequence of int, optional
            Columns of `activations` that the columns of `truth` tell about; by default all.

        Raises
        ------
        InputError
            If shapes do not fit.
        """
        a, t = np.asarray(activations, dtype=np.float64), np.asarray(truth, dtype=bool)
        columns = np.arange(a.shape[1]) if known is None else np.asarray(known, dtype=np.int64)
        if a.ndim != 2 or t.shape != (len(a), len(columns)):
            raise InputError(
                f"activations {a.shape}, truth {t.shape} and {len(columns)} known concepts do not fit: "
                "expected (n, M) and (n, known)"
            )
        present, absent = np.full(a.shape[1], np.nan), np.full(a.shape[1], np.nan)
        counts = t.sum(axis=0)
        some, part = a[:, columns], t.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):  # a concept that is always or never there stays unknown
            present[columns] = (some * part).sum(axis=0) / counts
            absent[columns] = (some * (1 - part)).sum(axis=0) / (len(a) - counts)
        unknown_ = ~(np.isfinite(present) & np.isfinite(absent))
        present[unknown_] = absent[unknown_] = np.nan
        return cls(present, absent)

    @property
    def known(self) -> NDArray[np.int64]:
        """Columns whose truth can be translated."""
        return np.flatnonzero(np.isfinite(self.present))

    def values(self, truth: ArrayLike, known: Sequence[int] | None = None) -> FloatArray:
        """Return the activations of images with this truth: shape (n, M), NaN where unknown."""
        t = np.asarray(truth, dtype=bool)
        columns = np.arange(len(self.present)) if known is None else np.asarray(known, dtype=np.int64)
        made = np.full((len(t), len(self.present)), np.nan)
        made[:, columns] = np.where(t, self.present[columns], self.absent[columns])
        return made


def concept_uncertainty(
    signals: ArrayLike, train_signals: ArrayLike, train_truth: ArrayLike, known: Sequence[int] | None = None
) -> FloatArray:
    """How unsure the model is of each concept of each image, in [0, 1].

    A logistic regression a concept, fitted on training images whose truth is known, turns the concept's signal into a
    probability p; the uncertainty is the entropy of p, in bits.

    Parameters
    ----------
    signals : array_like, shape (n, M)
        What the model knows of each concept: units before the gate (finer), or activations.
    train_signals : array_like, shape (m, M)
    train_truth : array_like of bool, shape (m, len(known))
    known : sequence of int, optional
        Columns the truth tells about; by default all.

    Returns
    -------
    ndarray of float64, shape (n, M)
        0 where the truth is not known, or is always the same.
    """
    s, t, y = np.asarray(signals, float), np.asarray(train_signals, float), np.asarray(train_truth, bool)
    columns = np.arange(s.shape[1]) if known is None else np.asarray(known, dtype=np.int64)
    if y.shape != (len(t), len(columns)) or s.shape[1] != t.shape[1]:
        raise InputError(f"signals {s.shape}, train_signals {t.shape}, train_truth {y.shape}: the shapes do not fit")
    made = np.zeros(s.shape)
    varies = y.any(axis=0) & ~y.all(axis=0)
    columns, y = columns[varies], y[:, varies]
    if not len(columns):
        return made
    scale = t[:, columns].std(axis=0)
    scale[scale == 0] = 1.0
    slope, intercept = logistic_columns(t[:, columns] / scale, y)
    p = np.clip(sigmoid(s[:, columns] / scale * slope + intercept), 1e-12, 1 - 1e-12)
    made[:, columns] = -(p * np.log2(p) + (1 - p) * np.log2(1 - p))
    return made
