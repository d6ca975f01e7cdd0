"""Controls: what an accuracy over concepts is worth.

Random concepts can reach published accuracies, so each result stands beside

* ``random_words``: the same recipe on embeddings of words that have nothing to do with the classes;
* ``random_directions``: the same recipe on as many random unit vectors;
* ``shuffled_names``: the same model with its names permuted against its concept embeddings. A classifier that never
  reads a name keeps its accuracy exactly, so this control is about the explanations: name alignment and concept AUC
  under a permutation are the floor that the model's own must clear. Where names do take part in training (a
  `concept_relevance` for each class, or a factory of unknown inner life), the model is trained again on the permuted
  concepts, and the accuracy counts too;
* ``linear_probe`` and ``nearest_mean``: no concepts at all, on the same embeddings.

The estimator comes in as a factory, so that any classifier over concept embeddings can be put on trial.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.progress import ProgressBar
from sparsecbm.evaluation.metrics import concept_auc, mean_sd, name_alignment, paired_bootstrap
from sparsecbm.evaluation.words import random_words

__all__ = [
    "CONTROLS",
    "ControlReport",
    "Factory",
    "ProbeInDisguiseWarning",
    "control_table",
    "disguise",
    "estimator_factory",
    "linear_probe",
    "nec_grid",
    "random_directions",
    "random_words",
    "run_controls",
]

#: Builds an unfitted classifier over embeddings from concept embeddings (M, d) and a seed.
Factory = Callable[[np.ndarray, int], Any]

#: Names of the controls, in the order of the table.
CONTROLS = ("random_words", "random_directions", "shuffled_names", "linear_probe", "nearest_mean")

#: Name and meaning of every row of the table.
ROWS: dict[str, tuple[str, str]] = {
    "concepts": ("The model", "its own concepts"),
    "retrained": ("Same, retrained", "the same recipe with other seeds"),
    "random_words": ("Random words", "the same recipe on words that have nothing to do with the pictures"),
    "random_directions": ("Random directions", "the same recipe on random unit vectors"),
    "shuffled_names": ("Shuffled names", "this model, its names permuted: only alignment and AUC can show it"),
    "linear_probe": ("Linear probe", "no concepts: logistic regression on the same embeddings"),
    "nearest_mean": ("Nearest class mean", "no concepts, no training: the closest class mean"),
}

_PERMUTATIONS = 10

_MAX_MEASURED = 20_000
"""Test images, evenly spread, for alignment and AUC: they need (n, M) arrays at once."""


class ProbeInDisguiseWarning(UserWarning):
    """A dense head over at least d concepts: any linear classifier of the embeddings, whatever the concepts mean."""


@dataclass(frozen=True)
class ControlReport:
    """Accuracies of a classifier and of its controls on the same test images.

    Attributes
    ----------
    accuracy : dict of str to list of float
        Test accuracy for each seed; "concepts" is the classifier on trial, "retrained" its recipe with other seeds.
    differences : dict of str to dict
        `paired_bootstrap` of the classifier (first seed) against each control (first seed).
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
            mean, sd = mean_sd(values)
            row: dict[str, Any] = {"name": name, "n_concepts": self.n_concepts[name], "accuracy": mean}
            row["sd"] = None if np.isnan(sd) else sd
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
            "verdict": self.verdict(),
        }

    def verdict(self) -> str | None:
        """One sentence on whether the accuracy owes anything to the concepts; None without a control that can tell."""
        against = [name for name in ("random_words", "random_directions") if name in self.differences]
        if not against:
            return None
        level = [name for name in against if self.differences[name]["low"] <= 0]
        if level:
            said = " and ".join(name.replace("_", " ") for name in level)
            return f"{said.capitalize()} are not clearly worse: this accuracy does not show that the concepts matter."
        name = min(against, key=lambda name: self.differences[name]["difference"])
        gap, low, high = (100 * self.differences[name][key] for key in ("difference", "low", "high"))
        rest = "".join(f", {other.replace('_', ' ')} by more" for other in against if other != name)
        beaten = f"The concepts beat {name.replace('_', ' ')} by {gap:.1f} points"
        return f"{beaten} (95% interval {low:.1f} to {high:.1f}){rest}."


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


def random_directions(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """`n` uniformly random unit vectors (n, dim), float32."""
    vectors = rng.standard_normal((n, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def linear_probe() -> BaseEstimator:
    """Logistic regression on unit embeddings, centred and scaled by one number."""
    return make_pipeline(
        StandardScaler(with_std=False), FunctionTransformer(_unit_variance), LogisticRegression(C=0.1, max_iter=500)
    )


def _unit_variance(centred: np.ndarray) -> np.ndarray:
    # Unit rows of d dimensions have coordinates of variance about 1 / d; the factor makes C comparable across encoders.
    return centred * np.sqrt(centred.shape[1])


def disguise(
    n_concepts: int, embed_dim: int, head_weights: ArrayLike, active_per_image: float | None = None
) -> str | None:
    """Say why a head is a linear probe in disguise, or return None.

    Parameters
    ----------
    n_concepts, embed_dim : int
        M and d. With M >= d the concept scores determine the embedding.
    head_weights : array-like of shape (K, M)
        Weights of the head; "dense" means on average at least d, or more than half of all, non-zero in each class.
    active_per_image : float, optional
        Mean number of non-zero activations an image; below d the activations are no linear map of the embedding.
    """
    used = float((np.asarray(head_weights) != 0).sum(1).mean())
    if n_concepts < embed_dim or (used < embed_dim and used <= n_concepts / 2):
        return None
    if active_per_image is not None and active_per_image < embed_dim:
        return None
    return (
        f"{n_concepts} concepts span the {embed_dim}-dimensional embedding and the head uses {used:.0f} a class: "
        "this is a linear probe in disguise and any words would do as well; set concepts_per_class or "
        "max_active_concepts"
    )


def nec_grid(n_concepts: int) -> tuple[int, ...]:
    """NEC values of a path: 5, 10, ..., 30 (those of ANEC), and 1, 2, 3 as well for at most 100 concepts.

    Examples
    --------
    >>> nec_grid(1608), nec_grid(12)
    ((5, 10, 15, 20, 25, 30), (1, 2, 3, 5, 10))
    """
    first = (1, 2, 3) if n_concepts <= 100 else ()
    return tuple(k for k in (*first, 5, 10, 15, 20, 25, 30) if k <= n_concepts)


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
    probe: BaseEstimator | None = None,
    head_weights: ArrayLike | None = None,
    random_state: int = 0,
    checkpoint_dir: str | Path | None = None,
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
        Names among `CONTROLS`.
    n_seeds : int
        Repetitions with seeds random_state, random_state + 1, ...; they seed the estimator and the random concepts.
    nec : sequence of int
        Also follow `SparseHead.path` at these NEC on the activations of the classifier and of both random banks
        (first seed): heads fitted on the training activations, scored on the test activations, nothing chosen there.
    truth : tuple of (columns, attributes), optional
        Numbers of the concepts whose truth is known, and that truth, bool (n_test, len(columns)).
    probe : estimator, optional
        Classifier of embeddings in place of `linear_probe`.
    head_weights : array-like of shape (K, M), optional
        Weights to check for a probe in disguise; by default ``head_weights_`` or ``coef_`` of the fitted classifier.
    random_state : int
        First seed.
    checkpoint_dir : path, optional
        Keep trainings (of estimators whose ``fit`` takes a `checkpoint_dir`) and finished heads of the paths there; the
        same call, interrupted, goes on from them.
    verbose : bool or None
        Progress bar; None shows it on a terminal when it takes more than a second.

    Returns
    -------
    ControlReport

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
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
    if n_seeds < 1:
        raise InputError(f"n_seeds={n_seeds!r}: expected at least 1")
    if concepts is None and fitted is None:
        raise InputError("concept_embeddings=None needs `fitted`: there are no concepts to train the classifier on")
    words = None if random_word_embeddings is None else np.asarray(random_word_embeddings)
    if words is not None and (words.ndim != 2 or words.shape[1] != X.shape[1]):
        raise InputError(f"random_word_embeddings have shape {words.shape}: expected (words, {X.shape[1]})")
    return _Trial(
        estimator,
        X,
        y,
        X_test,
        y_test,
        concepts,
        words,
        tuple(controls),
        tuple(nec),
        truth,
        random_state,
        None if checkpoint_dir is None else Path(checkpoint_dir),
    ).run(fitted, retrain, n_seeds, probe, head_weights, verbose)


class _Trial:
    """One call of `run_controls`: gathers the rows."""

    def __init__(
        self,
        estimator: BaseEstimator | Factory,
        X: np.ndarray,
        y: np.ndarray,
        X_test: np.ndarray,
        y_test: np.ndarray,
        concepts: np.ndarray | None,
        words: np.ndarray | None,
        controls: tuple[str, ...],
        nec: tuple[int, ...],
        truth: tuple[Sequence[int], ArrayLike] | None,
        random_state: int,
        checkpoint_dir: Path | None,
    ) -> None:
        self.X, self.y, self.X_test, self.y_test = X, y, X_test, y_test
        self.concepts, self.words, self.controls, self.nec, self.truth = concepts, words, controls, nec, truth
        self.seed, self.checkpoint_dir = random_state, checkpoint_dir
        self.rows = np.unique(np.linspace(0, len(X_test) - 1, min(len(X_test), _MAX_MEASURED)).round().astype(int))
        is_estimator = hasattr(estimator, "get_params")
        self.build: Factory | None = None if concepts is None else (
            estimator_factory(estimator) if is_estimator else estimator
        )  # fmt: skip
        # Whether names (through the relevance of each name for each class) take part in training.
        self.names_matter = not is_estimator or getattr(estimator, "concept_relevance", None) is not None
        self.accuracy: dict[str, list[float]] = {}
        self.right: dict[str, np.ndarray] = {}
        self.sizes: dict[str, int] = {}
        self.alignment: dict[str, list[float]] = {}
        self.auc: dict[str, list[float]] = {}
        self.paths: dict[str, list[dict[str, float]]] = {}
        self.skipped: dict[str, str] = {}
        self.notes: list[str] = []

    def run(
        self,
        fitted: Any,
        retrain: bool,
        n_seeds: int,
        probe: BaseEstimator | None,
        head_weights: ArrayLike | None,
        verbose: bool | None,
    ) -> ControlReport:
        self._skip()
        banks = [name for name in ("random_words", "random_directions") if self._runs(name)]
        fits = (fitted is None or retrain) + len(banks) + (self._runs("shuffled_names") and self.names_matter)
        steps = n_seeds * fits + sum(self._runs(name) for name in ("linear_probe", "nearest_mean"))
        steps += (1 + len(banks)) * bool(self.nec)
        with ProgressBar("controls", steps, verbose) as bar:
            if fitted is not None:
                self._judge("concepts", fitted, head_weights)
                self._path("concepts", fitted, bar)
            for seed in range(self.seed, self.seed + n_seeds):
                first = seed == self.seed
                for name, bank in self._banks(np.random.default_rng(seed)).items():
                    if name == "concepts" and fitted is not None:
                        if not retrain:
                            continue
                        name = "retrained"
                    if name == "shuffled_names" and not self.names_matter:
                        continue
                    bar.update(0, name.replace("_", " "))
                    assert self.build is not None
                    model = self._fit(self.build(bank, seed), f"{name}-{seed}")
                    self._score(name, model, len(bank))
                    bar.update(1)
                    if name == "concepts" and first:
                        self._judge(name, model, head_weights, score=False)
                        fitted_here = model
                    if name in ("concepts", "retrained", "shuffled_names"):
                        self._meaning(name, model)
                    if first and name in ("concepts", "random_words", "random_directions"):
                        self._path(name, model, bar)
            trial = fitted if fitted is not None else fitted_here
            if self._runs("shuffled_names") and not self.names_matter:
                self._permute_names(trial, n_seeds)
            if self._runs("linear_probe"):
                bar.update(0, "linear probe")
                self._score("linear_probe", (linear_probe() if probe is None else clone(probe)).fit(self.X, self.y), 0)
                bar.update(1)
            if self._runs("nearest_mean"):
                self._score("nearest_mean", NearestCentroid().fit(self.X, self.y), 0)
                bar.update(1)
        return self._report()

    def _fit(self, model: Any, name: str) -> Any:
        if self.checkpoint_dir is None or "checkpoint_dir" not in inspect.signature(model.fit).parameters:
            return model.fit(self.X, self.y)
        return model.fit(self.X, self.y, checkpoint_dir=self.checkpoint_dir / name)

    def _runs(self, name: str) -> bool:
        return name in self.controls and name not in self.skipped

    def _skip(self) -> None:
        if self.concepts is None:
            why = "the model was trained on concept scores: their embeddings are not known"
            self.skipped.update({name: why for name in CONTROLS[:3] if name in self.controls})
        elif "random_words" in self.controls and self.words is None:
            self.skipped["random_words"] = "no text embeddings of random words were given"

    def _banks(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        if self.concepts is None:
            return {}
        # Drawn in a fixed order, so that leaving out one control changes no other.
        size, dim = self.concepts.shape
        drawn = {"concepts": self.concepts, "random_directions": random_directions(size, dim, rng)}
        order = rng.permutation(size)
        if self.words is not None:
            drawn["random_words"] = self.words[rng.choice(len(self.words), min(size, len(self.words)), replace=False)]
        drawn["shuffled_names"] = self.concepts[order]
        return {name: bank for name, bank in drawn.items() if name == "concepts" or self._runs(name)}

    def _score(self, name: str, model: Any, n_concepts: int) -> None:
        hits = (np.asarray(model.predict(self.X_test)) == self.y_test).astype(float)
        self.accuracy.setdefault(name, []).append(float(hits.mean()))
        self.right.setdefault(name, hits)
        self.sizes[name] = n_concepts

    def _judge(self, name: str, model: Any, head_weights: ArrayLike | None, score: bool = True) -> None:
        """Score the classifier on trial and look for a probe in disguise."""
        size = self.X.shape[1] if self.concepts is None else len(self.concepts)
        if score:
            self._score(name, model, size)
            self._meaning(name, model)
        weights = head_weights
        if weights is None:
            weights = getattr(model, "head_weights_", getattr(model, "coef_", None))
        if weights is None or self.concepts is None:
            return
        active = None
        if hasattr(model, "transform"):
            active = float((np.asarray(model.transform(self.X_test[self.rows])) != 0).sum(1).mean())
        if note := disguise(size, self.X.shape[1], weights, active):
            self.notes.append(note)
            warnings.warn(note, ProbeInDisguiseWarning, stacklevel=4)

    def _meaning(self, name: str, model: Any) -> None:
        """Alignment and AUC of the units: unit j carries the name of concept j, whatever vector it was given."""
        units, activations = self._units(model)
        if units is None or self.concepts is None:
            return
        scores = self.X_test[self.rows] @ self.concepts.T
        self.alignment.setdefault(name, []).append(name_alignment(units, scores).mean)
        if self.truth is not None:
            self.auc.setdefault(name, []).append(self._auc(activations))

    def _auc(self, activations: np.ndarray) -> float:
        assert self.truth is not None
        columns, attributes = self.truth
        return concept_auc(activations[:, list(columns)], np.asarray(attributes)[self.rows]).mean

    def _units(self, model: Any) -> tuple[Any, Any]:
        if not hasattr(model, "transform"):
            return None, None
        X = self.X_test[self.rows]
        activations = np.asarray(model.transform(X))
        units = np.asarray(model.units(X)) if hasattr(model, "units") else activations
        shape = None if self.concepts is None else (len(X), len(self.concepts))
        return (units, activations) if units.shape == activations.shape == shape else (None, None)

    def _permute_names(self, model: Any, n_seeds: int) -> None:
        """The model under other names: the accuracy stays, alignment and AUC fall to what chance gives."""
        assert self.concepts is not None
        size = len(self.concepts)
        units, activations = self._units(model)
        self.accuracy["shuffled_names"] = [self.accuracy["concepts"][0]] * n_seeds
        self.right["shuffled_names"] = self.right["concepts"]
        self.sizes["shuffled_names"] = size
        if units is None:
            return
        scores = self.X_test[self.rows] @ self.concepts.T
        rng = np.random.default_rng([self.seed, 1])
        for _ in range(_PERMUTATIONS):
            order = rng.permutation(size)
            self.alignment.setdefault("shuffled_names", []).append(name_alignment(units[:, order], scores).mean)
            if self.truth is not None:
                self.auc.setdefault("shuffled_names", []).append(self._auc(activations[:, order]))

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

    def _report(self) -> ControlReport:
        size = self.sizes["concepts"]
        if self.sizes.get("random_words", size) < size:
            self.notes.append(f"only {self.sizes['random_words']} random words for {size} concepts")
        ordered = [name for name in ROWS if name in self.accuracy]
        return ControlReport(
            {name: self.accuracy[name] for name in ordered},
            {
                name: paired_bootstrap(self.right["concepts"], self.right[name], random_state=self.seed)
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
