"""What every rule of Concept Matrix Search is made of."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sparsecbm.estimators.matrix_search.pursuit import SparseCodes

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class SearchProblem:
    """What is searched: concepts, one row a class, and statistics that come from texts or reference images only.

    Attributes
    ----------
    concepts : ndarray of shape (M, d)
        Unit rows; the identity where the columns of X are the concept scores already.
    class_rows : ndarray of shape (K, d)
        One row a class, in the space of the images or of the texts.
    concept_groups : ndarray of int, shape (M,), optional
        Concepts that were embedded alike (one prompt, say) share a number; each group is centred by its own mean.
    image_mean : ndarray of shape (d,), optional
        Mean embedding of reference images: the origin from which sparse codes start.
    image_covariance : ndarray of shape (d, d), optional
        Covariance of images about their class rows; given when the rows were estimated from images.
    text_rows : ndarray of shape (K, d), optional
        With rows from images: texts of all classes, for rules that can score by both.
    text_share : float
        In [0, 1]: share of the texts in such a score.
    """

    concepts: Array
    class_rows: Array
    concept_groups: NDArray[np.int64] | None = None
    image_mean: Array | None = None
    image_covariance: Array | None = None
    text_rows: Array | None = None
    text_share: float = 0.0


@dataclass(frozen=True)
class SearchOptions:
    """Options of the rules; each rule reads its own."""

    ridge: float = 0.01
    max_active_concepts: int = 8
    nonnegative: bool = True
    origin_weight: float = 0.4
    logit_scale: float = 100.0


class SearchRule(ABC):
    """One way to search the concept matrix.

    A rule scores classes and writes a part of each image's scores as activations of few concepts times `weights`, a
    fixed matrix of classes and concepts. What the few concepts do not carry is the ledger's "everything else".

    Attributes
    ----------
    arrays : dict of str to ndarray
        All that was fitted; a rule with the same options and arrays scores alike.
    """

    name: ClassVar[str]
    transductive: ClassVar[bool] = False
    """Whether scores of one image depend on the other images of the batch."""
    sparse: ClassVar[bool] = False
    """Whether nothing but the named concepts (and a constant a class) decides."""

    def __init__(self, options: SearchOptions) -> None:
        self.options = options
        self.arrays: dict[str, Array] = {}

    @abstractmethod
    def fit(self, problem: SearchProblem) -> None:
        """Fill `arrays`."""

    @property
    def weights(self) -> Array:
        """Class x concept matrix, shape (K, M)."""
        return self.arrays["weights"]

    @property
    def intercept(self) -> Array:
        """A constant a class, shape (K,)."""
        return self.arrays["intercept"]

    @abstractmethod
    def scores(self, X: Array) -> Array:
        """Class scores of embeddings (n, d): shape (n, K), float64."""

    @abstractmethod
    def codes(self, X: Array, k: int) -> SparseCodes:
        """Activations of at most `k` concepts for each row of X, for `weights`."""


def centred(concepts: Array, groups: NDArray[np.int64] | None = None) -> Array:
    """Concepts relative to the mean of their group (of them all, without groups); what stands alone stays."""
    groups = np.zeros(len(concepts), dtype=np.int64) if groups is None else groups
    counts = np.bincount(groups)
    means = np.zeros((len(counts), concepts.shape[1]))
    np.add.at(means, groups, concepts)
    means /= np.maximum(counts, 1)[:, None]
    return concepts - np.where(counts > 1, 1.0, 0.0)[groups, None] * means[groups]
