"""Meaningless directions: what concepts are measured against."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm._base.rows import as_numpy, unit_rows

__all__ = ["matched_directions", "random_directions"]


def matched_directions(concept_embeddings: ArrayLike, rng: np.random.Generator) -> np.ndarray:
    """Draw as many unit vectors as there are concepts, with the concepts' mean and covariance.

    Rows are N(m, S), scaled to length one; m and S are mean and covariance of the concepts' unit rows. They point
    where concepts point (into the cone of texts, along the directions in which texts differ), only at nothing in
    particular: what they reach is owed to geometry, and what concepts reach beyond it to their meaning.

    Parameters
    ----------
    concept_embeddings : array-like of shape (M, d)
        Concepts; rows of any length above 0.
    rng : Generator
        Source of randomness.

    Returns
    -------
    ndarray of shape (M, d), float32
        Unit rows. For a single concept, which has no covariance, a uniformly random direction.

    Raises
    ------
    InputError
        If the embeddings are no matrix of finite rows that have a length.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> concepts = rng.normal(size=(500, 8)) * [3, 1, 1, 1, 1, 1, 1, 1] + [0, 4, 0, 0, 0, 0, 0, 0]
    >>> drawn = matched_directions(concepts, rng)
    >>> concepts /= np.linalg.norm(concepts, axis=1, keepdims=True)
    >>> bool(np.abs(drawn.mean(0) - concepts.mean(0)).max() < 0.05)
    True
    """
    rows = np.asarray(as_numpy(concept_embeddings))
    if rows.ndim != 2 or not len(rows):
        raise InputError(f"concept embeddings of shape {rows.shape}: expected a matrix (M, d) of finite numbers")
    rows = unit_rows(rows, "concept_embeddings", dtype=np.float64)
    if len(rows) == 1:
        return random_directions(1, rows.shape[1], rng)
    mean = rows.mean(axis=0)
    # With C the centred rows, g^T C / sqrt(M - 1) has their covariance; the SVD makes g as short as the rank.
    _, spread, axes = np.linalg.svd(rows - mean, full_matrices=False)
    drawn = mean + rng.standard_normal((len(rows), len(spread))) @ (spread[:, None] / np.sqrt(len(rows) - 1) * axes)
    return unit_rows(drawn, dtype=np.float32)


def random_directions(n: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """`n` uniformly random unit vectors (n, dim), float32: an easier control than `matched_directions`."""
    return unit_rows(rng.standard_normal((n, dim)), dtype=np.float32)
