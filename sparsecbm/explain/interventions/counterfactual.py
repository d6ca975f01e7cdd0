"""The smallest change of concepts that turns a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm.explain.ledger import Ledger, Ledgers

FloatArray = NDArray[np.float64]
_MARGIN = 1e-9  # of the scores' scale: a tie does not turn a prediction
_SEEN = 0.1
"""A concept is plausible for a class if so many of the pictures predicted as it show the concept."""
TURNS_MOST = 0.5
"""Beyond this share of the pictures an edit is said to turn nearly everything."""


class ConceptEdit(NamedTuple):
    """One concept of a counterfactual.

    Attributes
    ----------
    concept : str
    before, after : float
        Activation.
    gain : float
        How far it moves the score difference (new class minus old), in score units.
    """

    concept: str
    before: float
    after: float
    gain: float


@dataclass(frozen=True, eq=False)
class Counterfactual:
    """A set of concept edits that turns one prediction.

    Attributes
    ----------
    edits : tuple of ConceptEdit
        Largest gain first.
    before, after : Ledger
        Of the predicted class, before and after the edits.
    optimal : bool
        Whether it is proven that fewer edits within the bounds cannot do it.
    turns : float
        Share, in [0, 1], of the other pictures of other classes that the same values would turn into the new class too:
        near 1 the edit says something about the model, and little about the picture. 0 of classes that do not exclude
        each other, where what is taken from one picture takes the class from most.
    """

    edits: tuple[ConceptEdit, ...]
    before: Ledger
    after: Ledger
    optimal: bool
    turns: float = 0.0

    def __len__(self) -> int:
        return len(self.edits)

    def said(self, value: float, form: str = ".3g") -> str:
        """Return a value of an edit in words: in percent where activations are the probabilities of concepts."""
        return f"{value:.0%}" if self.before.probable else format(value, form)

    def to_text(self) -> str:
        """Return the counterfactual in words, one line an edit."""
        source = f"{self.before.source}: " if self.before.source else ""
        proof = "no smaller set does" if self.optimal else "a smaller set may exist"
        head = f"{source}{self.before.target} becomes {self.after.target} by {len(self)} edits ({proof})"
        head = head.replace(" 1 edits", " 1 edit")
        lines = [f"  {e.concept}: {self.said(e.before)} -> {self.said(e.after)} ({e.gain:+.3f})" for e in self.edits]
        note = f"  (the same turns {self.turns:.0%} of all pictures into {self.after.target})"
        return "\n".join([head, *lines, *([note] if self.turns > TURNS_MOST else [])])

    __str__ = to_text

    def __repr__(self) -> str:
        """Name the classes and the number of edits."""
        return f"<Counterfactual {self.before.target} -> {self.after.target}: {len(self)} edits>"


def counterfactual(
    ledgers: Ledgers,
    image: int,
    *,
    target: str | int | None = None,
    any_class: bool = False,
    low: float | ArrayLike | None = None,
    high: float | ArrayLike | None = None,
    frozen: ArrayLike | None = None,
    time_limit: float = 10.0,
) -> Counterfactual | None:
    """Find the fewest concept edits that turn the prediction of an image.

    Each edited activation may go anywhere between its bounds. The class that is to win, by default the runner-up, must
    beat all others at once, a mixed-integer linear program that HiGHS solves (`scipy.optimize.milp`). With `any_class`
    any other class may win: against one rival the score difference is a sum over concepts, so the best m edits are the
    m largest gains, sorting finds the smallest set, and the least over all rivals is exact, in O(K M log M). Where
    classes do not exclude each other, one of them turns by itself, there or not: `target`, or the one explained.

    Parameters
    ----------
    ledgers : Ledgers
        Of any number of images: their activations give the default bounds.
    image : int
        Row.
    target : str or int, optional
        The class that must win; by default the runner-up.
    any_class : bool
        Whether any class but the predicted one may win.
    low, high : float or array_like of shape (M,), optional
        Bounds of an edited activation; by default 0 (or the least seen, if negative) and the largest seen in `ledgers`.
        ``high=0`` allows removals only (where nothing is negative).
    frozen : array_like of bool, shape (M,), optional
        Concepts that may not be edited; by default those that are not `plausible` for the class, or with `any_class`
        none.
    time_limit : float
        Seconds for the program of a given target; when they end, the best set found is returned with
        ``optimal=False``.

    Returns
    -------
    Counterfactual or None
        None if no edits within the bounds turn the prediction.

    Raises
    ------
    InputError
        If bounds do not fit, the class is unknown, or `target` is the predicted class already.

    Examples
    --------
    >>> from sparsecbm.explain import explain
    >>> activations = [[2.0, 0.0, 0.5], [0.0, 1.0, 1.0]]
    >>> weights = [[1.0, 0.0, 0.0], [0.0, 3.0, 0.5]]
    >>> ledgers = explain(activations, weights, [0.0, 0.0], ["red crown", "crest", "long tail"], ["finch", "jay"])
    >>> print(counterfactual(ledgers, 0))
    finch becomes jay by 1 edit (no smaller set does)
      red crown: 2 -> 0 (+2.000)
    """
    if any_class and target is not None:
        raise InputError("give either a target or any_class=True, not both")
    i = range(len(ledgers))[image]
    several = ledgers.multilabel
    if several:
        ledgers, target = ledgers.yes_or_no(int(ledgers.targets[i]) if target is None else target), None
    row = ledgers.activations[i]
    lower, upper = _bounds(ledgers, low, high)
    scores = ledgers.scores[i]
    winner = int(scores.argmax())
    goal = int(np.argsort(-scores, kind="stable")[1]) if target is None else ledgers._class(target)
    if goal == winner:
        raise InputError(f"target={target!r}: the image is predicted {ledgers.classes[goal]!r} already")
    if frozen is None:
        fixed = np.zeros(len(row), dtype=bool) if any_class else ~plausible(ledgers, i, goal)
    else:
        fixed = np.asarray(frozen, dtype=bool)
    if fixed.shape != row.shape:
        raise InputError(f"frozen has shape {fixed.shape}: expected ({len(row)},), one flag a concept")
    margin = _MARGIN * max(1.0, float(np.abs(scores).max()))
    if any_class:
        found = _any_rival(row, ledgers.weights, scores, winner, lower, upper, fixed, margin)
        optimal = True
    else:
        found, optimal = _one_target(row, ledgers.weights, scores, goal, lower, upper, fixed, margin, time_limit)
    if found is None:
        return None
    edited = row.copy()
    for j, value in found.items():
        edited[j] = value
    after = ledgers.select([i])._replace(activations=edited[None], against=None)
    new = int(after.scores[0].argmax())
    difference = ledgers.weights[new] - ledgers.weights[winner]
    edits = [
        ConceptEdit(ledgers.concepts[j], float(row[j]), float(value), float((value - row[j]) * difference[j]))
        for j, value in found.items()
    ]
    return Counterfactual(
        edits=tuple(sorted(edits, key=lambda edit: -edit.gain)),
        before=ledgers.ledger(i, winner),
        after=after._replace(targets=np.array([new])).ledger(0),
        optimal=optimal,
        turns=0.0 if several else _turns(ledgers, i, found, new),
    )


def plausible(ledgers: Ledgers, image: int, target: str | int) -> NDArray[np.bool_]:
    """Flag the concepts that a picture of a class may show: bool of shape (M,).

    Those active in the image itself, and in at least a tenth of the pictures of `ledgers` that are predicted as the
    class; where there are none, those with a positive weight for it.
    """
    goal, active = ledgers._class(target), ledgers.activations != 0
    of_class = active[ledgers.targets == goal]
    usual = of_class.mean(axis=0) >= _SEEN if len(of_class) else ledgers.weights[goal] > 0
    return active[image] | usual


def _turns(ledgers: Ledgers, image: int, found: dict[int, float], goal: int) -> float:
    columns = np.array(list(found), dtype=np.int64)
    moved = np.array(list(found.values())) - ledgers.activations[:, columns]
    before = ledgers.scores
    others = before.argmax(axis=1) != goal
    others[image] = False
    turned = (before + moved @ ledgers.weights[:, columns].T).argmax(axis=1) == goal
    return float(turned[others].mean()) if others.any() else 0.0


def _bounds(ledgers: Ledgers, low: object, high: object) -> tuple[FloatArray, FloatArray]:
    m = len(ledgers.concepts)
    seen = ledgers.activations
    lower = np.minimum(seen.min(axis=0), 0.0) if low is None else np.asarray(low, dtype=np.float64)
    upper = np.maximum(seen.max(axis=0), 0.0) if high is None else np.asarray(high, dtype=np.float64)
    try:
        lower, upper = np.broadcast_to(lower, (m,)), np.broadcast_to(upper, (m,))
    except ValueError:
        raise InputError(f"low and high have shapes {lower.shape} and {upper.shape}: expected ({m},)") from None
    if not (np.isfinite(lower).all() and np.isfinite(upper).all() and (lower <= upper).all()):
        raise InputError("low and high: expected finite bounds with low <= high")
    return lower, upper


def _any_rival(
    row: FloatArray,
    weights: FloatArray,
    scores: FloatArray,
    winner: int,
    lower: FloatArray,
    upper: FloatArray,
    fixed: NDArray[np.bool_],
    margin: float,
) -> dict[int, float] | None:
    difference = weights - weights[winner]  # (K, M): what one unit of a concept moves each rival ahead by
    value = np.where(difference > 0, upper, lower)
    gain = np.maximum((value - row) * difference, 0.0)
    gain[:, fixed] = 0.0
    order = np.argsort(-gain, axis=1, kind="stable")
    reached = np.cumsum(np.take_along_axis(gain, order, axis=1), axis=1)
    enough = reached > (scores[winner] - scores)[:, None] + margin
    enough[winner] = False
    size = np.where(enough.any(axis=1), enough.argmax(axis=1) + 1, len(row) + 1)
    least = size.min()
    if least > len(row):
        return None
    # Of the rivals that need equally few edits, the one that ends furthest ahead.
    tied = np.flatnonzero(size == least)
    rival = int(tied[np.argmax(reached[tied, least - 1] - (scores[winner] - scores[tied]))])
    return {int(j): float(value[rival, j]) for j in order[rival, :least]}


def _one_target(
    row: FloatArray,
    weights: FloatArray,
    scores: FloatArray,
    goal: int,
    lower: FloatArray,
    upper: FloatArray,
    fixed: NDArray[np.bool_],
    margin: float,
    time_limit: float,
) -> tuple[dict[int, float] | None, bool]:
    """Fewest edits so that `goal` beats every class: binaries z, changes d with z (low - a) <= d <= z (high - a)."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    down, up = np.minimum(lower - row, 0.0), np.maximum(upper - row, 0.0)
    # Only what may move is in the program.
    free = np.flatnonzero(~fixed & (up > down))
    m, down, up = len(free), down[free], up[free]
    rivals = np.delete(np.arange(len(scores)), goal)
    lead = weights[goal, free] - weights[np.ix_(rivals, free)]
    # A thousandth above the margin keeps the solver's own feasibility tolerance (1e-6) from deciding ties.
    needed = scores[rivals] - scores[goal] + margin + 1e-5 * max(1.0, float(np.abs(scores).max()))
    if not m or (np.maximum(lead * up, lead * down).sum(axis=1) < needed).any():
        return None, True
    ahead = np.hstack([lead, np.zeros_like(lead)])
    eye = np.eye(m)
    result = milp(
        np.concatenate([np.zeros(m), np.ones(m)]),
        constraints=[
            LinearConstraint(ahead, lb=needed),
            LinearConstraint(np.hstack([eye, -np.diag(up)]), ub=0.0),
            LinearConstraint(np.hstack([eye, -np.diag(down)]), lb=0.0),
        ],
        bounds=Bounds(np.concatenate([down, np.zeros(m)]), np.concatenate([up, np.ones(m)])),
        integrality=np.concatenate([np.zeros(m), np.ones(m)]),
        options={"time_limit": time_limit},
    )
    if result.x is None:
        return None, True
    edits = {
        int(j): float(row[j] + np.clip(result.x[k], down[k], up[k]))
        for k, j in enumerate(free)
        if result.x[m + k] > 0.5
    }
    return edits, bool(result.status == 0)
