"""A concept set judged before anything is trained: what its plain scores know about the classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import StratifiedKFold

from sparsecbm._base.directions import matched_directions
from sparsecbm._base.errors import InputError
from sparsecbm._base.progress import ProgressBar
from sparsecbm._base.rows import unit_rows
from sparsecbm.evaluation.metrics import paired_difference
from sparsecbm.evaluation.probes import linear_probe

_POOL = 10
"""Candidates a class: the concepts whose scores set it apart most, in within-class standard deviations."""
_FOLDS = 2
_FEWEST = 4
_SAME = 0.95
"""From this correlation over the pictures on, two concepts say the same."""
_MIXED = 0.75
"""Two classes are not told apart where less than this share of their pictures is on the right side of the two."""


@dataclass(frozen=True)
class ConceptSetReport:
    """What a concept set's scores hold of the classes.

    Attributes
    ----------
    concepts_per_class : int
        NEC of the heads.
    accuracy : float
        Of a head on the plain scores, on pictures it was not fitted on.
    meaningless : list of float
        The same for each draw of matched random directions.
    probe : float
        The same for a linear probe on the embeddings: the class information that is there at all.
    advantage : dict
        ``difference`` from the directions and its interval, ``low`` to ``high``.
    redundant : list of (int, int, float)
        Concept, an earlier one that says the same, and their correlation over the pictures.
    confused : list of (label, label, float)
        Classes that these concepts do not tell apart, worst first, and the share of their pictures on the right side
        of the two (0.5 is chance).
    """

    concepts_per_class: int
    accuracy: float
    meaningless: list[float]
    probe: float
    advantage: dict[str, float]
    redundant: list[tuple[int, int, float]] = field(default_factory=list)
    confused: list[tuple[Any, Any, float]] = field(default_factory=list)

    @property
    def information(self) -> float:
        """Share of the class information that the scores hold: accuracy over the probe's."""
        return self.accuracy / self.probe if self.probe else 0.0

    @property
    def beyond_chance(self) -> float:
        """Share of the class information held beyond what meaningless directions hold."""
        return self.advantage["difference"] / self.probe if self.probe else 0.0


def judge_concept_set(
    concept_embeddings: ArrayLike,
    X: ArrayLike,
    y: ArrayLike,
    *,
    concepts_per_class: int = 5,
    n_draws: int = 3,
    random_state: int = 0,
    verbose: bool | None = False,
) -> ConceptSetReport:
    """Judge a concept set by labelled pictures, without training a bottleneck.

    Scores are cosines, standardised; `SparseHead` sees the ten concepts a class that set it apart most and keeps
    `concepts_per_class` on average. Everything is fitted on one half of the pictures and scored on the other, both ways
    round, for the concepts, for matched random directions, and for a linear probe.

    Parameters
    ----------
    concept_embeddings : array-like of shape (M, d)
    X : array-like of shape (n, d)
        Embeddings of pictures.
    y : array-like of shape (n,)
        Their labels, at least two of each class and four on average.
    concepts_per_class : int
        NEC.
    n_draws : int
        Draws of the directions.
    random_state : int
        Seed of folds and directions.
    verbose : bool or None
        Progress bar; None shows it on a terminal when it takes more than a second.

    Raises
    ------
    InputError
        If shapes do not fit, or there are too few pictures.
    """
    concepts = unit_rows(concept_embeddings, "concept_embeddings", dtype=np.float64)
    X, y = unit_rows(X, "X", dtype=np.float64), np.asarray(y)
    if concepts.shape[1] != X.shape[1] or y.shape != (len(X),):
        raise InputError(f"concepts {concepts.shape}, embeddings {X.shape}, labels {y.shape}: they do not go together")
    classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    if len(classes) < 2 or counts.min() < _FOLDS or len(y) < _FEWEST * len(classes):
        few = classes[counts.argmin()]
        raise InputError(
            f"class {few.item()!r} has {counts.min()} of {len(y)} pictures: expected two classes or more, at least two "
            f"pictures of each and {_FEWEST} on average"
        )
    rng = np.random.default_rng(random_state)
    folds = list(StratifiedKFold(_FOLDS, shuffle=True, random_state=random_state).split(X, codes))
    with ProgressBar("judging", n_draws + 2, verbose) as bar:
        predicted = _held_out(concepts, X, codes, folds, concepts_per_class)
        bar.update(1)
        right = (predicted == codes).astype(float)
        draws = []
        for _ in range(n_draws):
            directions = matched_directions(concepts, rng)
            draws.append((_held_out(directions, X, codes, folds, concepts_per_class) == codes).astype(float))
            bar.update(1)
        probe = np.empty(len(X), dtype=codes.dtype)
        for train, test in folds:
            probe[test] = linear_probe().fit(X[train], codes[train]).predict(X[test])
        bar.update(1)
    gap = paired_difference(right, draws, random_state=random_state)
    return ConceptSetReport(
        concepts_per_class,
        float(right.mean()),
        [float(draw.mean()) for draw in draws],
        float((probe == codes).mean()),
        {key: gap[key] for key in ("difference", "low", "high")},
        list(_redundant(X @ concepts.T)),
        [(classes[a].item(), classes[b].item(), share) for a, b, share in _confused(codes, predicted, len(classes))],
    )


def separation(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """How far each concept's score sets each class apart: (class mean - mean) / within-class sd, shape (K, M)."""
    counts = np.bincount(codes)
    onehot = np.eye(len(counts))[codes]
    means = (onehot.T @ scores) / counts[:, None]
    within = scores - means[codes]
    spread = np.sqrt((within * within).sum(axis=0) / max(len(scores) - len(counts), 1))
    return (means - scores.mean(axis=0)) / np.where(spread > 0, spread, np.inf)


def _held_out(
    concepts: np.ndarray, X: np.ndarray, codes: np.ndarray, folds: list[tuple[np.ndarray, np.ndarray]], nec: int
) -> np.ndarray:
    """Class of each picture by a head that was fitted on the other half."""
    from sparsecbm.heads import SparseHead

    predicted = np.empty(len(X), dtype=codes.dtype)
    for train, test in folds:
        scores = X[train] @ concepts.T
        apart = separation(scores, codes[train])
        pool = np.unique(np.argsort(-apart, axis=1, kind="stable")[:, :_POOL])
        scale = scores[:, pool].std(axis=0)
        mean, scale = scores[:, pool].mean(axis=0), np.where(scale > 0, scale, 1.0)
        head = SparseHead(concepts_per_class=min(nec, len(pool)), random_state=0)
        head.fit((scores[:, pool] - mean) / scale, codes[train])
        predicted[test] = head.predict((X[test] @ concepts[pool].T - mean) / scale)
    return predicted


def _redundant(scores: np.ndarray) -> Iterator[tuple[int, int, float]]:
    centred = unit_rows((scores - scores.mean(axis=0)).T).T
    for j in range(1, scores.shape[1]):
        alike = centred[:, :j].T @ centred[:, j]
        if alike.max() >= _SAME:
            yield j, int(alike.argmax()), float(alike.max())


def _confused(codes: np.ndarray, predicted: np.ndarray, n_classes: int) -> list[tuple[int, int, float]]:
    """Pairs of classes whose pictures, as far as they are given to one of the two, lie on the wrong side too often."""
    table = np.zeros((n_classes, n_classes))
    np.add.at(table, (codes, predicted), 1)
    right, wrong = np.diag(table), table + table.T
    pairs = []
    for a, b in zip(*np.nonzero(np.triu(wrong, 1))):
        share = (right[a] + right[b]) / (right[a] + right[b] + wrong[a, b])
        if share < _MIXED:
            pairs.append((int(a), int(b), float(share)))
    return sorted(pairs, key=lambda pair: pair[2])
