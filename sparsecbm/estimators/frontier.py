"""What a few concepts reach, and what of it they owe to what they mean: every budget from one fit a tie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from sparsecbm._base.checkpoint import Steps
from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import evenly_spaced
from sparsecbm.estimators.recipe import LEAST_ACTIVE, LEAST_NEC

Recipe: TypeAlias = Any
"""A `SparseCBMClassifier`; its own file imports this one."""

NEC = (1, 2, 3, 5, 10, 30)
ACTIVE = (2, 4, 8, 16, 32)

_MAX_MEASURED = 5000
"""Pictures, evenly spread, on which survival is measured."""


@dataclass(frozen=True)
class FrontierPoint:
    """One budget and what it reaches on held-out pictures.

    Attributes
    ----------
    tie : str
        How far units may turn from their concepts.
    nec, active : int
        Head weights a class (`concepts_per_class`), and concepts a picture (`max_active_concepts`), at most.
    accuracy : float
        In [0, 1].
    meaningless : float or None
        Accuracy of as many meaningless directions by the same recipe, each as free to turn as the concepts.
    low, high : float or None
        95% interval, over pictures, of ``accuracy - meaningless``.
    survival : float or None
        Of the concepts that decide; see `sparsecbm.evaluation.survival`.
    used : float
        Concepts that take part in the decision about a picture, on average.
    """

    tie: str
    nec: int
    active: int
    accuracy: float
    meaningless: float | None
    low: float | None
    high: float | None
    survival: float | None
    used: float

    @property
    def advantage(self) -> float | None:
        """Accuracy beyond meaningless directions."""
        return None if self.meaningless is None else self.accuracy - self.meaningless


@dataclass(frozen=True)
class Frontier:
    """Points over concepts a class, active concepts and ties.

    Attributes
    ----------
    points : tuple of FrontierPoint
    n_images : int
        Pictures they were measured on.
    """

    points: tuple[FrontierPoint, ...]
    n_images: int

    def table(self) -> list[dict[str, Any]]:
        """One row a point, ready for JSON."""
        return [{**asdict(point), "advantage": point.advantage} for point in self.points]

    def find(self, *, nec: int, active: int, tie: str) -> FrontierPoint:
        """Return one point.

        Raises
        ------
        InputError
            If it was not tried.
        """
        for point in self.points:
            if (point.nec, point.active, point.tie) == (nec, active, tie):
                return point
        tried = {name: sorted({getattr(point, name) for point in self.points}) for name in ("nec", "active", "tie")}
        said = "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in tried.items())
        raise InputError(f"nec={nec}, active={active}, tie={tie}: no such point was tried; {said}")

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"n_images": self.n_images, "points": self.table()}

    @classmethod
    def from_json(cls, stored: Any) -> Frontier:
        """Inverse of `to_json`.

        Raises
        ------
        InputError
            If it is not what `to_json` made.
        """
        names = [field.name for field in fields(FrontierPoint)]
        try:
            points = tuple(FrontierPoint(**{name: row[name] for name in names}) for row in stored["points"])
            return cls(points, int(stored["n_images"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"this is no frontier ({error!r}): expected points and n_images") from error


def make_frontier(
    recipe: Recipe,
    X: ArrayLike,
    y: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    *,
    nec: Sequence[int] = NEC,
    active: Sequence[int] = ACTIVE,
    ties: Sequence[str] | None = None,
    control: bool = True,
    checkpoint_dir: str | Path | None = None,
    verbose: bool | None = None,
) -> Frontier:
    """Train `recipe` once for each tie, and as many meaningless directions, and refit both for every budget.

    See `SparseCBMClassifier.frontier`.
    """
    if recipe.variant != "default":
        raise InputError(f"variant={recipe.variant!r} has no budgets to choose from: expected 'default'")
    for name, values in (("nec", nec), ("active", active)):
        if not len(values) or min(values) < 1:
            raise InputError(f"{name}={tuple(values)!r}: expected whole numbers of at least 1")
    y_test = np.asarray(y_test)
    ties = (recipe.tie,) if ties is None else tuple(ties)
    settings = {k: v for k, v in recipe.get_params(deep=False).items() if k not in ("verbose", "device", "log_dir")}
    job = [str(sorted((k, v) for k, v in settings.items() if not hasattr(v, "shape") and k != "concept_names"))]
    steps = Steps(
        checkpoint_dir, job, *(v for v in settings.values() if hasattr(v, "shape")), np.asarray(X),
        np.unique(y, return_inverse=True)[1], np.asarray(X_test), np.unique(y_test, return_inverse=True)[1],
    )  # fmt: skip
    points = []
    with ProgressBar("frontier", len(ties) * len(nec) * len(active), verbose) as bar:
        for tie in ties:
            side = _Tie(recipe, tie, X, y, X_test, y_test, control, checkpoint_dir)
            for k in sorted(nec):
                for a in sorted(active):
                    bar.update(0, note=f"{tie}, {k} a class, {a} active")
                    found = steps.result(f"{tie}-{k}-{a}-{int(control)}", side.measure(k, a))
                    points.append(_point(tie, k, a, found))
                    bar.update(1)
    return Frontier(tuple(points), len(y_test))


class _Tie:
    """One tie's two fits, made when the first of its points is not known yet, and its points."""

    def __init__(
        self,
        recipe: Recipe,
        tie: str,
        X: ArrayLike,
        y: ArrayLike,
        X_test: ArrayLike,
        y_test: np.ndarray,
        control: bool,
        checkpoint_dir: str | Path | None,
    ) -> None:
        self.X, self.y, self.X_test, self.y_test = X, y, X_test, y_test
        self.control = control and recipe.concept_embeddings is not None
        self.seen = evenly_spaced(len(y_test), _MAX_MEASURED)
        self.measured = np.asarray(X_test)[self.seen]
        # As narrow as training ever is: the same units then serve every budget.
        self.recipe = clone(recipe).set_params(
            tie=tie, concepts_per_class=LEAST_NEC, max_active_concepts=LEAST_ACTIVE, verbose=False
        )
        folder = None if checkpoint_dir is None else Path(checkpoint_dir)

        @cache
        def concepts() -> Recipe:
            return self.recipe.fit(X, y, checkpoint_dir=None if folder is None else folder / f"{tie}-concepts")

        @cache
        def meaningless() -> Recipe:
            from sparsecbm.evaluation import matched_directions

            seed = self.recipe.random_state if isinstance(self.recipe.random_state, int) else 0
            drawn = matched_directions(np.asarray(recipe.concept_embeddings), np.random.default_rng(seed))
            other = clone(self.recipe).set_params(concept_embeddings=drawn, **concepts().freedoms())
            return other.fit(X, y, checkpoint_dir=None if folder is None else folder / f"{tie}-meaningless")

        @cache
        def survived() -> np.ndarray:
            from sparsecbm.evaluation import survival

            model = concepts()
            return survival(model.units(self.measured), model.concept_scores(self.measured)).per_unit

        self.concepts, self.meaningless, self.survived = concepts, meaningless, survived

    def measure(self, nec: int, active: int) -> Callable[[], dict[str, Any]]:
        """Return what measures one point."""

        def decided(model: Recipe) -> tuple[Recipe, np.ndarray]:
            made = model.refit(self.X, self.y, concepts_per_class=nec, max_active_concepts=active)
            return made, np.asarray(made.predict(self.X_test))

        def right(predicted: np.ndarray) -> np.ndarray:
            return (predicted == self.y_test).astype(np.uint8)

        def make() -> dict[str, Any]:
            from sparsecbm.evaluation import used_in_decision

            model, predicted = decided(self.concepts())
            numbers = np.searchsorted(model.classes_, predicted[self.seen])
            used = used_in_decision(model.transform(self.measured), model.head_weights_, numbers)
            kept = self.survived()[used.concepts]
            return {
                "right": right(predicted),
                "control": right(decided(self.meaningless())[1]) if self.control else np.zeros(0, dtype=np.uint8),
                "survival": float(kept.mean()) if len(kept) else None,
                "used": used.mean,
            }

        return make


def _point(tie: str, nec: int, active: int, found: dict[str, Any]) -> FrontierPoint:
    from sparsecbm.evaluation import paired_bootstrap

    reached = low = high = None
    if len(found["control"]):
        reached = float(found["control"].mean())
        gap = paired_bootstrap(found["right"], found["control"], n_resamples=1000)
        low, high = gap["low"], gap["high"]
    accuracy = float(found["right"].mean())
    return FrontierPoint(tie, nec, active, accuracy, reached, low, high, found["survival"], found["used"])


__all__ = ["ACTIVE", "NEC", "Frontier", "FrontierPoint", "make_frontier"]
