"""Classical dictionaries by scikit-learn: from rows to a centre and atoms. A baseline is a function and a line."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.directions import random_directions

Array = NDArray[np.float64]


def dictionary_learning(X: Array, n: int, active: int, seed: int) -> tuple[Array, Array]:
    """`MiniBatchDictionaryLearning` of the centred rows, codes by orthogonal matching pursuit."""
    from sklearn.decomposition import MiniBatchDictionaryLearning

    centre = X.mean(0)
    model = MiniBatchDictionaryLearning(
        n, fit_algorithm="cd", transform_algorithm="omp", transform_n_nonzero_coefs=active, batch_size=256,
        max_iter=5, positive_code=True, random_state=seed,
    )  # fmt: skip
    return centre, model.fit(X - centre).components_


def nmf(X: Array, n: int, active: int, seed: int) -> tuple[Array, Array]:
    """`MiniBatchNMF` of the positive and the negative parts of the centred rows, side by side."""
    from sklearn.decomposition import MiniBatchNMF

    centre = X.mean(0)
    parts = np.concatenate([np.maximum(X - centre, 0), np.maximum(centre - X, 0)], axis=1)
    halves = MiniBatchNMF(n, init="random", max_iter=50, random_state=seed).fit(parts).components_
    return centre, halves[:, : X.shape[1]] - halves[:, X.shape[1] :]


def k_means(X: Array, n: int, active: int, seed: int) -> tuple[Array, Array]:
    """Cluster centres of `MiniBatchKMeans`, seen from the mean."""
    from sklearn.cluster import MiniBatchKMeans

    centre = X.mean(0)
    model = MiniBatchKMeans(n, batch_size=1024, n_init=1, random_state=seed).fit(X - centre)
    return centre, model.cluster_centers_


def pca(X: Array, n: int, active: int, seed: int) -> tuple[Array, Array]:
    """Principal axes, each once as it is and once turned round, since codes are not negative."""
    from sklearn.decomposition import PCA

    centre = X.mean(0)
    axes = PCA(min((n + 1) // 2, *X.shape), svd_solver="full", random_state=seed).fit(X).components_
    both = np.stack([axes, -axes], axis=1).reshape(-1, X.shape[1])[:n]
    return centre, np.concatenate([both, np.zeros((n - len(both), X.shape[1]))])


def random(X: Array, n: int, active: int, seed: int) -> tuple[Array, Array]:
    """Random directions."""
    return X.mean(0), random_directions(n, X.shape[1], np.random.default_rng(seed)).astype(np.float64)
