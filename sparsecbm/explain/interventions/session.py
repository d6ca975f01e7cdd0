"""Edits of concept activations at test time: every one changes the scores by a rank-one update and can be undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError, unknown
from sparsecbm.explain.ledger import Ledger, Ledgers

FloatArray = NDArray[np.float64]
Images = int | str | slice | Sequence[int] | NDArray[np.int64] | None


class _Step(NamedTuple):
    """One entry of the log: rows (n, 1) and columns, what stood there, what stands there now, and the scores before."""

    kind: str
    cells: tuple[NDArray[np.int64], NDArray[np.int64]]
    before: FloatArray
    after: FloatArray
    scores: FloatArray
    told: FloatArray


@dataclass(frozen=True)
class LoggedEdit:
    """One step of the log, in words.

    Attributes
    ----------
    kind : {"set", "zero", "replace", "correct"}
    images : list of int
    concepts : list of str
    before, after : list of list of float, shape (images, concepts)
    """

    kind: str
    images: list[int]
    concepts: list[str]
    before: list[list[float]]
    after: list[list[float]]


class Interventions:
    """Concept activations under edit.

    The head is linear, so changing one activation by d changes the scores by ``d * weights[:, concept]``: an edit costs
    K multiplications, whatever the number of concepts. Every step keeps what it overwrote, activations and scores, so
    `undo` restores both bit for bit.

    Parameters
    ----------
    ledgers : Ledgers
        Of the images to intervene on; they are not changed.

    Examples
    --------
    >>> from sparsecbm.explain import explain
    >>> ledgers = explain([[2.0, 0.0]], [[1.0, 0.0], [0.0, 3.0]], [0.0, 0.0], ["red crown", "crest"], ["finch", "jay"])
    >>> edits = Interventions(ledgers)
    >>> edits.set(0, "crest", 1.0)
    >>> edits.predictions
    ['jay']
    >>> edits.undo()
    1
    >>> edits.predictions
    ['finch']
    """

    def __init__(self, ledgers: Ledgers) -> None:
        self._ledgers = ledgers
        self._activations = np.array(ledgers.activations, dtype=np.float64)
        self._scores = np.array(ledgers.scores, dtype=np.float64)
        self._told = np.full(self._activations.shape, np.nan) if ledgers.told is None else ledgers.told.copy()
        self._weights = np.ascontiguousarray(ledgers.weights.T)  # a row a concept
        self._columns = {name: j for j, name in enumerate(ledgers.concepts)}
        self._rows = {name: i for i, name in enumerate(ledgers.sources or ())}
        self._done: list[_Step] = []

    # -- what stands now -----------------------------------------------------------------------------------------------

    @property
    def activations(self) -> FloatArray:
        """Activations as edited, shape (n, M); read-only."""
        return _read_only(self._activations)

    @property
    def scores(self) -> FloatArray:
        """Class scores as edited, shape (n, K); read-only."""
        return _read_only(self._scores)

    @property
    def targets(self) -> NDArray[np.int64]:
        """Predicted class index of each image, shape (n,)."""
        return self._scores.argmax(axis=1)

    @property
    def predictions(self) -> list[str]:
        """Predicted class name of each image."""
        return [self._ledgers.classes[k] for k in self.targets]

    @property
    def ledgers(self) -> Ledgers:
        """Ledgers of the edited activations, explaining the class that is predicted now."""
        now = {"activations": self._activations.copy(), "told": self._told.copy()}
        return self._ledgers._replace(**now, targets=self.targets, against=None)

    def ledger(self, image: int | str, target: str | int | None = None, against: str | int | None = None) -> Ledger:
        """Return the ledger of one edited image; see `Ledgers.ledger`."""
        i = int(self._images(image))
        now = {"activations": self._activations[[i]].copy(), "told": self._told[[i]].copy()}
        one = self._ledgers.select([i])._replace(**now, against=None)
        return one._replace(targets=self._scores[[i]].argmax(axis=1)).ledger(0, target, against)

    def accuracy(self, labels: ArrayLike) -> float:
        """Share of images whose predicted class index is the one in `labels`, shape (n,)."""
        return float((self.targets == np.asarray(labels)).mean())

    # -- edits ---------------------------------------------------------------------------------------------------------

    def set(self, image: Images, concept: str | int, value: float | ArrayLike) -> None:
        """Set one concept's activation.

        Parameters
        ----------
        image : int, str, slice, sequence of int, or None
            Which image, by row or by name; several; or all (None).
        concept : str or int
            Name or column.
        value : float or array_like
            New activation; one for all the images, or one an image.

        Raises
        ------
        InputError
            If image or concept is unknown, or the value is not finite.
        """
        rows, after = self._images(image), np.asarray(value, dtype=np.float64)
        if after.ndim and after.shape != np.shape(rows):
            raise InputError(f"value has shape {after.shape}: expected one number, or one an image {np.shape(rows)}")
        self._apply("set", rows, [self._concept(concept)], after.reshape(-1, 1))

    def correct(self, image: Images, concept: str | int, presence: float | ArrayLike) -> None:
        """Say whether a concept is there: its activation becomes what that is worth to the model.

        Parameters
        ----------
        image, concept
            See `set`.
        presence : float or array_like
            0 absent, 1 present, or a probability; one for all the images, or one an image.

        Raises
        ------
        InputError
            If the ledgers do not know what presence is worth (they come from a model with concept labels), or a value
            is outside [0, 1].
        """
        j, said = self._concept(concept), np.asarray(presence, dtype=np.float64)
        if self._ledgers.worth is None:
            raise InputError("what is present or absent worth? expected ledgers of a model with concept labels")
        if not ((said >= 0) & (said <= 1)).all():
            raise InputError(f"presence={presence!r}: expected 0, 1, or a probability")
        absent, present = self._ledgers.worth[:, j]
        after = (absent + said * (present - absent)).reshape(-1, 1)
        self._apply("correct", self._images(image), [j], after, said.reshape(-1, 1))

    def zero(self, image: Images, concept: str | int) -> None:
        """Make one concept inactive; see `set`."""
        self._apply("zero", self._images(image), [self._concept(concept)], 0.0)

    def replace(self, image: Images, values: Mapping[str, float] | ArrayLike) -> None:
        """Replace several activations in one step: some by name, or a whole row (another image's, say).

        Parameters
        ----------
        image : int, str, slice, sequence of int, or None
            See `set`.
        values : mapping of str to float, or array_like of shape (M,)
            New activations.
        """
        if isinstance(values, Mapping):
            columns, after = [self._concept(name) for name in values], np.array([float(v) for v in values.values()])
        else:
            columns, after = list(range(self._activations.shape[1])), np.asarray(values, dtype=np.float64)
            if after.shape != (len(columns),):
                raise InputError(f"values have shape {after.shape}: expected ({len(columns)},), one a concept")
        self._apply("replace", self._images(image), columns, after)

    def undo(self, steps: int = 1) -> int:
        """Take back the last steps, bit for bit; returns how many there were to take back."""
        count = min(steps, len(self._done))
        for _ in range(count):
            step = self._done.pop()
            self._activations[step.cells], self._told[step.cells] = step.before, step.told
            self._scores[step.cells[0][:, 0]] = step.scores
        return count

    def reset(self) -> int:
        """Undo everything."""
        return self.undo(len(self._done))

    # -- the log -------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._done)

    @property
    def log(self) -> list[LoggedEdit]:
        """The steps that stand, oldest first."""
        names = self._ledgers.concepts
        return [
            LoggedEdit(
                step.kind,
                step.cells[0][:, 0].tolist(),
                [names[j] for j in step.cells[1]],
                step.before.tolist(),
                step.after.tolist(),
            )
            for step in self._done
        ]

    def __repr__(self) -> str:
        """Name the sizes and the number of edits."""
        n, m = self._activations.shape
        return f"<Interventions on {n} images, {m} concepts: {len(self._done)} edits>"

    # -- inside --------------------------------------------------------------------------------------------------------

    def _apply(self, kind: str, rows: Any, columns: Sequence[int], after: Any, told: Any = np.nan) -> None:
        rows, index = np.atleast_1d(rows), np.array(columns, dtype=np.int64)
        cells = rows[:, None], index
        before = self._activations[cells]
        values = np.empty_like(before)
        values[...] = after
        if not np.isfinite(values).all():
            raise InputError(f"{kind}: the values hold NaN or infinity; expected finite activations")
        self._done.append(_Step(kind, cells, before, values, self._scores[rows], self._told[cells]))
        self._activations[cells], self._told[cells] = values, told
        self._scores[rows] += (values - before) @ self._weights[index]

    def _images(self, image: Images) -> Any:
        """Row of one image, or rows of several."""
        n = len(self._activations)
        if isinstance(image, str):
            if image not in self._rows:
                raise unknown("image", image, list(self._rows)[:20])
            return self._rows[image]
        if image is None or isinstance(image, slice):
            return np.arange(n)[image or slice(None)]
        rows = np.asarray(image, dtype=np.int64)
        if not rows.ndim and -n <= rows < n:
            return int(rows) % n
        if rows.ndim != 1 or (len(rows) and (rows.min() < 0 or rows.max() >= n)):
            raise InputError(f"image {image!r}: expected a row from 0 to {n - 1}, rows, or an image name")
        if len(np.unique(rows)) != len(rows):
            raise InputError(f"images {image!r}: a row is named twice")
        return rows

    def _concept(self, concept: str | int) -> int:
        if isinstance(concept, str):
            if concept not in self._columns:
                raise unknown("concept", concept, self._columns)
            return self._columns[concept]
        if not 0 <= int(concept) < len(self._weights):
            raise InputError(f"concept {concept!r}: expected a column from 0 to {len(self._weights) - 1}, or a name")
        return int(concept)


def _read_only(array: FloatArray) -> FloatArray:
    view = array.view()
    view.flags.writeable = False
    return view
