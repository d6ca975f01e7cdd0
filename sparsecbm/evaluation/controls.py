"""Controls: what an accuracy over concepts is worth.

Random concepts can reach published accuracies, so each result stands beside

* ``matched_directions``: the same recipe on as many meaningless directions with the mean and covariance of the concept
  embeddings (`matched_directions`). What the concepts reach beyond it is their *advantage*;
* ``equal_freedom``: the same directions, each given the freedom to turn that the fitted model gave the concept of its
  number. Where the recipe gives all concepts the same freedom, this is the control above;
* ``random_words``: the same recipe on embeddings of words that have nothing to do with the classes;
* ``random_directions``: the same recipe on uniformly random unit vectors, an easier control, on request;
* ``shuffled_names``: the same model with its names permuted against its concept embeddings. A classifier that never
  reads a name keeps its accuracy exactly, so this control is about the explanations: name alignment and concept AUC
  under a permutation are the floor that the model's own must clear. Where names do take part in training (a
  `concept_relevance` for each class, or a factory of unknown inner life), the model is trained again on the permuted
  concepts, and the accuracy counts too;
* ``linear_probe`` and ``nearest_mean``: no concepts at all, on the same embeddings.

The estimator comes in as a factory, so that any classifier over concept embeddings can be put on trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.neighbors import NearestCentroid

from sparsecbm._base.directions import matched_directions, random_directions
from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.parameters import Count, checked
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import evenly_spaced
from sparsecbm.evaluation.meaning import concept_auc, name_alignment
from sparsecbm.evaluation.metrics import paired_difference
from sparsecbm.evaluation.probes import ProbeInDisguiseWarning, disguise, linear_probe, nec_grid
from sparsecbm.evaluation.refits import refit

#: Builds an unfitted classifier over embeddings from concept embeddings (M, d) and a seed.
Factory = Callable[[np.ndarray, int], Any]

#: Name and meaning of every row of the table, in its order; the first two are the classifier on trial.
ROWS: dict[str, tuple[str, str]] = {
    "concepts": ("The model", "its own concepts"),
    "retrained": ("Same, retrained", "the same recipe with other seeds"),
    "matched_directions": ("Meaningless directions", "the same recipe on as many directions that mean nothing"),
    "equal_freedom": (
        "The same, equally free",
        "meaningless directions, each as free to turn as the concept it replaces",
    ),
    "random_words": ("Random words", "the same recipe on words that have nothing to do with the pictures"),
    "random_directions": ("Random directions", "the same recipe on directions drawn from all sides"),
    "shuffled_names": ("Shuffled names", "this model, its names permuted: only alignment and AUC can show it"),
    "linear_probe": ("Linear probe", "no concepts: logistic regression on the same embeddings"),
    "nearest_mean": ("Nearest class mean", "no concepts, no training: the closest class mean"),
}

#: Names of all controls, and of those that run unasked.
ALL_CONTROLS = tuple(ROWS)[2:]
CONTROLS = tuple(name for name in ALL_CONTROLS if name != "random_directions")

#: Controls that put other vectors in the concepts' place.
_BANKS = ("matched_directions", "equal_freedom", "random_words", "random_directions", "shuffled_names")

_PERMUTATIONS = 10

_MAX_MEASURED = 20_000
"""Test images, evenly spread, for alignment and AUC: they need (n, M) arrays at once."""


@dataclass(frozen=True)
class ControlReport:
    """Accuracies of a classifier and of its controls on the same test images.

    Attributes
    ----------
    accuracy : dict of str to list of float
        Test accuracy for each seed; "concepts" is the classifier on trial, "retrained" its recipe with other seeds.
    differences : dict of str to dict
        `paired_difference` of the classifier (first seed) from each control. With one seed the interval is over
        pictures alone; with more it also holds the luck of the draw.
    n_concepts : dict of str to int
        Concepts used; 0 where there are none.
    alignment : dict of str to float
        Mean name alignment on the test images, for classifiers with ``units`` or ``transform``.
    concept_auc : dict of str to float
        Mean AUC of the activations against the truth of the concepts whose names they carry, where truth was given.
    paths : dict of str to list of dict
        Accuracy against NEC on the activations (first seed), the rows of `HeadPath.table`.
    skipped : dict of str to str
        Controls that were not run, and why.
    warnings : tuple of str
        What a reader should know.
    """

    accuracy: dict[str, list[float]]
    differences: dict[str, dict[str, float]]
    n_concepts: dict[str, int]
    alignment: dict[str, float] = field(default_factory=dict)
    concept_auc: dict[str, float] = field(default_factory=dict)
    paths: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def table(self) -> list[dict[str, Any]]:
        """One row for each classifier, ready for JSON: mean and sd of the accuracy, difference and its interval."""
        rows = []
        for name, values in self.accuracy.items():
            row: dict[str, Any] = {"name": name, "n_concepts": self.n_concepts[name]}
            row["accuracy"] = float(np.mean(values))
            row["sd"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
            row["seeds"] = len(values)
            row["name_alignment"] = self.alignment.get(name)
            row["concept_auc"] = self.concept_auc.get(name)
            row.update({key: self.differences.get(name, {}).get(key) for key in ("difference", "low", "high")})
            rows.append(row)
        return rows

    @property
    def anec(self) -> dict[str, float]:
        """Mean accuracy over NEC = 5, 10, ..., 30 of each path that has them all (ANEC)."""
        found = {name: {row["nec"]: row["accuracy"] for row in path} for name, path in self.paths.items()}
        wanted = nec_grid(1000)
        return {name: float(np.mean([of[k] for k in wanted])) for name, of in found.items() if set(wanted) <= set(of)}

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {
            "table": self.table(),
            "rows": control_table(self),
            "paths": self.paths,
            "anec": self.anec,
            "skipped": self.skipped,
            "warnings": list(self.warnings),
            "advantage": self.advantage,
            "verdict": self.verdict(),
        }

    @property
    def advantage(self) -> dict[str, dict[str, float]]:
        """What the concepts reach beyond meaningless directions, by control; empty where that was not run.

        ``own_recipe`` and ``equal_freedom``, each with the control's ``accuracy`` (mean over draws), the ``difference``
        and its interval, ``low`` to ``high``, and the number of ``draws``. They are one control where the recipe frees
        all concepts alike.
        """
        found = {}
        for key, name in (("own_recipe", "matched_directions"), ("equal_freedom", "equal_freedom")):
            name = name if name in self.differences else "matched_directions"
            if name in self.differences:
                gap = {part: self.differences[name][part] for part in ("difference", "low", "high")}
                draws = len(self.accuracy[name])
                found[key] = {"accuracy": float(np.mean(self.accuracy[name])), "draws": draws, **gap}
        return found

    def verdict(self) -> str | None:
        """Say in one sentence whether the accuracy owes anything to the concepts; None without the control."""
        return None if not self.advantage else advantage_in_words(self.accuracy["concepts"][0], self.advantage)


def advantage_in_words(accuracy: float, advantage: Mapping[str, Mapping[str, float]]) -> str:
    """Put an accuracy beside what the same number of meaningless directions reaches.

    Parameters
    ----------
    accuracy : float
        Of the concepts, in [0, 1].
    advantage : mapping
        `ControlReport.advantage`. An interval from one draw of directions is over pictures alone, and is said so: it
        is too narrow by the luck of the draw.

    Examples
    --------
    >>> found = {"own_recipe": {"accuracy": 0.662, "difference": 0.031, "low": 0.02, "high": 0.043}}
    >>> first, rest = advantage_in_words(0.693, found).split("; ")
    >>> first
    'The same number of meaningless directions reaches 66.2%'
    >>> rest
    'these concepts reach 69.3%: what they mean is worth 3.1 points (2.0 to 4.3: 95% interval over pictures, one draw).'
    """
    hardest = min(advantage.values(), key=lambda found: found["difference"])
    said = f"The same number of meaningless directions reaches {hardest['accuracy']:.1%}"
    if hardest["low"] <= 0:
        return f"{said}; these concepts reach {accuracy:.1%}: it does not show that what they mean matters."
    gap, low, high = (100 * hardest[key] for key in ("difference", "low", "high"))
    interval = "95% interval" if hardest.get("draws", 1) > 1 else "95% interval over pictures, one draw"
    return (
        f"{said}; these concepts reach {accuracy:.1%}: what they mean is worth {gap:.1f} points "
        f"({low:.1f} to {high:.1f}: {interval})."
    )


def control_table(report: ControlReport) -> list[dict[str, Any]]:
    """Rows for a page or a terminal: ``name`` and ``note`` in words, ``accuracy``, and ``sd`` (None for one seed).

    Parameters
    ----------
    report : ControlReport

    Returns
    -------
    list of dict
        The classifier on trial first, then its controls in the order of `CONTROLS`; accuracies in [0, 1].
    """
    return [
        {"name": ROWS[row["name"]][0], "accuracy": row["accuracy"], "sd": row["sd"], "note": ROWS[row["name"]][1]}
        for row in report.table()
    ]


def estimator_factory(estimator: BaseEstimator) -> Factory:
    """Factory from an unfitted estimator with a ``concept_embeddings`` parameter.

    `random_state` is set where there is one; `concept_names` is reset where the number of concepts differs.
    """
    known = estimator.get_params(deep=False)
    if "concept_embeddings" not in known:
        raise InputError(f"{type(estimator).__name__} has no parameter concept_embeddings: pass a factory instead")

    def build(concepts: np.ndarray, seed: int) -> BaseEstimator:
        settings: dict[str, Any] = {"concept_embeddings": concepts}
        if "random_state" in known:
            settings["random_state"] = seed
        names = known.get("concept_names")
        if names is not None and len(names) != len(concepts):
            settings["concept_names"] = None
        return clone(estimator).set_params(**settings)

    return build


def run_controls(
    estimator: BaseEstimator | Factory,
    X: ArrayLike,
    y: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    concept_embeddings: ArrayLike | None,
    *,
    fitted: Any = None,
    retrain: bool = False,
    random_word_embeddings: ArrayLike | None = None,
    controls: Sequence[str] = CONTROLS,
    n_seeds: int = 1,
    nec: Sequence[int] = (),
    truth: tuple[Sequence[int], ArrayLike] | None = None,
    random_state: int = 0,
    checkpoint_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    verbose: bool | None = False,
) -> ControlReport:
    """Fit a classifier and its controls on the same embeddings and score them on the same test images.

    Parameters
    ----------
    estimator : estimator with a ``concept_embeddings`` parameter, or Factory
        The classifier on trial, unfitted.
    X, X_test : array-like of shape (n, d) and (n_test, d)
        Embeddings.
    y, y_test : array-like of shape (n,) and (n_test,)
        Labels.
    concept_embeddings : array-like of shape (M, d), or None
        Its concepts. None (the columns of `X` are concept scores): no other concepts can be put in their place, and
        the controls that need it are skipped.
    fitted : estimator, optional
        The classifier on trial as already trained: scored as it is, and trained again only by `retrain`.
    retrain : bool
        With `fitted`, also train its recipe again for every seed: the row "retrained".
    random_word_embeddings : array-like of shape (R, d), optional
        Text embeddings of unrelated words; M of them are drawn for each seed (all of them where R < M, and the table
        says so). Without them the control is skipped.
    controls : sequence of str
        Names among `ALL_CONTROLS`.
    n_seeds : int
        Repetitions with seeds random_state, random_state + 1, ...; they seed the estimator and the random concepts.
    nec : sequence of int
        Also follow `SparseHead.path` at these NEC on the activations of the classifier and of the banks put in its
        concepts' place (first seed): heads fitted on the training activations, scored on the test activations,
        nothing chosen there.
    truth : tuple of (columns, attributes), optional
        Numbers of the concepts whose truth is known, and that truth, bool (n_test, len(columns)).
    random_state : int
        First seed.
    checkpoint_dir : path, optional
        Keep trainings (of estimators whose ``fit`` takes a `checkpoint_dir`) and finished heads of the paths there; the
        same call, interrupted, goes on from them.
    cache_dir : path, optional
        Keep fitted controls there, by data and recipe, for the next call (`refit`).
    verbose : bool or None
        Progress bar; None shows it on a terminal when it takes more than a second.

    Warns
    -----
    ProbeInDisguiseWarning
        If M >= d and the head is dense.
    """
    X, X_test = np.asarray(X), np.asarray(X_test)
    y, y_test = np.asarray(y), np.asarray(y_test)
    concepts = None if concept_embeddings is None else np.asarray(concept_embeddings)
    if X.ndim != 2 or X_test.ndim != 2 or X.shape[1] != X_test.shape[1] or (
        concepts is not None and (concepts.ndim != 2 or concepts.shape[1] != X.shape[1])
    ):  # fmt: skip
        shape = "" if concepts is None else f", concepts {concepts.shape}"
        raise InputError(f"embeddings {X.shape} and {X_test.shape}{shape}: expected matrices with equal columns")
    for name in controls:
        if name not in ALL_CONTROLS:
            raise unknown("control", name, ALL_CONTROLS)
    checked("n_seeds", n_seeds, Count)
    if concepts is None and fitted is None:
        raise InputError("concept_embeddings=None needs `fitted`: there are no concepts to train the classifier on")
    words = None if random_word_embeddings is None else np.asarray(random_word_embeddings)
    if words is not None and (words.ndim != 2 or words.shape[1] != X.shape[1]):
        raise InputError(f"random_word_embeddings have shape {words.shape}: expected (words, {X.shape[1]})")
    trial = _Trial(
        None if concepts is None else estimator_factory(estimator) if hasattr(estimator, "get_params") else estimator,
        X,
        y,
        X_test,
        y_test,
        concepts,
        words,
        tuple(controls),
        tuple(nec),
        truth,
        int(random_state),
        # Whether names (through the relevance of each name for each class) take part in training.
        not hasattr(estimator, "get_params") or getattr(estimator, "concept_relevance", None) is not None,
        None if checkpoint_dir is None else Path(checkpoint_dir),
        None if cache_dir is None else Path(cache_dir),
    )
    trial.run(fitted, retrain, n_seeds, verbose)
    return trial.report()


@dataclass
class _Trial:
    """One call of `run_controls`: gathers the rows."""

    build: Factory | None
    X: np.ndarray
    y: np.ndarray
    X_test: np.ndarray
    y_test: np.ndarray
    concepts: np.ndarray | None
    words: np.ndarray | None
    controls: tuple[str, ...]
    nec: tuple[int, ...]
    truth: tuple[Sequence[int], ArrayLike] | None
    seed: int
    names_matter: bool
    checkpoint_dir: Path | None
    cache_dir: Path | None
    accuracy: dict[str, list[float]] = field(default_factory=dict)
    right: dict[str, list[np.ndarray]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    alignment: dict[str, list[float]] = field(default_factory=dict)
    auc: dict[str, list[float]] = field(default_factory=dict)
    paths: dict[str, list[dict[str, float]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def run(self, fitted: Any, retrain: bool, n_seeds: int, verbose: bool | None) -> None:
        self._skip()
        banks = [name for name in _BANKS if self._runs(name)]
        steps = n_seeds * ((fitted is None or retrain) + len(banks))
        steps += sum(self._runs(name) for name in ("linear_probe", "nearest_mean")) + len(banks) * bool(self.nec)
        with ProgressBar("controls", steps, verbose) as bar:
            trial = fitted
            if fitted is not None:
                self._judge(fitted)
                self._path("concepts", fitted, bar)
            for seed in range(self.seed, self.seed + n_seeds):
                drawn = self._draw(np.random.default_rng(seed))
                for name in ("concepts", *banks):
                    row = "retrained" if name == "concepts" and fitted is not None else name
                    if row == "retrained" and not retrain:
                        continue
                    if name == "shuffled_names" and not self.names_matter:
                        self._permute_names(trial, seed)
                        continue
                    free = getattr(trial, "freedoms", None) if name == "equal_freedom" else None
                    given = {} if free is None else dict(free())
                    if name == "equal_freedom" and not given:
                        continue  # all are equally free: it is the control before it
                    bar.update(0, name.replace("_", " "))
                    model = self._fit(drawn[name], seed, name, given)
                    bar.update(1)
                    if row == "concepts" and trial is None:
                        trial = model
                        self._judge(model)
                    else:
                        self._score(row, model, len(drawn[name]))
                        if row in ("concepts", "retrained", "shuffled_names"):
                            self._meaning(row, model)
                    if seed == self.seed and row in ("concepts", *banks) and row != "shuffled_names":
                        self._path(row, model, bar)
            if self._runs("linear_probe"):
                bar.update(0, "linear probe")
                self._score("linear_probe", linear_probe().fit(self.X, self.y), 0)
                bar.update(1)
            if self._runs("nearest_mean"):
                self._score("nearest_mean", NearestCentroid().fit(self.X, self.y), 0)
                bar.update(1)

    def _fit(self, bank: np.ndarray, seed: int, name: str, given: dict[str, Any]) -> Any:
        assert self.build is not None
        model = self.build(bank, seed)
        if given:
            model.set_params(**given)
        kept = None if self.checkpoint_dir is None else self.checkpoint_dir / f"{name}-{seed}"
        return refit(model, self.X, self.y, cache_dir=self.cache_dir, checkpoint_dir=kept)

    def _runs(self, name: str) -> bool:
        return name in self.controls and name not in self.skipped

    def _skip(self) -> None:
        if self.concepts is None:
            why = "the model was trained on concept scores: their embeddings are not known"
            self.skipped.update({name: why for name in _BANKS if name in self.controls})
        elif "random_words" in self.controls and self.words is None:
            self.skipped["random_words"] = "no text embeddings of random words were given"

    def _draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if self.concepts is None:
            return {}
        # All are drawn in a fixed order, so that leaving out one control changes no other.
        size, dim = self.concepts.shape
        matched, order = matched_directions(self.concepts, rng), rng.permutation(size)
        drawn = {"concepts": self.concepts, "matched_directions": matched, "equal_freedom": matched}
        drawn["shuffled_names"] = self.concepts[order]
        if self.words is not None:
            drawn["random_words"] = self.words[rng.choice(len(self.words), min(size, len(self.words)), replace=False)]
        drawn["random_directions"] = random_directions(size, dim, rng)
        return drawn

    def _score(self, name: str, model: Any, n_concepts: int) -> None:
        hits = (np.asarray(model.predict(self.X_test)) == self.y_test).astype(float)
        self.accuracy.setdefault(name, []).append(float(hits.mean()))
        self.right.setdefault(name, []).append(hits)
        self.sizes[name] = n_concepts

    def _judge(self, model: Any) -> None:
        """Score the classifier on trial and look for a probe in disguise."""
        size = self.X.shape[1] if self.concepts is None else len(self.concepts)
        self._score("concepts", model, size)
        self._meaning("concepts", model)
        weights = getattr(model, "head_weights_", getattr(model, "coef_", None))
        if weights is None or self.concepts is None:
            return
        active = None
        if hasattr(model, "transform"):
            active = float((np.asarray(model.transform(self._measured)) != 0).sum(1).mean())
        if note := disguise(size, self.X.shape[1], weights, active):
            self.notes.append(note)
            warnings.warn(note, ProbeInDisguiseWarning, stacklevel=4)

    @property
    def _rows(self) -> np.ndarray:
        return evenly_spaced(len(self.X_test), _MAX_MEASURED)

    @property
    def _measured(self) -> np.ndarray:
        return self.X_test[self._rows]

    def _meaning(self, name: str, model: Any, orders: Sequence[np.ndarray] = ()) -> None:
        """Alignment and AUC of the units: unit j carries the name of concept j, whatever vector it was given."""
        units, activations = self._units(model)
        if units is None or self.concepts is None:
            return
        scores = self._measured @ self.concepts.T
        for order in orders or [np.arange(len(self.concepts))]:
            self.alignment.setdefault(name, []).append(name_alignment(units[:, order], scores).mean)
            if self.truth is not None:
                columns, attributes = self.truth
                of_units = concept_auc(activations[:, order[list(columns)]], np.asarray(attributes)[self._rows])
                self.auc.setdefault(name, []).append(of_units.mean)

    def _units(self, model: Any) -> tuple[Any, Any]:
        if not hasattr(model, "transform"):
            return None, None
        X = self._measured
        activations = np.asarray(model.transform(X))
        units = np.asarray(model.units(X)) if hasattr(model, "units") else activations
        shape = None if self.concepts is None else (len(X), len(self.concepts))
        return (units, activations) if units.shape == activations.shape == shape else (None, None)

    def _permute_names(self, model: Any, seed: int) -> None:
        """The model under other names: the accuracy stays, alignment and AUC fall to what chance gives."""
        self.accuracy.setdefault("shuffled_names", []).append(self.accuracy["concepts"][0])
        self.right.setdefault("shuffled_names", []).append(self.right["concepts"][0])
        self.sizes["shuffled_names"] = self.sizes["concepts"]
        if seed == self.seed:
            rng = np.random.default_rng([self.seed, 1])
            orders = [rng.permutation(self.sizes["concepts"]) for _ in range(_PERMUTATIONS)]
            self._meaning("shuffled_names", model, orders)

    def _path(self, name: str, model: Any, bar: ProgressBar) -> None:
        if not self.nec or not hasattr(model, "transform"):
            return
        from sparsecbm.heads import SparseHead

        bar.update(0, f"{name.replace('_', ' ')}, NEC {self.nec[0]} to {self.nec[-1]}")
        found = SparseHead(random_state=self.seed).path(
            model.transform(self.X),
            self.y,
            self.nec,
            test=(model.transform(self.X_test), self.y_test),
            checkpoint_dir=None if self.checkpoint_dir is None else self.checkpoint_dir / f"{name}-path",
        )
        self.paths[name] = found.table()
        bar.update(1)

    def report(self) -> ControlReport:
        size = self.sizes["concepts"]
        if self.sizes.get("random_words", size) < size:
            self.notes.append(f"only {self.sizes['random_words']} random words for {size} concepts")
        ordered = [name for name in ROWS if name in self.accuracy]
        first = self.right["concepts"][0]
        return ControlReport(
            {name: self.accuracy[name] for name in ordered},
            {
                name: paired_difference(first, self.right[name], random_state=self.seed)
                for name in ordered
                if name != "concepts"
            },
            {name: self.sizes[name] for name in ordered},
            {name: float(np.mean(values)) for name, values in self.alignment.items()},
            {name: float(np.mean(values)) for name, values in self.auc.items()},
            {name: self.paths[name] for name in ordered if name in self.paths},
            self.skipped,
            tuple(self.notes),
        )
