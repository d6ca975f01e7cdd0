"""The contribution ledger: why a class got its score, concept by concept, adding up exactly.

A sparse head is linear in the concept activations, so the score (logit) of class k for one image is

    score_k = bias_k + sum_j activation_j * weight_kj

and every summand belongs to one named concept. Nothing is approximated: the ledger is the computation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.logistic import sigmoid
from sparsecbm.explain.lines import Account, Line, Place
from sparsecbm.explain.maps.picture_maps import MapsPictures, PictureMaps, map_pictures

if TYPE_CHECKING:
    import pandas as pd
    import shap
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

FloatArray = NDArray[np.float64]

EVERYTHING_ELSE = "everything else"
"""Name of the one line that holds what the named concepts of a partial account leave over."""


class Entry(NamedTuple):
    """One line of a ledger.

    Attributes
    ----------
    concept : str
        The concept's name.
    activation : float
        Its activation for this image; exactly zero for an inactive concept.
    weight : float
        The head's weight from this concept to the class (a difference of two weights in a pair ledger).
    contribution : float
        ``activation * weight``, in score (logit) units.
    """

    concept: str
    activation: float
    weight: float
    contribution: float


@dataclass(frozen=True, eq=False)
class Ledger:
    """The account of one score: ``score = bias + sum of contributions``.

    Parameters
    ----------
    concepts : tuple of str
        Concept names, length M.
    activations : ndarray of float64, shape (M,)
        The image's concept activations.
    weights : ndarray of float64, shape (M,)
        Head weights of the class explained; of ``target`` minus ``against`` in a pair ledger.
    bias : float
        The class's intercept (a difference of two in a pair ledger).
    target : str
        Name of the class whose score is explained.
    against : str, optional
        The other class of a pair ledger ("why A and not B"); the score is then the score difference A - B.
    probability : float, optional
        Softmax probability of the target, in [0, 1]; None in a pair ledger.
    source : str, optional
        What was looked at: a file name, or a description of several images.
    truth : str, optional
        True class, where it is known.
    maps : PictureMaps, optional
        Where in the picture the concepts are seen.
    presence, told : ndarray of float64, shape (M,), optional
        How probable it is that each concept is there, and what was said instead, in [0, 1]; NaN where nothing is known.

    Examples
    --------
    >>> import numpy as np
    >>> ledger = Ledger(("red crown", "long tail"), np.array([2.0, 0.5]), np.array([1.5, -1.0]), 0.25, "cardinal")
    >>> ledger.score
    2.75
    >>> ledger.top(1)
    [Entry(concept='red crown', activation=2.0, weight=1.5, contribution=3.0)]
    """

    concepts: tuple[str, ...]
    activations: FloatArray
    weights: FloatArray
    bias: float
    target: str
    against: str | None = None
    probability: float | None = None
    source: str | None = None
    truth: str | None = None
    maps: PictureMaps | None = None
    presence: FloatArray | None = None
    told: FloatArray | None = None

    @cached_property
    def contributions(self) -> FloatArray:
        """Activation times weight, shape (M,), float64."""
        return self.activations * self.weights

    @cached_property
    def score(self) -> float:
        """Bias plus all contributions, summed without intermediate rounding."""
        return math.fsum([self.bias, *self.contributions.tolist()])

    @cached_property
    def entries(self) -> list[Entry]:
        """All non-zero lines, largest absolute contribution first (ties in concept order)."""
        values = self.contributions
        active = np.flatnonzero(values)
        order = active[np.argsort(-np.abs(values[active]), kind="stable")]
        return [
            Entry(self.concepts[j], float(self.activations[j]), float(self.weights[j]), float(values[j])) for j in order
        ]

    @property
    def n_active(self) -> int:
        """Number of concepts whose activation is not zero."""
        return int(np.count_nonzero(self.activations))

    @property
    def everything_else(self) -> float:
        """Contribution of the line `EVERYTHING_ELSE`; 0 where the named concepts are the whole account."""
        return float(self.contributions[-1]) if self.concepts and self.concepts[-1] == EVERYTHING_ELSE else 0.0

    @property
    def share(self) -> float:
        """Share that the named concepts carry, in [0, 1]: |their sum| / (|their sum| + |everything else|)."""
        rest = self.everything_else
        named = math.fsum([*self.contributions.tolist(), -rest])
        return 1.0 if rest == 0.0 else abs(named) / (abs(named) + abs(rest))

    def top(self, k: int = 10) -> list[Entry]:
        """Return the `k` lines with the largest absolute contribution.

        Raises
        ------
        InputError
            If `k` is negative.
        """
        if k < 0:
            raise InputError(f"k={k!r}: expected a number of lines of 0 or more")
        return self.entries[:k]

    def rest(self, k: int = 10) -> tuple[int, float]:
        """Return how many lines ``top(k)`` leaves out, and the sum of their contributions."""
        left = [entry.contribution for entry in self.entries[len(self.top(k)) :]]
        return len(left), math.fsum(left)

    def place(self, *concepts: str) -> Place:
        """Return where in the picture the contributions of concepts come from, summed; of none: where the score does.

        Raises
        ------
        InputError
            If the ledger has no maps, or a concept is unknown.
        """
        if self.maps is None:
            raise InputError("this ledger has no maps: make it with maps=True")
        for name in concepts:
            if name not in self.concepts:
                raise unknown("concept", name, self.concepts)
        weights = dict(zip(self.concepts, self.weights.tolist()))
        value = (
            math.fsum(self.contributions[self.concepts.index(name)] for name in concepts) if concepts else self.score
        )
        some = [name for name in self.maps.concepts if not concepts or name in concepts]
        grid = sum((weights[name] * self.maps.of(name)[0] for name in some), np.zeros(self.maps.grids.shape[1:]))
        return Place(grid, value - float(grid.sum()))

    def lines(self, k: int = 10) -> Account:
        """Return the `k` largest lines, the sum of the others, and the bias: what text, pages and pictures show.

        Raises
        ------
        InputError
            If `k` is negative.
        """
        mapped, shown = self.maps is not None, self.top(k)
        if self.told is not None:  # also what a correction took away
            corrected = [j for j in np.flatnonzero(~np.isnan(self.told)) if self.contributions[j] == 0]
            shown += [Entry(self.concepts[j], 0.0, float(self.weights[j]), 0.0) for j in corrected]
        lines = [
            Line(
                entry.concept + self._presence_of(entry.concept),
                entry.contribution,
                "concept",
                f"activation {entry.activation:.3g} × weight {entry.weight:.3g}",
                self.place(entry.concept) if mapped else None,
            )
            for entry in shown
        ]
        others, remainder = self.rest(k)
        if others:
            name = f"{others} other concept{'s' if others > 1 else ''}"
            place = self.place(*(entry.concept for entry in self.entries[k:])) if mapped else None
            lines.append(Line(name, remainder, "rest", "sum of the smaller lines", place))
        lines.append(Line("bias", self.bias, "bias", "the same for every picture"))
        said = (self.target, self.against, self.question, self.probability, self.source, self.truth)
        whole = (self.place(), self.maps.picture) if self.maps is not None else (None, None)
        return Account(tuple(lines), self.score, *said, *whole)

    @property
    def probable(self) -> bool:
        """Whether activations are the probabilities of concepts."""
        known = self.presence
        return (
            known is not None
            and known.shape == self.activations.shape
            and np.allclose(known, self.activations, 0, 1e-4)
        )

    def _presence_of(self, concept: str) -> str:
        """How probable a concept is, and what was said of it, in words; empty where nothing is known."""
        if self.presence is None:
            return ""
        j = self.concepts.index(concept)
        before = "" if np.isnan(self.presence[j]) else f"{self.presence[j]:.0%}"
        if self.told is None or np.isnan(self.told[j]):
            return f": {before}" if before else ""
        now = {0.0: "absent", 1.0: "present"}.get(float(self.told[j]), f"{self.told[j]:.0%}")
        return f": {before} -> corrected to {now}" if before else f": corrected to {now}"

    @property
    def question(self) -> str:
        """What this ledger answers, in words."""
        return f"why {self.target}" if self.against is None else f"why {self.target} and not {self.against}"

    def to_frame(self) -> pd.DataFrame:
        """Return a pandas table whose ``contribution`` column, bias included, adds up to the score.

        Raises
        ------
        InputError
            If pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise InputError("to_frame() needs pandas: install it with `pip install pandas`") from error
        frame = pd.DataFrame(self.entries, columns=list(Entry._fields))
        bias = pd.DataFrame([Entry("(bias)", 1.0, self.bias, self.bias)])
        return pd.concat([bias, frame], ignore_index=True) if len(frame) else bias

    def to_shap(self) -> shap.Explanation:
        """Return a ``shap.Explanation``: contributions as values, the bias as base value, activations as data.

        Raises
        ------
        InputError
            If shap is not installed.
        """
        return _shap(self.contributions, self.bias, self.activations, self.concepts)

    def to_text(self, k: int = 10, width: int = 80) -> str:
        """Render for a terminal: one line a concept, a bar, and the sum.

        Parameters
        ----------
        k : int
            Concepts shown by name; the others are summed in one line.
        width : int
            Columns to fill, at least 40.
        """
        from sparsecbm.explain.text import ledger_text

        return ledger_text(self.lines(k), width)

    def plot(self, k: int = 10, ax: Axes | None = None, maps: bool = False) -> Axes:
        """Draw the ledger as signed horizontal bars with matplotlib and return the axes.

        With `maps`, the picture stands under the bars once for each line, with the cells that the line comes from.

        Raises
        ------
        InputError
            If there are no maps to draw.
        """
        from sparsecbm.explain.plots import plot_ledger, plot_mapped_ledger

        if maps:
            self.place()
            return plot_mapped_ledger(self.lines(k))
        return plot_ledger(self.lines(k), ax=ax)

    def _repr_html_(self) -> str:
        from sparsecbm.explain.html import ledger_html

        return ledger_html(self.lines())

    def __repr__(self) -> str:
        """Name the question, the score and how many concepts carry it."""
        source = f"{self.source!r}, " if self.source else ""
        return f"<Ledger {source}{self.question}: score {self.score:.3f} from {len(self.entries)} concepts>"


@dataclass(frozen=True, eq=False)
class Ledgers(Sequence[Ledger]):
    """The ledgers of many images under one head; made by `explain`, read like a sequence.

    Parameters
    ----------
    activations : ndarray of float64, shape (n, M)
        Concept activations, a row an image.
    weights : ndarray of float64, shape (K, M)
        Head weights.
    bias : ndarray of float64, shape (K,)
        Head intercepts.
    concepts, classes : tuple of str
        The M concept and K class names.
    targets : ndarray of int64, shape (n,)
        Class explained for each image.
    against : ndarray of int64, shape (n,), optional
        The other class of pair ledgers.
    sources, truths : tuple of str, optional
        Names of the images, and their true classes.
    remainder : ndarray of float64, shape (n, K), optional
        What the concepts leave over of each score, for classifiers that few concepts account for in part only: one
        more line, `EVERYTHING_ELSE`, of each ledger.
    maps : sequence of PictureMaps, optional
        Where in each picture its active concepts are seen.
    presence : ndarray of float64, shape (n, M), optional
        How probable it is that each picture shows each concept; NaN where that is not known.
    worth : ndarray of float64, shape (2, M), optional
        Activation that an absent and a present concept are worth.
    told : ndarray of float64, shape (n, M), optional
        What was said of concepts in place of what was seen, in [0, 1]; NaN elsewhere (`Interventions.correct`).
    multilabel : bool
        Whether classes do not exclude each other.
    """

    activations: FloatArray
    weights: FloatArray
    bias: FloatArray
    concepts: tuple[str, ...]
    classes: tuple[str, ...]
    targets: NDArray[np.int64]
    against: NDArray[np.int64] | None = None
    sources: tuple[str, ...] | None = None
    truths: tuple[str, ...] | None = None
    remainder: FloatArray | None = None
    maps: Sequence[PictureMaps] | None = None
    presence: FloatArray | None = None
    worth: FloatArray | None = None
    told: FloatArray | None = None
    multilabel: bool = False
    _index: dict[str, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_index", {name: i for i, name in enumerate(self.classes)})

    @cached_property
    def scores(self) -> FloatArray:
        """Class scores ``activations @ weights.T + bias`` (and the remainder), shape (n, K)."""
        scores = self.activations @ self.weights.T + self.bias
        return scores if self.remainder is None else scores + self.remainder

    @cached_property
    def probabilities(self) -> FloatArray:
        """Softmax of the scores, or a sigmoid each where classes do not exclude each other: shape (n, K)."""
        if self.multilabel:
            return sigmoid(self.scores)
        shifted = np.exp(self.scores - self.scores.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)

    def __len__(self) -> int:
        return self.activations.shape[0]

    @overload
    def __getitem__(self, index: int) -> Ledger: ...
    @overload
    def __getitem__(self, index: slice) -> list[Ledger]: ...
    def __getitem__(self, index: int | slice) -> Ledger | list[Ledger]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        i = range(len(self))[index]
        other = None if self.against is None else int(self.against[i])
        return self._ledger(i, int(self.targets[i]), other)

    def __iter__(self) -> Iterator[Ledger]:
        return (self[i] for i in range(len(self)))

    def ledger(self, index: int, target: str | int | None = None, against: str | int | None = None) -> Ledger:
        """Return one image's ledger for any class, or for any pair of classes.

        Parameters
        ----------
        index : int
            Row of the image.
        target : str or int, optional
            Class name or index; None takes the one explained already.
        against : str or int, optional
            Explain the score difference to this class.

        Raises
        ------
        InputError
            If a class is unknown.
        IndexError
            If there is no such image.
        """
        i = range(len(self))[index]
        first = int(self.targets[i]) if target is None else self._class(target)
        return self._ledger(i, first, None if against is None else self._class(against))

    def said(self, index: int) -> list[int]:
        """Return the classes said of an image, best first: one, or any number where they do not exclude each other."""
        scores = self.scores[index]
        order = np.argsort(-scores, kind="stable").tolist()
        return [k for k in order if scores[k] > 0] if self.multilabel else order[:1]

    def yes_or_no(self, target: str | int) -> Ledgers:
        """Return the ledgers of a class of its own: there, against the class "not there", whose score is 0."""
        k = self._class(target)
        return self._replace(
            weights=np.stack([np.zeros(len(self.concepts)), self.weights[k]]),
            bias=np.array([0.0, self.bias[k]]),
            classes=(f"not {self.classes[k]}", self.classes[k]),
            targets=(self.scores[:, k] > 0).astype(np.int64),
            against=None,
            truths=None,
            remainder=None if self.remainder is None else np.stack([np.zeros(len(self)), self.remainder[:, k]], axis=1),
            multilabel=False,
        )

    def pair(self, first: str | int, second: str | int) -> Ledgers:
        """Return the ledgers of "why `first` and not `second`" for every image."""
        a, b = self._class(first), self._class(second)
        n = len(self)
        return self._replace(targets=np.full(n, a), against=np.full(n, b))

    def for_class(self, target: str | int) -> Ledgers:
        """Return the ledgers of one class's score for every image."""
        return self._replace(targets=np.full(len(self), self._class(target)), against=None)

    def select(self, rows: Sequence[int] | NDArray[Any]) -> Ledgers:
        """Return the ledgers of some images only.

        Parameters
        ----------
        rows : sequence of int, or array of bool of shape (n,)

        Raises
        ------
        InputError
            If there is no such row.
        """
        chosen = np.asarray(rows)
        if chosen.dtype == bool:
            if chosen.shape != (len(self),):
                raise InputError(f"rows: {chosen.shape} flags given for {len(self)} images; expected one an image")
            chosen = np.flatnonzero(chosen)
        chosen = chosen.astype(np.int64)
        if len(chosen) and not -len(self) <= chosen.min() <= chosen.max() < len(self):
            raise InputError(f"rows: expected 0 to {len(self) - 1}, got {chosen.min()} to {chosen.max()}")
        return self._replace(
            activations=self.activations[chosen],
            targets=self.targets[chosen],
            against=None if self.against is None else self.against[chosen],
            sources=None if self.sources is None else tuple(self.sources[i] for i in chosen),
            truths=None if self.truths is None else tuple(self.truths[i] for i in chosen),
            remainder=None if self.remainder is None else self.remainder[chosen],
            maps=None if self.maps is None else [self.maps[i] for i in chosen],
            presence=None if self.presence is None else self.presence[chosen],
            told=None if self.told is None else self.told[chosen],
        )

    def with_maps(
        self,
        images: Sequence[Image],
        encoder: MapsPictures,
        weight: NDArray[np.floating],
        bias: NDArray[np.floating],
        **options: Any,
    ) -> Ledgers:
        """Return the same ledgers with maps: where in each picture its active concepts are seen.

        Parameters
        ----------
        images : sequence of PIL.Image.Image, length n
        encoder : Encoder
            That made the embeddings.
        weight, bias : ndarray of shape (M, d), (M,)
            Of the units: ``unit = weight . embedding + bias``.
        **options
            See `sparsecbm.explain.maps.picture_maps.map_pictures`.

        Raises
        ------
        InputError
            If there is not one picture a ledger, or the encoder has no such maps.
        """
        maps = map_pictures(encoder, images, self.activations, weight, bias, self.concepts, **options)
        return self._replace(maps=maps)

    def top(self, k: int = 10) -> list[Entry]:
        """Return the `k` concepts that carry most of the explained scores, by mean absolute contribution.

        Each entry holds means over the images: activation, weight to the explained class, and (signed) contribution.

        Raises
        ------
        InputError
            If `k` is negative or there are no images.
        """
        if k < 0:
            raise InputError(f"k={k!r}: expected a number of lines of 0 or more")
        if not len(self):
            raise InputError("no images: the top concepts need at least one row of activations")
        size, signed, weight = (np.zeros(len(self.concepts)) for _ in range(3))
        for start in range(0, len(self), 1024):  # (n, M) products of large sets need not be in memory at once
            part = slice(start, start + 1024)
            weights = self.weights[self.targets[part]]
            if self.against is not None:
                weights = weights - self.weights[self.against[part]]
            made = self.activations[part] * weights
            size += np.abs(made).sum(axis=0)
            signed += made.sum(axis=0)
            weight += weights.sum(axis=0)
        n, activation = len(self), self.activations.mean(axis=0)
        order = [j for j in np.argsort(-size, kind="stable")[:k] if size[j] > 0]
        return [
            Entry(self.concepts[j], float(activation[j]), float(weight[j] / n), float(signed[j] / n)) for j in order
        ]

    def plot(self, k: int = 8, max_images: int = 6) -> Figure:
        """Draw the first `max_images` ledgers beside each other with matplotlib and return the figure."""
        from sparsecbm.explain.plots import plot_ledgers

        return plot_ledgers([ledger.lines(k) for ledger in self[:max_images]])

    def mean(self, target: str | int, against: str | int | None = None) -> Ledger:
        """Return what a class's score is made of on average over these images.

        The head is linear, so the mean activations explain the mean score exactly. For a class as a whole, or a pair of
        classes, take the images of interest first: ``ledgers.select(labels == 3).mean("jay")``.

        Raises
        ------
        InputError
            If the class is unknown or there are no images.
        """
        if not len(self):
            raise InputError("no images: the mean ledger needs at least one row of activations")
        a = self._class(target)
        b = None if against is None else self._class(against)
        left = None if self.remainder is None else self.remainder.mean(axis=0)
        return self._account(self.activations.mean(axis=0), a, b, left, source=f"mean of {len(self)} images")

    def to_frame(self) -> pd.DataFrame:
        """Return one long pandas table: image, class, concept, activation, weight, contribution."""
        frames = []
        for i, ledger in enumerate(self):
            frame = ledger.to_frame()
            frame.insert(0, "class", ledger.target)
            frame.insert(0, "image", ledger.source if ledger.source is not None else i)
            frames.append(frame)
        if not frames:
            raise InputError("no images: a table of ledgers needs at least one row of activations")
        import pandas as pd

        return pd.concat(frames, ignore_index=True)

    def to_shap(self) -> shap.Explanation:
        """Return a ``shap.Explanation`` of the classes explained, a row an image; see `Ledger.to_shap`."""
        made = list(self)
        values, data = (
            np.array([getattr(ledger, name) for ledger in made]) for name in ("contributions", "activations")
        )
        return _shap(
            values, np.array([ledger.bias for ledger in made]), data, made[0].concepts if made else self.concepts
        )

    def to_text(self, k: int = 10, width: int = 80) -> str:
        """Render every ledger for a terminal, a blank line between them."""
        return "\n\n".join(ledger.to_text(k=k, width=width) for ledger in self)

    def _repr_html_(self) -> str:
        from sparsecbm.explain.html import ledger_html

        shown = "".join(ledger_html(ledger.lines()) for ledger in self[:20])
        more = len(self) - 20
        return shown + (f"<p>{more} more not shown</p>" if more > 0 else "")

    def __repr__(self) -> str:
        """Name the sizes."""
        return f"<Ledgers of {len(self)} images, {len(self.classes)} classes, {len(self.concepts)} concepts>"

    def _class(self, name: str | int) -> int:
        if isinstance(name, str):
            if name not in self._index:
                raise unknown("class", name, self.classes)
            return self._index[name]
        if not 0 <= int(name) < len(self.classes):
            raise InputError(f"class index {name!r}: expected 0 to {len(self.classes) - 1}, or a class name")
        return int(name)

    def _replace(self, **changes: Any) -> Ledgers:
        from dataclasses import replace

        return replace(self, **changes)

    def _ledger(self, i: int, target: int, against: int | None) -> Ledger:
        return self._account(
            self.activations[i],
            target,
            against,
            None if self.remainder is None else self.remainder[i],
            probability=None if against is not None else float(self.probabilities[i, target]),
            source=None if self.sources is None else self.sources[i],
            truth=None if self.truths is None else self.truths[i],
            maps=None if self.maps is None else self.maps[i],
            presence=None if self.presence is None else self.presence[i],
            told=None if self.told is None else self.told[i],
        )

    def _account(
        self, activations: FloatArray, target: int, against: int | None, left: FloatArray | None, **extra: Any
    ) -> Ledger:
        weights, bias = self.weights[target], float(self.bias[target])
        if against is not None:
            weights, bias = weights - self.weights[against], bias - float(self.bias[against])
        concepts = self.concepts
        if left is not None:
            rest = float(left[target]) - (0.0 if against is None else float(left[against]))
            concepts, activations, weights = (
                (*concepts, EVERYTHING_ELSE),
                np.append(activations, 1.0),
                np.append(weights, rest),
            )
        return Ledger(
            concepts=concepts,
            activations=activations,
            weights=weights,
            bias=bias,
            target=self.classes[target],
            against=None if against is None else self.classes[against],
            **extra,
        )


def explain(
    activations: ArrayLike,
    weights: ArrayLike,
    bias: ArrayLike,
    concepts: Sequence[str],
    classes: Sequence[object],
    *,
    targets: Sequence[str | int] | NDArray[np.int64] | None = None,
    sources: Sequence[str] | None = None,
    truths: Sequence[object] | None = None,
    remainder: ArrayLike | None = None,
    presence: ArrayLike | None = None,
    worth: ArrayLike | None = None,
    multilabel: bool = False,
) -> Ledgers:
    """Account for the class scores of images under a linear head.

    Parameters
    ----------
    activations : array_like, shape (n, M) or (M,)
        Concept activations; exact zeros where a concept is inactive.
    weights : array_like, shape (K, M)
        Head weights.
    bias : array_like, shape (K,)
        Head intercepts.
    concepts : sequence of str
        M concept names.
    classes : sequence
        K class names.
    targets : sequence, optional
        Class name or index to explain for each image; by default the predicted class (highest score).
    sources : sequence of str, optional
        n image names, for titles.
    truths : sequence, optional
        n true class names.
    remainder : array_like, shape (n, K), optional
        What the concepts leave over of each score; one more line of each ledger.
    presence, worth, multilabel : optional
        See `Ledgers`.

    Returns
    -------
    Ledgers
        One `Ledger` an image; sums are in float64.

    Raises
    ------
    InputError
        If shapes do not fit, a value is not finite, or a class is unknown.

    Examples
    --------
    >>> ledgers = explain([[2.0, 0.5]], [[1.5, -1.0], [0.0, 1.0]], [0.25, 0.0], ["red", "long"], ["cardinal", "wren"])
    >>> ledgers[0].target, ledgers[0].score
    ('cardinal', 2.75)
    >>> ledgers.ledger(0, "cardinal", against="wren").score
    2.25
    """
    a, w, b = _finite(activations, "activations"), _finite(weights, "weights"), _finite(bias, "bias")
    a = np.atleast_2d(a)
    names, labels = tuple(map(str, concepts)), tuple(map(str, classes))
    if a.ndim != 2 or w.ndim != 2 or a.shape[1] != w.shape[1] or a.shape[1] != len(names):
        raise InputError(
            f"activations {a.shape}, weights {w.shape} and {len(names)} concept names do not fit: "
            "expected (n, M), (K, M) and M names"
        )
    if b.shape != (w.shape[0],) or len(labels) != w.shape[0]:
        raise InputError(
            f"weights {w.shape}, bias {b.shape} and {len(labels)} class names do not fit: expected (K, M), (K,), K"
        )
    for what, values in (("sources", sources), ("truths", truths), ("targets", targets)):
        if values is not None and len(values) != len(a):
            raise InputError(f"{what}: {len(values)} given for {len(a)} images; expected one an image")
    left = None if remainder is None else _finite(remainder, "remainder")
    if left is not None and left.shape != (len(a), len(labels)):
        raise InputError(f"remainder has shape {left.shape}: expected ({len(a)}, {len(labels)}), images and classes")
    made = Ledgers(
        a,
        w,
        b,
        names,
        labels,
        targets=np.zeros(len(a), dtype=np.int64),
        sources=None if sources is None else tuple(map(str, sources)),
        truths=None if truths is None else tuple(map(str, truths)),
        remainder=left,
        presence=None if presence is None else np.asarray(presence, dtype=np.float64).reshape(a.shape),
        worth=None if worth is None else np.asarray(worth, dtype=np.float64),
        multilabel=multilabel,
    )
    if targets is None:
        chosen = made.scores.argmax(axis=1)
    else:
        chosen = np.array([made._class(t if isinstance(t, str) else int(t)) for t in targets], dtype=np.int64)
    return made._replace(targets=chosen.astype(np.int64))


def _shap(values: FloatArray, base: Any, data: FloatArray, names: Sequence[str]) -> shap.Explanation:
    try:
        from shap import Explanation
    except ImportError as error:
        raise InputError("to_shap() makes a shap.Explanation: pip install shap") from error
    return Explanation(values, base_values=base, data=data, feature_names=list(names))


def _finite(values: ArrayLike, what: str) -> FloatArray:
    array = np.asarray(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise InputError(f"{what}: contains NaN or infinity; expected finite numbers")
    return array
