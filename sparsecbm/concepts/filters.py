"""Label-free filters: which concept names are worth keeping, decided without a labelled image.

After Oikarinen et al., Label-Free Concept Bottleneck Models (ICLR 2023, arXiv 2304.06129): a concept goes if its name
is long, (nearly) the name of a class, (nearly) another concept, or not seen in the training images.

The default thresholds are the authors'. There, text similarity is 3/4 CLIP ViT-B/16 and 1/4 a sentence encoder, and the
activation is the mean CLIP score of the five images that show the concept most; another encoder has another scale, so
look at the values in the report before trusting them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import same_name_key
from sparsecbm._base.parameters import Cosine, Count, check_arguments
from sparsecbm._base.rows import as_numpy, unit_rows

_BLOCK = 1024


@dataclass(frozen=True)
class Drop:
    """One concept that a filter dropped.

    Attributes
    ----------
    index : int
        Position in the set that was filtered.
    name : str
        The concept.
    filter : {"length", "class", "mutual", "activation"}
        Which filter.
    value : float
        Length in characters, cosine similarity, or mean activation.
    reason : str
        One line for people.
    """

    index: int
    name: str
    filter: str
    value: float
    reason: str


@dataclass(frozen=True)
class FilterReport:
    """What was dropped and why.

    Attributes
    ----------
    kept : tuple of int
        Positions of the concepts that stayed; use it on the rows of an embedding matrix.
    dropped : tuple of Drop
        In the order of the filters.
    not_run : tuple of str
        Filters that lacked an input, and which.
    """

    kept: tuple[int, ...]
    dropped: tuple[Drop, ...]
    not_run: tuple[str, ...] = ()

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Each name that was dropped, and why."""
        return [(drop.name, drop.reason) for drop in self.dropped]

    @property
    def lines(self) -> tuple[str, ...]:
        """A summary, then one line for each dropped concept and each filter that did not run."""
        counts = Counter(drop.filter for drop in self.dropped)
        by_filter = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        total = len(self.kept) + len(self.dropped)
        summary = f"kept {len(self.kept)} of {total} concepts" + (f"; dropped by {by_filter}" if by_filter else "")
        return (summary, *(f"dropped {name!r}: {reason}" for name, reason in self.reasons), *self.not_run)

    def __str__(self) -> str:
        return "\n".join(self.lines)


def filter_concepts(
    names: Sequence[str],
    *,
    class_names: Sequence[str] | None = None,
    concept_embeddings: np.ndarray | None = None,
    class_embeddings: np.ndarray | None = None,
    image_embeddings: np.ndarray | None = None,
    max_length: Count | None = 30,
    max_class_similarity: Cosine | None = 0.85,
    max_mutual_similarity: Cosine | None = 0.9,
    min_activation: Cosine | None = 0.25,
    top_images: Count = 5,
) -> FilterReport:
    """Find the names that explain nothing, by the label-free filters, one after the other.

    1. ``length``: more than `max_length` characters.
    2. ``class``: the name of a class (whatever its article or case), or cosine to a class name above
       `max_class_similarity`.
    3. ``mutual``: cosine to another kept concept above `max_mutual_similarity`; of two, the one less similar to all
       concepts on the whole goes, since the other is the more general.
    4. ``activation``: mean cosine to its `top_images` nearest training images below `min_activation`.

    A filter whose threshold is None is off; one that lacks its embeddings does not run, and the report says so.

    Parameters
    ----------
    names : sequence of str of length M
        The concepts.
    class_names : sequence of str of length K, optional
    concept_embeddings : ndarray of shape (M, d), optional
        Text embeddings of the concepts; need not have unit rows.
    class_embeddings : ndarray of shape (K, d), optional
        Text embeddings of the class names.
    image_embeddings : ndarray of shape (n, d), optional
        Embeddings of training images, by the same encoder.
    max_length : int or None
        Longest concept, in characters.
    max_class_similarity : float or None
        Drop a concept whose text is more similar than this to a class name; a cosine in [-1, 1].
    max_mutual_similarity : float or None
        Drop a concept whose text is more similar than this to another concept.
    min_activation : float or None
        Drop a concept whose mean cosine to its best training images is below this.
    top_images : int
        How many best training images `min_activation` looks at, at least 1; all if there are fewer.

    Returns
    -------
    FilterReport
        What stays, what goes and why.

    Raises
    ------
    InputError
        If shapes differ, a row is zero or not finite, a threshold is out of range, or no concept is left.

    Examples
    --------
    >>> names = ["red crown", "a cardinal", "a bill that is very long and slightly hooked"]
    >>> report = filter_concepts(names, class_names=["cardinal"])
    >>> report.kept
    (0,)
    >>> print(report.lines[1])
    dropped 'a bill that is very long and slightly hooked': 44 characters, more than 30
    """
    check_arguments(
        filter_concepts,
        max_length=max_length,
        max_class_similarity=max_class_similarity,
        max_mutual_similarity=max_mutual_similarity,
        min_activation=min_activation,
        top_images=top_images,
    )
    text = _directions("concept_embeddings", concept_embeddings, rows=len(names))
    classes = _directions("class_embeddings", class_embeddings, like=text)
    images = _directions("image_embeddings", image_embeddings, like=text)
    if classes is not None and class_names is not None and len(classes) != len(class_names):
        raise InputError(
            f"class_embeddings has {len(classes)} rows for {len(class_names)} class names: expected one each"
        )
    alive = np.ones(len(names), dtype=bool)
    dropped: list[Drop] = []
    not_run: list[str] = []

    def apply(found: list[Drop]) -> None:
        dropped.extend(found)
        alive[[drop.index for drop in found]] = False

    if max_length is not None:
        apply(_too_long(names, alive, max_length))
    if max_class_similarity is not None:
        if class_names is not None:
            apply(_is_class_name(names, alive, class_names))
        if text is not None and classes is not None:
            apply(_near_class(names, alive, text, classes, class_names, max_class_similarity))
        else:
            not_run.append("similarity to class names was not checked: needs concept_embeddings and class_embeddings")
    if max_mutual_similarity is not None:
        if text is not None:
            apply(_near_each_other(names, alive, text, max_mutual_similarity))
        else:
            not_run.append("mutual similarity was not checked: needs concept_embeddings")
    if min_activation is not None:
        if text is not None and images is not None:
            apply(_inactive(names, alive, text, images, min_activation, top_images))
        else:
            not_run.append("activation was not checked: needs concept_embeddings and image_embeddings")
    report = FilterReport(tuple(np.flatnonzero(alive).tolist()), tuple(dropped), tuple(not_run))
    if not report.kept:
        raise InputError(
            f"the filters drop all {len(names)} concepts (last: {dropped[-1].name!r}, {dropped[-1].reason}): "
            "the thresholds may not suit this encoder; loosen them"
        )
    return report


def _too_long(names: Sequence[str], alive: np.ndarray, limit: int) -> list[Drop]:
    return [
        Drop(j, name, "length", len(name), f"{len(name)} characters, more than {limit}")
        for j, name in enumerate(names)
        if alive[j] and len(name) > limit
    ]


def _is_class_name(names: Sequence[str], alive: np.ndarray, class_names: Sequence[str]) -> list[Drop]:
    def bare(name: str) -> str:
        key = same_name_key(name)
        article = next((a for a in ("a ", "an ", "the ") if key.startswith(a)), "")
        return key.removeprefix(article)

    labels = {bare(name): name for name in class_names}
    return [
        Drop(j, name, "class", 1.0, f"it is the class name {labels[bare(name)]!r}")
        for j, name in enumerate(names)
        if alive[j] and bare(name) in labels
    ]


def _near_class(
    names: Sequence[str],
    alive: np.ndarray,
    text: np.ndarray,
    classes: np.ndarray,
    class_names: Sequence[str] | None,
    limit: float,
) -> list[Drop]:
    rows = np.flatnonzero(alive)
    cosine = text[rows] @ classes.T
    found = []
    for j, nearest, value in zip(rows.tolist(), cosine.argmax(1).tolist(), cosine.max(1, initial=-1.0).tolist()):
        if value > limit:
            label = repr(class_names[nearest]) if class_names is not None else f"number {nearest}"
            reason = f"similarity {value:.3f} to class {label}, more than {limit}"
            found.append(Drop(j, names[j], "class", value, reason))
    return found


def _near_each_other(names: Sequence[str], alive: np.ndarray, text: np.ndarray, limit: float) -> list[Drop]:
    rows = np.flatnonzero(alive)
    vectors = text[rows]
    generality = vectors @ vectors.sum(0)
    gone: dict[int, Drop] = {}
    for start in range(0, len(rows), _BLOCK):  # M x M similarities would not fit for large vocabularies
        cosine = vectors[start : start + _BLOCK] @ vectors.T
        for a, b in np.argwhere(cosine > limit).tolist():
            i, value = start + a, float(cosine[a, b])
            if i >= b or i in gone or b in gone:
                continue
            loser, winner = (i, b) if generality[i] < generality[b] else (b, i)
            j = int(rows[loser])
            reason = f"similarity {value:.3f} to concept {names[int(rows[winner])]!r}, more than {limit}"
            gone[loser] = Drop(j, names[j], "mutual", value, reason)
    return [gone[i] for i in sorted(gone)]


def _inactive(
    names: Sequence[str], alive: np.ndarray, text: np.ndarray, images: np.ndarray, limit: float, top: int
) -> list[Drop]:
    rows = np.flatnonzero(alive)
    count = min(top, len(images))
    best = np.full((count, len(rows)), -np.inf, dtype=np.float32)
    for start in range(0, len(images), _BLOCK):
        cosine = images[start : start + _BLOCK] @ text[rows].T
        best = np.partition(np.concatenate([best, cosine]), -count, axis=0)[-count:]
    activation = best.mean(0)
    return [
        Drop(
            j,
            names[j],
            "activation",
            value,
            f"mean activation {value:.3f} on its {count} best images, less than {limit}",
        )
        for j, value in zip(rows.tolist(), activation.tolist())
        if value < limit
    ]


def _directions(
    what: str, values: np.ndarray | None, *, rows: int | None = None, like: np.ndarray | None = None
) -> np.ndarray | None:
    if values is None:
        return None
    matrix = np.asarray(as_numpy(values))
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or 0 in matrix.shape:
        raise InputError(
            f"{what} has shape {matrix.shape} and type {matrix.dtype}: expected a filled matrix of numbers"
        )
    if rows is not None and len(matrix) != rows:
        raise InputError(f"{what} has {len(matrix)} rows for {rows} concepts: expected one each, in the same order")
    if like is not None and matrix.shape[1] != like.shape[1]:
        raise InputError(
            f"{what} has dimension {matrix.shape[1]} and concept_embeddings {like.shape[1]}: use one encoder for both"
        )
    return unit_rows(matrix, what, dtype=np.float32)
