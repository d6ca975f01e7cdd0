"""Controls: what an accuracy over concepts is worth.

Random concepts can reach published accuracies, so each result stands beside

* ``random_directions``: as many random unit vectors in place of the concepts;
* ``random_words``: embeddings of words that have nothing to do with the classes;
* ``shuffled_names``: the concepts in another order under the same names. What survives does not depend on names;
* ``linear_probe`` and ``nearest_mean``: no concepts at all, on the same embeddings.

The estimator comes in as a factory, so that any classifier over concept embeddings can be put on trial.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, clone
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sparsecbm._errors import InputError, unknown
from sparsecbm.evaluation.metrics import mean_sd, name_alignment, paired_bootstrap

#: Builds an unfitted classifier over embeddings from concept embeddings (M, d) and a seed.
Factory = Callable[[np.ndarray, int], Any]

#: Names of the controls, in the order of the table.
CONTROLS = ("random_directions", "random_words", "shuffled_names", "linear_probe", "nearest_mean")

_VOWELS, _CONSONANTS = "aeiou", "bdfgklmnprstvz"


class ProbeInDisguiseWarning(UserWarning):
    """A dense head over at least d concepts: any linear classifier of the embeddings, whatever the concepts mean."""


@dataclass(frozen=True)
class ControlReport:
    """Accuracies of a classifier and of its controls on the same test images.

    Attributes
    ----------
    accuracy : dict of str to list of float
        Test accuracy for each seed; "concepts" is the classifier on trial.
    differences : dict of str to dict
        `paired_bootstrap` of the classifier (first seed) against each control (first seed).
    n_concepts : dict of str to int
        Concepts used; 0 where there are none.
    alignment : dict of str to float
        Mean name alignment on the test images, for classifiers with ``transform``.
    skipped : dict of str to str
        Controls that were not run, and why.
    warnings : tuple of str
        What a reader should know.
    """

    accuracy: dict[str, list[float]]
    differences: dict[str, dict[str, float]]
    n_concepts: dict[str, int]
    alignment: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def table(self) -> list[dict[str, Any]]:
        """One row for each classifier, ready for JSON: mean and sd of the accuracy, difference and its interval."""
        rows = []
        for name, values in self.accuracy.items():
            mean, sd = mean_sd(values)
            row: dict[str, Any] = {"name": name, "n_concepts": self.n_concepts[name], "accuracy": mean}
            row["sd"] = None if np.isnan(sd) else sd
            row["name_alignment"] = self.alignment.get(name)
            row.update({key: self.differences.get(name, {}).get(key) for key in ("difference", "low", "high")})
            rows.append(row)
        return rows


def estimator_factory(estimator: BaseEstimator) -> Factory:
    """Factory from an unfitted estimator with a ``concept_embeddings`` parameter.

    `concept_names` is reset (the controls' concepts have none of their own) and `random_state` set where they exist.
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


def random_words(n: int, rng: np.random.Generator, vocabulary: Sequence[str] | None = None) -> tuple[str, ...]:
    """`n` different words, drawn from a vocabulary or, without one, made of random syllables.

    Parameters
    ----------
    n : int
        How many.
    rng : Generator
        Source of randomness.
    vocabulary : sequence of str, optional
        Words to draw from, without replacement.

    Examples
    --------
    >>> import numpy as np
    >>> len(set(random_words(50, np.random.default_rng(0))))
    50
    """
    if vocabulary is not None:
        words = list(dict.fromkeys(vocabulary))
        if len(words) < n:
            raise InputError(f"the vocabulary has {len(words)} different words: expected at least {n}")
        return tuple(words[i] for i in rng.choice(len(words), n, replace=False))
    found: dict[str, None] = {}
    while len(found) < n:
        syllables = rng.integers(2, 5)
        word = "".join(rng.choice(list(_CONSONANTS)) + rng.choice(list(_VOWELS)) for _ in range(syllables))
        found[word] = None
    return tuple(found)


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


def run_controls(
    estimator: BaseEstimator | Factory,
    X: ArrayLike,
    y: ArrayLike,
    X_test: ArrayLike,
    y_test: ArrayLike,
    concept_embeddings: ArrayLike,
    *,
    random_word_embeddings: ArrayLike | None = None,
    controls: Sequence[str] = CONTROLS,
    n_seeds: int = 1,
    probe: BaseEstimator | None = None,
    head_weights: ArrayLike | None = None,
    random_state: int = 0,
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
    concept_embeddings : array-like of shape (M, d)
        Its concepts.
    random_word_embeddings : array-like of shape (R, d), optional
        Text embeddings of unrelated words; M of them are drawn for each seed (all of them where R < M, and the table
        says so). Without them the control is skipped.
    controls : sequence of str
        Names among `CONTROLS`.
    n_seeds : int
        Repetitions with seeds random_state, random_state + 1, ...; they seed the estimator and the random concepts.
    probe : estimator, optional
        Classifier of embeddings in place of `linear_probe`.
    head_weights : array-like of shape (K, M), optional
        Weights to check for a probe in disguise; by default ``head_weights_`` or ``coef_`` of the fitted classifier.

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
    concepts = np.asarray(concept_embeddings)
    if X.ndim != 2 or X_test.ndim != 2 or concepts.ndim != 2 or not X.shape[1] == X_test.shape[1] == concepts.shape[1]:
        raise InputError(
            f"embeddings {X.shape} and {X_test.shape}, concepts {concepts.shape}: expected matrices with equal columns"
        )
    for name in controls:
        if name not in CONTROLS:
            raise unknown("control", name, CONTROLS)
    if n_seeds < 1:
        raise InputError(f"n_seeds={n_seeds!r}: expected at least 1")
    build: Factory = estimator_factory(estimator) if hasattr(estimator, "get_params") else estimator
    size, dim = concepts.shape
    skipped: dict[str, str] = {}
    words = None if random_word_embeddings is None else np.asarray(random_word_embeddings)
    if "random_words" in controls and words is None:
        skipped["random_words"] = "no text embeddings of random words were given"
    elif words is not None and (words.ndim != 2 or words.shape[1] != dim):
        raise InputError(f"random_word_embeddings have shape {words.shape}: expected (words, {dim})")

    def banks(rng: np.random.Generator) -> dict[str, np.ndarray]:
        # Drawn in a fixed order, so that leaving out one control changes no other.
        drawn = {"concepts": concepts, "random_directions": random_directions(size, dim, rng)}
        order = rng.permutation(size)
        if words is not None:
            drawn["random_words"] = words[rng.choice(len(words), min(size, len(words)), replace=False)]
        drawn["shuffled_names"] = concepts[order]
        return {name: bank for name, bank in drawn.items() if name == "concepts" or name in controls}

    accuracy: dict[str, list[float]] = {}
    right: dict[str, np.ndarray] = {}
    sizes: dict[str, int] = {}
    aligned: dict[str, list[float]] = {}
    notes: list[str] = []

    def score(name: str, model: Any, n_concepts: int) -> None:
        hits = (np.asarray(model.predict(X_test)) == y_test).astype(float)
        accuracy.setdefault(name, []).append(float(hits.mean()))
        right.setdefault(name, hits)
        sizes[name] = n_concepts

    for seed in range(random_state, random_state + n_seeds):
        for name, bank in banks(np.random.default_rng(seed)).items():
            model = build(bank, seed).fit(X, y)
            score(name, model, len(bank))
            if name in ("concepts", "shuffled_names") and hasattr(model, "transform"):
                units = model.transform(X_test)
                if np.shape(units) == (len(X_test), size):
                    # Unit j carries the name of concept j, whatever vector it was given.
                    aligned.setdefault(name, []).append(name_alignment(units, X_test @ concepts.T).mean)
            if name == "concepts" and seed == random_state:
                weights = head_weights
                if weights is None:
                    weights = getattr(model, "head_weights_", getattr(model, "coef_", None))
                active = None
                if hasattr(model, "transform"):
                    active = float((np.asarray(model.transform(X_test)) != 0).sum(1).mean())
                if weights is not None and (note := disguise(size, dim, weights, active)):
                    notes.append(note)
                    warnings.warn(note, ProbeInDisguiseWarning, stacklevel=2)
    if "linear_probe" in controls:
        score("linear_probe", (linear_probe() if probe is None else clone(probe)).fit(X, y), 0)
    if "nearest_mean" in controls:
        score("nearest_mean", NearestCentroid().fit(X, y), 0)
    if sizes.get("random_words", size) < size:
        notes.append(f"only {sizes['random_words']} random words for {size} concepts")
    ordered = ["concepts", *[name for name in CONTROLS if name in accuracy]]
    differences = {
        name: paired_bootstrap(right["concepts"], right[name], random_state=random_state) for name in ordered[1:]
    }
    return ControlReport(
        {name: accuracy[name] for name in ordered},
        differences,
        {name: sizes[name] for name in ordered},
        {name: float(np.mean(values)) for name, values in aligned.items()},
        skipped,
        tuple(notes),
    )
