"""Intervention curves: accuracy as more and more concepts are set to their true values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError, unknown
from sparsecbm.explain.ledger import Ledgers

FloatArray = NDArray[np.float64]
ORDERS = ("uncertainty", "expected_gain", "flip", "greedy", "random")
BLIND = ("expected_gain", "flip")
"""Orders that weigh both answers by their probability; like "uncertainty", they see neither label nor truth."""
Gain = Callable[[slice, FloatArray], FloatArray]
"""Maps pictures and their scores (r, K) to what each concept (r, known) promises."""
_CHUNK = 4_000_000  # numbers held at once where every concept of a picture is tried


@dataclass(frozen=True, eq=False)
class InterventionCurve:
    """Accuracy against the number of concepts set to their true values.

    Attributes
    ----------
    order : str
    accuracy : ndarray of float64, shape (steps + 1,)
        ``accuracy[k]`` after k concepts of every image; ``accuracy[0]`` without any.
    n_images : int
    cost : ndarray of float64, shape (steps + 1,)
        What was paid for the answers of a picture so far, mean over pictures; the number of answers where all cost 1.
    """

    order: str
    accuracy: FloatArray
    n_images: int
    cost: FloatArray = field(default_factory=lambda: np.zeros(0))

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
    presence: ArrayLike | None = None,
    worth: ArrayLike | None = None,
    noise: float = 0.0,
    trusted: bool = True,
    costs: ArrayLike | None = None,
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
    order : {"uncertainty", "expected_gain", "flip", "greedy", "random"}
        Which concept of an image comes next: the one the model is least sure of; the one whose answer is expected to
        raise the probability of the class decided for most, given the answers so far (the value of information), or to
        change that class most often (after KFlip of concept-benchmark, Skirzynski et al. 2026, an answer at a time);
        the one whose correction raises the probability of the true class most (an upper bound that needs the label); or
        any.
    uncertainty : array_like, shape (n, M), optional
        For ``"uncertainty"``, of models without `presence`: see `concept_uncertainty`.
    presence, worth : array_like, shape (n, M) and (2, M), optional
        How probable each concept is, and the activations that absent and present are worth. None: those of the ledgers.
    noise : float
        In [0, 1]: share of answers that are wrong.
    trusted : bool
        Whether answers are taken at their word. False weighs each against what the model sees, by Bayes' rule: where it
        is sure, an expert who errs as often as `noise` says changes little.
    costs : array_like, shape (M,), optional
        Above 0, of an answer about each concept; what an order hopes for is then divided by it. None: 1 each.
    steps : int, optional
        Concepts set for each image; by default all that are known.
    repeats : int
        Random orders averaged.
    seed : int
        Of random orders and wrong answers.

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
    of = _Known.of(ledgers, known, presence, worth)
    price = np.ones(shape[1]) if costs is None else np.asarray(costs, dtype=np.float64)
    if price.shape != shape[1:] or not (price > 0).all():
        raise InputError(f"costs of shape {price.shape}: expected a number above 0 for each of {shape[1]} concepts")
    if not 0 <= noise <= 1:
        raise InputError(f"noise={noise!r}: expected the share of wrong answers, from 0 to 1")
    price, rng = price[known], np.random.default_rng(seed)
    change = (v - ledgers.activations)[:, known]
    if noise:
        change = of.erring(change, rng.random(change.shape) < noise, noise, trusted)
    weights = np.ascontiguousarray(ledgers.weights[:, known].T)

    def followed(chosen: NDArray[np.int64]) -> InterventionCurve:
        paid = np.concatenate([[0.0], price[chosen].mean(axis=0).cumsum()])
        return InterventionCurve(order, _follow(ledgers.scores, y, change, weights, chosen), len(y), paid)

    if order == "random":
        curves = [followed(rng.permuted(_rows(len(known), len(y)), axis=1)[:, :count]) for _ in range(max(1, repeats))]
        accuracy, paid = (np.mean([getattr(curve, name) for curve in curves], axis=0) for name in ("accuracy", "cost"))
        return InterventionCurve(order, accuracy, len(y), paid)
    if order == "uncertainty":
        return followed(np.argsort(-of.doubt(uncertainty, known) / price, axis=1, kind="stable")[:, :count])
    gain = _certain(y, change, weights) if order == "greedy" else of.expected(order, weights)
    return followed(_one_by_one(ledgers.scores, change, weights, count, price, gain))


def _certain(labels: NDArray[np.int64], change: FloatArray, weights: FloatArray) -> Gain:
    """Rise of the log-probability of the true class, by true answers."""

    def gain(part: slice, now: FloatArray) -> FloatArray:
        tried = now[:, None, :] + change[part][:, :, None] * weights[None]
        rise = _log_softmax(tried) - _log_softmax(now)[:, None]
        return rise[np.arange(len(now)), :, labels[part]]

    return gain


def _log_softmax(scores: FloatArray) -> FloatArray:
    shifted = scores - scores.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _confidence(now: FloatArray, tried: FloatArray) -> FloatArray:
    """Rise (r, M) of the probability of the class decided for, from scores (r, K) to (r, M, K)."""
    return np.exp(_log_softmax(tried).max(axis=2)) - np.exp(_log_softmax(now).max(axis=1))[:, None]


def _flipped(now: FloatArray, tried: FloatArray) -> FloatArray:
    """Whether (r, M) another class is decided for."""
    return (tried.argmax(axis=2) != now.argmax(axis=1)[:, None]).astype(np.float64)


@dataclass(frozen=True, eq=False)
class _Known:
    """Of the concepts that can be set: presence (n, known), and what absent and present are worth (2, known)."""

    activations: FloatArray
    presence: FloatArray | None
    worth: FloatArray | None
    shape: tuple[int, ...]  # of all concepts, (n, M)

    @classmethod
    def of(cls, ledgers: Ledgers, known: NDArray[np.int64], presence: Any, worth: Any) -> _Known:
        p, w = (ledgers.presence if presence is None else presence), (ledgers.worth if worth is None else worth)
        made = [None if part is None else np.asarray(part, dtype=np.float64) for part in (p, w)]
        shapes = (ledgers.activations.shape, (2, ledgers.activations.shape[1]))
        for name, part, shape in zip(("presence", "worth"), made, shapes):
            if part is not None and part.shape != shape:
                raise InputError(f"{name} has shape {part.shape}: expected {shape}")
        p, w = (None if part is None else part[:, known] for part in made)
        return cls(ledgers.activations[:, known], None if p is None else np.nan_to_num(p, nan=0.5), w, shapes[0])

    def change_to(self, order: str, trusted: bool = True) -> tuple[FloatArray, FloatArray]:
        """By how much each activation changes if the answer is absent, or present."""
        if self.worth is None or (self.presence is None and (order in BLIND or not trusted)):
            raise InputError(
                f"{order!r} needs presence (n, M) and worth (2, M): take the ledgers of a model with labels"
            )
        return self.worth[0] - self.activations, self.worth[1] - self.activations

    def erring(self, change: FloatArray, wrong: NDArray[np.bool_], noise: float, trusted: bool) -> FloatArray:
        """Change (n, known) by answers of which some are wrong, as many as `noise` says."""
        absent, present = self.change_to("noise", trusted)
        # The other answer: what absent and present add up to, less the right one.
        change = np.where(wrong, absent + present - change, change)
        if trusted or self.presence is None:
            return change
        said = np.where(np.abs(change - present) < np.abs(change - absent), 1 - noise, noise)
        there, not_there = self.presence * said, (1 - self.presence) * (1 - said)
        return absent + there / np.maximum(there + not_there, 1e-300) * (present - absent)

    def doubt(self, uncertainty: ArrayLike | None, known: NDArray[np.int64]) -> FloatArray:
        """How unsure the model is of each concept, (n, known), in any unit."""
        if uncertainty is not None:
            given = np.asarray(uncertainty, dtype=np.float64)
            if given.shape != self.shape:
                raise InputError(f"uncertainty has shape {given.shape}: expected {self.shape}")
            return given[:, known]
        if self.presence is None:
            raise InputError("order='uncertainty' needs uncertainty or presence, shape (n, M): see concept_uncertainty")
        return 0.5 - np.abs(self.presence - 0.5)

    def expected(self, order: str, weights: FloatArray) -> Gain:
        """What an order that sees no label hopes for, over both answers by their probability."""
        absent, present = self.change_to(order)
        assert self.presence is not None
        p, hope = self.presence, _confidence if order == "expected_gain" else _flipped
        # Where all promise the same, the least certain concept is asked for.
        doubt = 1e-9 * (0.5 - np.abs(p - 0.5))

        def gain(part: slice, now: FloatArray) -> FloatArray:
            found = doubt[part].copy()
            for side, chance in ((absent[part], 1 - p[part]), (present[part], p[part])):
                found += chance * hope(now, now[:, None, :] + side[:, :, None] * weights[None])
            return found

        return gain


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


def _one_by_one(
    scores: FloatArray,
    change: FloatArray,
    weights: FloatArray,
    steps: int,
    price: FloatArray,
    gain: Gain,
) -> NDArray[np.int64]:
    """Per image the concept that promises most for its price, again and again, each time with the answers so far."""
    n, m = change.shape
    chosen = np.empty((n, steps), dtype=np.int64)
    rows = max(1, _CHUNK // (m * scores.shape[1]))
    for start in range(0, n, rows):
        part = slice(start, min(start + rows, n))
        now, left = scores[part].copy(), np.ones((part.stop - start, m), dtype=bool)
        images = np.arange(len(now))
        for step in range(steps):
            best = np.where(left, gain(part, now) / price, -np.inf).argmax(axis=1)
            chosen[part, step] = best
            left[images, best] = False
            now += change[part][images, best, None] * weights[best]
    return chosen


def curves_svg(
    curves: Sequence[InterventionCurve], label: str = "Accuracy as concepts are set to their true values"
) -> str:
    """Return curves of one length as a self-contained SVG document, as the report draws them."""
    from sparsecbm.explain.html import svg_file

    return svg_file("curves", curves, label)
