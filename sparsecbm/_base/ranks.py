"""Areas under ROC curves by ranks, many columns at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def pair_aucs(scores: NDArray[Any], truth: NDArray[Any], known: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Area under the ROC curve of each score (n, k) for its own truth, bool (n, k): shape (k,); NaN without both kinds.

    By Mann-Whitney: the rank sum of what is true, ties at their mean rank. Entries that are not `known` take no part.

    Examples
    --------
    >>> pair_aucs(np.array([[0.1], [0.2], [0.9]]), np.array([[False], [False], [True]])).tolist()
    [1.0]
    """
    ones, counted = np.asarray(truth, dtype=np.float64), np.float64(len(truth))
    if known is not None:
        # What is unknown ranks above all that is known, and so moves none of its ranks.
        scores, ones, counted = np.where(known, scores, np.inf), ones * known, known.sum(axis=0)
    ranks = rankdata(scores, axis=0)
    n1 = ones.sum(axis=0)
    pairs = n1 * (counted - n1)
    wins = (ranks * ones).sum(axis=0) - n1 * (n1 + 1) / 2
    return np.where(pairs > 0, wins / np.where(pairs > 0, pairs, 1.0), np.nan)
