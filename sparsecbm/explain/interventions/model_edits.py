"""Edits of a model itself: a concept suppressed for a class, or everywhere; kept with the model, undone at will."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError, unknown

KEY = "edits"
"""Where the log stands in the model's ``metadata_``."""


class EditableModel(Protocol):
    """What `ModelEdits` needs of an estimator: a linear head on named concepts, and metadata that `save` keeps."""

    head_weights_: NDArray[np.float64]
    concept_names_: list[str]
    classes_: NDArray[Any]
    metadata_: dict[str, Any]

    def predict(self, X: ArrayLike) -> NDArray[Any]: ...


class ModelEdits:
    """Edit the head weights of a fitted model.

    The model changes at once, and so do its predictions, ledgers and reports. The log, with every weight it overwrote,
    lies in ``model.metadata_["edits"]`` as JSON: `save` and `load` keep it, and a loaded model can be undone as well.

    Parameters
    ----------
    model : estimator
        Fitted, with ``head_weights_`` (K, M), ``concept_names_`` and ``metadata_``.

    Examples
    --------
    >>> import numpy as np
    >>> from sparsecbm import SparseCBMClassifier
    >>> X, y = np.eye(6), np.arange(6) % 2
    >>> model = SparseCBMClassifier(np.eye(6), list("abcdef"), max_iter=20, random_state=0).fit(X, y)
    >>> edits = ModelEdits(model)
    >>> edits.suppress("c")
    >>> float(abs(model.head_weights_[:, 2]).max())
    0.0
    >>> edits.undo()
    1
    """

    def __init__(self, model: EditableModel) -> None:
        for name in ("head_weights_", "concept_names_", "classes_"):
            if not hasattr(model, name):
                raise InputError(f"{type(model).__name__} has no {name}: expected a fitted model with a linear head")
        self.model = model
        if getattr(model, "metadata_", None) is None:
            model.metadata_ = {}
        self._concepts = {name: j for j, name in enumerate(model.concept_names_)}
        names = model.metadata_.get("class_names") or [str(c) for c in np.asarray(model.classes_).tolist()]
        self._classes = {str(name): k for k, name in enumerate(names)}

    # -- edits ---------------------------------------------------------------------------------------------------------

    def suppress(self, concept: str | Sequence[str], classes: str | Sequence[str] | None = None) -> None:
        """Take a concept out of the account of some classes, or of all: its head weights become 0.

        Parameters
        ----------
        concept : str or sequence of str
            One concept, or several in one step.
        classes : str or sequence of str, optional
            By default all.

        Raises
        ------
        InputError
            If a name is unknown.
        """
        self._apply("suppress", concept, classes, 0.0)

    def set_weight(self, concept: str, target: str, weight: float) -> None:
        """Set one head weight."""
        if not np.isfinite(weight):
            raise InputError(f"weight={weight!r}: expected a finite number")
        self._apply("set_weight", concept, target, float(weight))

    def undo(self, steps: int = 1) -> int:
        """Take back the last steps, bit for bit; returns how many there were to take back."""
        log = self._record()["steps"]
        count = 0
        while count < steps and log:
            self.model.head_weights_ = self._without(log.pop(), self.model.head_weights_)
            count += 1
        if not log:
            self.model.metadata_.pop(KEY, None)
        return count

    # -- the log -------------------------------------------------------------------------------------------------------

    @property
    def log(self) -> list[dict[str, Any]]:
        """The steps that stand, oldest first: kind, concepts, classes, weights before and after."""
        return list(self._record(make=False).get("steps", []))

    def __len__(self) -> int:
        return len(self.log)

    @property
    def measured(self) -> list[dict[str, Any]]:
        """What `measure` found, oldest first."""
        return list(self._record(make=False).get("measured", []))

    def original_weights(self) -> NDArray[np.float64]:
        """Return the head weights as they were before any edit, shape (K, M)."""
        return functools.reduce(
            lambda weights, step: self._without(step, weights), self.log[::-1], self.model.head_weights_
        )

    def measure(self, X: ArrayLike, y: ArrayLike, on: str = "test") -> dict[str, Any]:
        """Compare the accuracy before all edits and now, and keep it in the log.

        Parameters
        ----------
        X : array_like, shape (n, d)
            What the model predicts from.
        y : array_like, shape (n,)
            True classes.
        on : str
            Name of these images, for the record.

        Returns
        -------
        dict
            ``on``, ``images``, ``edits`` (how many stood), ``before``, ``after``, and ``fixed`` and ``broken``, the
            images that became right and wrong.
        """
        if not len(self):
            raise InputError("nothing was edited: there is no before and after to measure")
        truth = np.asarray(y)
        after = np.asarray(self.model.predict(X)) == truth
        edited = self.model.head_weights_
        try:
            self.model.head_weights_ = self.original_weights()
            before = np.asarray(self.model.predict(X)) == truth
        finally:
            self.model.head_weights_ = edited
        found = {
            "on": on,
            "images": len(truth),
            "edits": len(self),
            "before": float(before.mean()),
            "after": float(after.mean()),
            "fixed": int((after & ~before).sum()),
            "broken": int((before & ~after).sum()),
        }
        self._record().setdefault("measured", []).append(found)
        return found

    def to_text(self) -> str:
        """Return the log in words, one line a step or measurement."""
        lines = []
        for step in self.log:
            where = "every class" if len(step["classes"]) == len(self._classes) else ", ".join(step["classes"])
            what = ", ".join(step["concepts"])
            value = "" if step["kind"] == "suppress" else f" to {step['after']:.4g}"
            lines.append(f"{step['kind'].replace('_', ' ')} {what}{value} for {where}")
        for made in self.measured:
            edits = f"{made['edits']} edit{'s' if made['edits'] > 1 else ''}"
            lines.append(
                f"accuracy on {made['on']} ({made['images']:,} images, {edits}): "
                f"{made['before']:.1%} -> {made['after']:.1%}"
            )
        return "\n".join(lines) or "no edits"

    def __repr__(self) -> str:
        """Name the model and the number of edits."""
        return f"<ModelEdits of {type(self.model).__name__}: {len(self)} edits>"

    # -- inside --------------------------------------------------------------------------------------------------------

    def _apply(
        self, kind: str, concepts: str | Sequence[str], classes: str | Sequence[str] | None, after: float
    ) -> None:
        names = [concepts] if isinstance(concepts, str) else list(concepts)
        targets = list(self._classes) if classes is None else [classes] if isinstance(classes, str) else list(classes)
        index = self._cells(names, targets)
        weights = np.array(self.model.head_weights_, dtype=np.float64)
        step = {"kind": kind, "concepts": names, "classes": targets, "before": weights[index].tolist(), "after": after}
        weights[index] = after
        self.model.head_weights_ = weights
        self._record()["steps"].append(step)

    def _record(self, make: bool = True) -> dict[str, Any]:
        record = self.model.metadata_.get(KEY)
        if record is None:
            record = {"steps": []}
            if make:
                self.model.metadata_ = {**self.model.metadata_, KEY: record}
        return record

    def _without(self, step: dict[str, Any], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weights as they were before a step."""
        weights = weights.copy()
        weights[self._cells(step["concepts"], step["classes"])] = step["before"]
        return weights

    def _cells(self, concepts: Sequence[str], classes: Sequence[str]) -> tuple[NDArray[Any], ...]:
        """Index of the weights of some concepts in some classes."""
        for what, names, known in (("concept", concepts, self._concepts), ("class", classes, self._classes)):
            for name in names:
                if name not in known:
                    raise unknown(what, name, known)
        if not len(concepts) or not len(classes):
            raise InputError("expected at least one concept and one class")
        return np.ix_([self._classes[name] for name in classes], [self._concepts[name] for name in concepts])
