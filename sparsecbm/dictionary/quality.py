"""What found concepts are worth: agreement of a name with its pictures, of seeds with each other; twins and parents."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from sparsecbm._base.directions import matched_directions
from sparsecbm._base.ranks import pair_aucs
from sparsecbm._base.rows import unit_rows

_ALIKE = 0.9
_WITHIN, _GAIN = 0.8, 0.3


def name_quality(
    word_rows: NDArray[Any], codes: NDArray[Any], X: NDArray[Any], seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """AUC of each unit's own word for the unit's active pictures, and the same of a matched random unit.

    Parameters
    ----------
    word_rows : ndarray of shape (M, d)
        Centred embedding of the word of each unit.
    codes : ndarray of shape (n, M)
    X : ndarray of shape (n, d)
    seed : int
        Of the random units: directions with the words' mean and covariance, active on as many pictures.

    Returns
    -------
    of_names, of_chance : ndarray of shape (M,)
        The second is what each word reaches on the pictures of a unit that means nothing.
    """
    X = np.asarray(X, dtype=np.float64) - np.mean(X, axis=0, dtype=np.float64)
    scores, active = X @ word_rows.T, codes > 0
    strangers = X @ matched_directions(word_rows, np.random.default_rng(seed)).T
    counts = active.sum(axis=0)
    places = (-strangers).argsort(axis=0, kind="stable").argsort(axis=0, kind="stable")
    return pair_aucs(scores, active), pair_aucs(scores, places < counts)


def matched_atoms(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float64]:
    """Cosine of each atom (M, d) with its partner in another dictionary, the pairing of the largest sum: shape (M,).

    The mean is the *stability* of a dictionary over seeds.
    """
    cosines = unit_rows(first) @ unit_rows(second).T
    rows, columns = linear_sum_assignment(-cosines)
    return cosines[rows, columns].astype(np.float64)


def duplicates(atoms: NDArray[Any], names: list[str | None]) -> list[tuple[int, int]]:
    """Pairs of units that have one name, or whose atoms have a cosine above 0.9."""
    rows = unit_rows(atoms)
    alike = rows @ rows.T > _ALIKE
    same = np.array([[a is not None and a == b for b in names] for a in names])
    return [(int(i), int(j)) for i, j in np.argwhere(np.triu(alike | same, 1))]


def hierarchy(codes: NDArray[Any], prefixes: list[int]) -> list[int | None]:
    """Parent of each unit: the unit of an earlier prefix that is active on at least 80% of its pictures, or None.

    Of several, the one that most exceeds its own share of all pictures; one that exceeds it by less than 0.3 is merely
    everywhere. `prefixes` are those of a matryoshka dictionary, rising.
    """
    active = (codes > 0).astype(np.float64)
    share = active.mean(axis=0)
    within = (active.T @ active) / np.maximum(active.sum(axis=0), 1)[:, None]  # P(column | row)
    parents: list[int | None] = []
    for j in range(codes.shape[1]):
        before = max((m for m in prefixes if m <= j), default=0)
        able = np.flatnonzero(within[j, :before] >= _WITHIN)
        gain = within[j, able] - share[able]
        parents.append(int(able[gain.argmax()]) if len(able) and share[j] > 0 and gain.max() > _GAIN else None)
    return parents
