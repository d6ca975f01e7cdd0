"""What needs no concepts at all, and a head over concepts that is nothing else."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler


class ProbeInDisguiseWarning(UserWarning):
    """A dense head over at least d concepts: any linear classifier of the embeddings, whatever the concepts mean."""


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
