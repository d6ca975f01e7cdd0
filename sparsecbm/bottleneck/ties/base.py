"""What a tie is: for each concept an anchor, the direction of its unit before training, and a cone around it.

All of it lives in whitened space, h = S^(-1/2) (x - mean), where a unit is w . h with w of length one and its
correlation with another is the cosine of their directions (see `sparsecbm.bottleneck.layer`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm.bottleneck.statistics import Whitening


@dataclass(frozen=True)
class ConceptGeometry:
    """What a tie may look at: concepts, and the classes of the training embeddings, in whitened space.

    Attributes
    ----------
    space : Whitening
        Of the training embeddings.
    concepts : ndarray of shape (M, d) or None
        Concept embeddings; None means that the columns of the input are the concept scores.
    means : ndarray of shape (K, d)
        Whitened class means.
    within : ndarray of shape (d, d)
        Covariance within classes, whitened.
    seed : int
        Of what a tie draws.
    """

    space: Whitening
    concepts: np.ndarray | None
    means: np.ndarray
    within: np.ndarray
    seed: int = 0

    @classmethod
    def measure(
        cls,
        space: Whitening,
        concepts: np.ndarray | None,
        class_means: np.ndarray,
        counts: np.ndarray | None,
        seed: int = 0,
    ) -> ConceptGeometry:
        """Build from class means (K, d) of the embeddings and the number of embeddings of each class (K,).

        Without numbers the classes overlap, and what varies within them is taken for all that varies.
        """
        means = (class_means - space.center) @ space.matrix
        if counts is None:
            return cls(space, concepts, means, space.matrix @ space.covariance @ space.matrix, seed)
        between = (means * (counts / counts.sum())[:, None]).T @ means
        within = space.matrix @ space.covariance @ space.matrix - between
        # Unbiased, like the variance of a sample; with one image a class there is nothing to divide by.
        freedom = max(1, int(counts.sum()) - len(counts))
        return cls(space, concepts, means, within * (counts.sum() / freedom), seed)

    def scores(self, concepts: np.ndarray | None) -> np.ndarray:
        """Directions (M, d), unit rows, of the scores of `concepts`."""
        return unit_rows(self.space.inverse if concepts is None else concepts @ self.space.inverse)

    def separation(self, directions: np.ndarray) -> np.ndarray:
        """How far each class stands out in each direction, (K, M): its mean over the deviation within classes."""
        variance = np.einsum("md,md->m", directions @ self.within, directions)
        # A direction without variance within classes (one image a class, constant scores) counts by its mean alone.
        deviation = np.sqrt(np.where(variance > 1e-12, variance, 1.0))
        return (self.means @ directions.T) / deviation


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; a zero row stays zero."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(lengths > 0, lengths, 1.0)


@dataclass(frozen=True)
class Tied:
    """A tie of given concepts.

    Attributes
    ----------
    anchors : ndarray of shape (M, d)
        Unit rows: the units before training.
    turns : ndarray of shape (M,)
        Tangent of the angle that each unit may turn away from its anchor.
    separation : ndarray of shape (K, M)
        How far each class stands out along each anchor.
    min_survival : float
        In [0, 1]: the share of its anchor's highest training pictures that a unit must keep however far it may turn.
    """

    anchors: np.ndarray
    turns: np.ndarray
    separation: np.ndarray
    min_survival: float = 0.0

    def pool(self, per_class: int | None) -> np.ndarray:
        """Numbers, ascending, of the concepts that stand out most for any class, `per_class` of each; None: all."""
        n_concepts = self.separation.shape[1]
        if per_class is None or per_class >= n_concepts:
            return np.arange(n_concepts)
        return np.unique(np.argpartition(-self.separation, per_class - 1, axis=1)[:, :per_class])


class Tie:
    """Base of the ties.

    Parameters
    ----------
    min_alignment : float or None
        In (0, 1]: the least correlation of a unit with its concept's score over the shrunk training distribution; None
        takes the tie's own.
    min_survival : float or None
        In [0, 1]: the share of a concept's highest training pictures that its unit must keep; None takes the tie's own.

    Raises
    ------
    InputError
        If a number is outside its range.
    """

    #: Name in the registry.
    name: str = ""
    #: Least alignment where the user gives none.
    alignment: float = 1.0
    #: Least survival where the user gives none.
    survival: float = 0.0
    #: Whether the concepts themselves decide how far each may turn, so that a control must be given the same freedom.
    earned: bool = False

    def __init__(self, min_alignment: float | None = None, min_survival: float | None = None) -> None:
        self.min_alignment = self.alignment if min_alignment is None else float(min_alignment)
        self.min_survival = self.survival if min_survival is None else float(min_survival)
        if not 0.0 < self.min_alignment <= 1.0:
            raise InputError(f"min_alignment={min_alignment!r}: expected a number in (0, 1]")
        if not 0.0 <= self.min_survival <= 1.0:
            raise InputError(f"min_survival={min_survival!r}: expected a number in [0, 1]")

    def bind(self, geometry: ConceptGeometry) -> Tied:
        """Anchors and turns of the concepts."""
        raise NotImplementedError


def tangent(alignment: float) -> float:
    """Tangent of the angle whose cosine is `alignment`."""
    return float(np.sqrt(1.0 - alignment**2) / alignment)


def hand_out(turns: np.ndarray, tied: Tied, pool: np.ndarray) -> Tied:
    """Give the concepts of a pool the turns that others earned: the most to the one that stands out most, and so on.

    Parameters
    ----------
    turns : ndarray of shape (M',)
        Turns of any number of concepts; those of 0 took no part.
    tied : Tied
        Whose turns are replaced.
    pool : ndarray of int
        Concepts that take part.
    """
    given = -np.sort(-turns[turns > 0])
    if not len(given):
        return replace(tied, turns=np.zeros(len(tied.turns)))
    order = np.argsort(-tied.separation[:, pool].max(0), kind="stable")
    dealt = np.zeros(len(tied.turns))
    dealt[pool[order]] = given[np.arange(len(pool)) * len(given) // len(pool)]
    return replace(tied, turns=dealt)
