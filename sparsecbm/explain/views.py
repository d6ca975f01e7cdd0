"""Global views as numbers: what classes are made of, how concepts are used, which fire together.

A notebook shows them as the report does, as SVG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.rows import unit_rows
from sparsecbm.explain.ledger import Ledgers

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class WeightMap:
    """Head weights of classes and concepts, both in clustered order.

    Attributes
    ----------
    classes, concepts : tuple of str
    weights : ndarray of float64, shape (len(classes), len(concepts))
    n_concepts : int
        How many are used in all.
    """

    classes: tuple[str, ...]
    concepts: tuple[str, ...]
    weights: FloatArray
    n_concepts: int

    def to_svg(self, label: str = "Weights of concepts in classes") -> str:
        """Return a self-contained SVG document, as the report draws it."""
        from sparsecbm.explain.html import svg_file

        return svg_file("heatmap", self, label)

    def _repr_svg_(self) -> str:
        return self.to_svg()


def weight_map(ledgers: Ledgers, max_concepts: int = 40, max_classes: int = 60) -> WeightMap:
    """Return the class x concept weights, similar rows and columns side by side.

    Each weight is multiplied by the root mean square activation of its concept over these images, so that concepts on
    different scales compare: what is shown is the size of a typical contribution.

    Parameters
    ----------
    ledgers : Ledgers
    max_concepts, max_classes : int
        The concepts and classes with the largest weights are kept.
    """
    scale = np.sqrt((ledgers.activations**2).mean(axis=0)) if len(ledgers) else np.ones(len(ledgers.concepts))
    weights = ledgers.weights * scale
    used = np.flatnonzero((weights != 0).any(axis=0))
    if not len(used):
        raise InputError("no concept has both a weight and an activation: there is nothing to map")
    columns = used[np.argsort(-np.abs(weights[:, used]).sum(axis=0), kind="stable")][:max_concepts]
    size = np.abs(weights[:, columns]).sum(axis=1)
    rows = np.argsort(-size, kind="stable")[:max_classes]
    rows = rows[size[rows] > 0]
    part = weights[np.ix_(rows, columns)]
    rows, columns = rows[_leaves(part)], columns[_leaves(part.T)]
    return WeightMap(
        tuple(ledgers.classes[c] for c in rows),
        tuple(ledgers.concepts[j] for j in columns),
        weights[np.ix_(rows, columns)],
        len(used),
    )


def _leaves(rows: FloatArray) -> NDArray[np.int64]:
    """Order rows so that those that point the same way lie side by side."""
    if len(rows) < 3:
        return np.arange(len(rows))
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import pdist

    distances = pdist(unit_rows(rows))
    return leaves_list(optimal_leaf_ordering(linkage(distances, "average"), distances)).astype(np.int64)


class Usage(NamedTuple):
    """How a concept is used over a data set: share of images it is active in, mean when active, classes that use it."""

    concept: str
    column: int
    share: float
    mean: float
    n_classes: int


def concept_usage(ledgers: Ledgers) -> list[Usage]:
    """Return the use of every concept, the most active first."""
    active = ledgers.activations != 0
    count = active.sum(axis=0)
    share = count / max(len(ledgers), 1)
    mean = np.divide(ledgers.activations.sum(axis=0), count, out=np.zeros(len(count)), where=count > 0)
    classes = (ledgers.weights != 0).sum(axis=0)
    order = np.argsort(-share, kind="stable")
    return [Usage(ledgers.concepts[j], int(j), float(share[j]), float(mean[j]), int(classes[j])) for j in order]


class Together(NamedTuple):
    """Two concepts that fire together: images with both, with either alone, and their phi coefficient."""

    first: str
    second: str
    both: int
    only_first: int
    only_second: int
    phi: float


@dataclass(frozen=True, eq=False)
class Coactivation:
    """Which concepts are active in the same images.

    Attributes
    ----------
    concepts : tuple of str
        In clustered order.
    phi : ndarray of float64, shape (len(concepts), len(concepts))
        Correlation of being active, in [-1, 1].
    pairs : list of Together
        Most correlated first.
    """

    concepts: tuple[str, ...]
    phi: FloatArray
    pairs: list[Together]

    def to_svg(self) -> str:
        """Return the correlations as a self-contained SVG document."""
        return WeightMap(self.concepts, self.concepts, self.phi, len(self.phi)).to_svg("Correlation of being active")

    def _repr_svg_(self) -> str:
        return self.to_svg()


def coactivation(ledgers: Ledgers, max_concepts: int = 40, max_pairs: int = 20) -> Coactivation:
    """Measure which of the most used concepts fire together.

    Parameters
    ----------
    ledgers : Ledgers
    max_concepts : int
        The concepts whose activity varies most are kept; one that is always or never active goes with nothing.
    max_pairs : int
        Pairs listed at most.
    """
    active = ledgers.activations != 0
    share = active.mean(axis=0)
    varies = np.argsort(-share * (1 - share), kind="stable")
    columns = varies[(share * (1 - share))[varies] > 0][:max_concepts]
    if len(columns) < 2:
        return Coactivation((), np.zeros((0, 0)), [])
    some = active[:, columns].astype(np.float64)
    phi = np.corrcoef(some.T)
    order = _leaves(phi)
    columns, phi, some = columns[order], phi[np.ix_(order, order)], some[:, order]
    both = some.T @ some
    first, second = np.triu_indices(len(columns), 1)
    pairs = []
    for place in np.argsort(-phi[first, second], kind="stable")[:max_pairs]:
        a, b = int(first[place]), int(second[place])
        if phi[a, b] <= 0:
            break
        shared = int(both[a, b])
        pairs.append(
            Together(
                ledgers.concepts[columns[a]],
                ledgers.concepts[columns[b]],
                shared,
                int(both[a, a]) - shared,
                int(both[b, b]) - shared,
                float(phi[a, b]),
            )
        )
    return Coactivation(tuple(ledgers.concepts[j] for j in columns), phi, pairs)


def top_images(ledgers: Ledgers, concept: str, k: int = 8) -> list[tuple[int, float]]:
    """Return rows and activations of the images that activate a concept most; only images where it is active.

    Raises
    ------
    InputError
        If the concept is unknown.
    """
    if concept not in ledgers.concepts:
        raise unknown("concept", concept, ledgers.concepts)
    values = ledgers.activations[:, ledgers.concepts.index(concept)]
    order = np.argsort(-values, kind="stable")[:k]
    return [(int(i), float(values[i])) for i in order if values[i] > 0]


class Flow(NamedTuple):
    """How much of a class's positive evidence comes from a concept, in [0, 1]."""

    concept: str
    target: str
    share: float


def flows(
    ledgers: Ledgers, classes: Sequence[str | int] | None = None, *, concepts_per_class: int = 4, max_classes: int = 12
) -> list[Flow]:
    """Return what flows from concepts to classes: shares of the mean positive contributions.

    Parameters
    ----------
    ledgers : Ledgers
        Each class is averaged over the images whose explained class it is; a class without images, over all.
    classes : sequence, optional
        Names or indices; by default the `max_classes` with most images.
    concepts_per_class : int
        The largest of each class are kept.
    max_classes : int
        See `classes`.
    """
    counts = np.bincount(ledgers.targets, minlength=len(ledgers.classes))
    if classes is None:
        chosen = np.sort(np.argsort(-counts, kind="stable")[:max_classes])
    else:
        chosen = np.array([ledgers._class(c) for c in classes], dtype=np.int64)
    made = []
    for c in chosen:
        rows = ledgers.activations[ledgers.targets == c] if counts[c] else ledgers.activations
        mean = np.maximum(rows.mean(axis=0) * ledgers.weights[c], 0.0)
        total = mean.sum()
        for j in np.argsort(-mean, kind="stable")[:concepts_per_class]:
            if mean[j] > 0:
                made.append(Flow(ledgers.concepts[j], ledgers.classes[c], float(mean[j] / total)))
    return made
