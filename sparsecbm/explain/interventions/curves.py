"""Intervention curves: accuracy as more and more concepts are set to their true values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.logistic import logistic_columns, sigmoid
from sparsecbm.explain.ledger import Ledgers

FloatArray = NDArray[np.float64]
ORDERS = ("uncertainty", "greedy", "random")
_CHUNK = 4_000_000  # numbers held at once by the greedy order


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


@dataclass(frozen=True, eq=False)
class InterventionCurve:
    """Accuracy against the number of concepts set to their true values.

    Attributes
    ----------
    order : str
    accuracy : ndarray of float64, shape (steps + 1,)
        ``accuracy[k]`` after k concepts of every image; ``accuracy[0]`` without any.
    n_images : int
    """

    order: str
    accuracy: FloatArray
    n_images: int

    @property
    def area(self) -> float:
        """Mean accuracy over the curve: one number to compare orders by."""
        return float(self.accuracy.mean())

    def _repr_svg_(self) -> str:
        return curves_svg([self])


def intervention_curve(
    ledgers: Ledgers,
    labels: ArrayLike,
    values: ArrayLike,
    *,
    order: str = "uncertainty",
    uncertainty: ArrayLike | None = None,
    steps: int | None = None,
    repeats: int = 5,
    seed: int = 0,
) -> InterventionCurve:
    """Set concepts to their true values, one after the other, and follow the accuracy.

    Parameters
    ----------
    ledgers : Ledgers
        Of the images.
    labels : array_like of int, shape (n,)
        True class indices.
    values : array_like, shape (n, M)
        True activations (`ConceptTruth.values`); NaN for concepts that are never set.
    order : {"uncertainty", "greedy", "random"}
        Which concept of an image comes next: the one the model is least sure of; the one whose correction raises the
        probability of the true class most (an upper bound that needs the label); or any.
    uncertainty : array_like, shape (n, M), optional
        For ``"uncertainty"``: see `concept_uncertainty`.
    steps : int, optional
        Concepts set for each image; by default all that are known.
    repeats : int
        Random orders averaged.
    seed : int
        Of the random orders.

    Raises
    ------
    InputError
        If the order is unknown, shapes do not fit, or no concept is known.
    """
    if order not in ORDERS:
        raise unknown("order", order, ORDERS)
    y, v = np.asarray(labels, dtype=np.int64), np.asarray(values, dtype=np.float64)
    shape = ledgers.activations.shape
    if v.shape != shape or y.shape != shape[:1]:
        raise InputError(f"labels {y.shape} and values {v.shape} do not fit activations {shape}")
    known = np.flatnonzero(np.isfinite(v).all(axis=0))
    if not len(known):
        raise InputError("values: no concept is known for every image; expected at least one column without NaN")
    count = len(known) if steps is None else steps
    if not 0 < count <= len(known):
        raise InputError(f"steps={steps!r}: expected 1 to {len(known)}, the number of known concepts")
    change = (v - ledgers.activations)[:, known]
    weights = np.ascontiguousarray(ledgers.weights[:, known].T)
    if order == "greedy":
        chosen = _greedy(ledgers.scores, y, change, weights, count)
        return InterventionCurve(order, _follow(ledgers.scores, y, change, weights, chosen), len(y))
    if order == "uncertainty":
        if uncertainty is None:
            raise InputError("order='uncertainty' needs uncertainty, shape (n, M): see concept_uncertainty")
        u = np.asarray(uncertainty, dtype=np.float64)
        if u.shape != shape:
            raise InputError(f"uncertainty has shape {u.shape}: expected {shape}")
        chosen = np.argsort(-u[:, known], axis=1, kind="stable")[:, :count]
        return InterventionCurve(order, _follow(ledgers.scores, y, change, weights, chosen), len(y))
    rng = np.random.default_rng(seed)
    curves = [
        _follow(ledgers.scores, y, change, weights, rng.permuted(_rows(len(known), len(y)), axis=1)[:, :count])
        for _ in range(max(1, repeats))
    ]
    return InterventionCurve(order, np.mean(curves, axis=0), len(y))


def _rows(m: int, n: int) -> NDArray[np.int64]:
    return np.tile(np.arange(m), (n, 1))


def _follow(
    scores: FloatArray, labels: NDArray[np.int64], change: FloatArray, weights: FloatArray, chosen: NDArray[np.int64]
) -> FloatArray:
    """Accuracy after 0, 1, ... concepts; each step is a rank-one update of every image's scores."""
    now = scores.copy()
    images = np.arange(len(now))
    made = [(now.argmax(axis=1) == labels).mean()]
    for j in chosen.T:
        now += change[images, j, None] * weights[j]
        made.append((now.argmax(axis=1) == labels).mean())
    return np.array(made)


def _greedy(
    scores: FloatArray, labels: NDArray[np.int64], change: FloatArray, weights: FloatArray, steps: int
) -> NDArray[np.int64]:
    """Per image the concept whose correction raises log p(true class) most, again and again."""
    n, m = change.shape
    chosen = np.empty((n, steps), dtype=np.int64)
    rows = max(1, _CHUNK // (m * scores.shape[1]))
    for start in range(0, n, rows):
        part = slice(start, min(start + rows, n))
        now, left = scores[part].copy(), np.ones((part.stop - start, m), dtype=bool)
        images, truth = np.arange(len(now)), labels[part]
        for step in range(steps):
            tried = now[:, None, :] + change[part][:, :, None] * weights[None]
            top = tried.max(axis=2)
            log_sum = top + np.log(np.exp(tried - top[:, :, None]).sum(axis=2))
            gain = np.where(left, tried[images, :, truth] - log_sum, -np.inf)
            best = gain.argmax(axis=1)
            chosen[part, step] = best
            left[images, best] = False
            now = tried[images, best]
    return chosen


def curves_svg(
    curves: Sequence[InterventionCurve], label: str = "Accuracy as concepts are set to their true values"
) -> str:
    """Return curves of one length as a self-contained SVG document, as the report draws them."""
    from sparsecbm.explain.html import svg_file

    return svg_file("curves", curves, label)
