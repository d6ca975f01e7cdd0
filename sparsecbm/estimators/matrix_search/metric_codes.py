"""Images rewritten with few concepts, in a metric made of the classes they are to be told apart by."""

from __future__ import annotations

import numpy as np
import torch

from sparsecbm.estimators.matrix_search.base import Array
from sparsecbm.estimators.matrix_search.pursuit import Focus, Pursuit, SparseCodes

_FLOOR = 1e-3
"""Share of the mean eigenvalue added to the metric, so that it sees every direction a little."""
_CANDIDATES = 100
_SOFTNESS = 0.3
"""Candidates count in proportion to softmax(0.3 * logit_scale * score): softer than the prediction itself."""
_EVERYWHERE = 0.3
"""Weight of the common metric beside the candidates' own."""


class MetricCodes:
    """Sparse codes of images over concepts for a linear classifier ``X @ rows.T``.

    *Common* codes minimise (x - sum_j a_j c_j)^T Q (x - sum_j a_j c_j), Q a power of the classes' rows^T rows (of mean
    eigenvalue 1): between the plain metric (power 0), which spends concepts on what decides nothing, and
    rows^T rows itself (1), which spends them on the few directions in which most classes differ. The fewer the
    concepts, the plainer the metric should be: they then name what is seen. Q is the same for all images.

    *Focused* codes add, for each image, the squared errors of its leading candidates' scores,

        sum_c p_c (e_c - sum_b p_b e_b)^2,   p = softmax(0.3 * logit_scale * score) over 100 candidates,

    so that what tells these apart is rewritten first.

    Parameters
    ----------
    rows : ndarray of shape (K, d)
        Class rows of the classifier, relative to their mean.
    concepts : ndarray of shape (M, d)
        Centred concepts.
    logit_scale : float
        Of the candidates' softmax.
    nonnegative : bool
        Whether only concepts that are there may be named.
    power : float
        Of the metric, in [0, 1].
    """

    def __init__(
        self,
        rows: Array,
        concepts: Array,
        constant: Array,
        *,
        logit_scale: float,
        nonnegative: bool,
        power: float = 0.5,
    ) -> None:
        self._rows, self._constant = rows, constant
        self._logit_scale, self._nonnegative = logit_scale, nonnegative
        metric = rows.T @ rows
        level = max(float(np.trace(metric)) / len(metric), 1e-300)
        values, vectors = np.linalg.eigh(metric / level + _FLOOR * np.eye(len(metric)))
        self._root = (vectors * np.maximum(values, 0.0) ** (power / 2)) @ vectors.T
        # One unit for candidates and common metric: the mean squared class score a dimension.
        self._unit = np.sqrt(level / len(rows))
        self._weights = torch.from_numpy(rows @ concepts.T / self._unit).float()
        self._pursuit = Pursuit(concepts @ self._root)

    def common(self, Z: Array, k: int) -> SparseCodes:
        """Codes in the common metric, of rows Z relative to their origin."""
        return self._pursuit.codes(Z @ self._root, k, nonnegative=self._nonnegative)

    def focused(self, Z: Array, k: int) -> SparseCodes:
        """Codes in each row's own metric."""
        return self._pursuit.codes(
            Z @ self._root,
            k,
            nonnegative=self._nonnegative,
            focus=lambda rows: self._focus(Z[rows]),
            focus_size=2 * min(_CANDIDATES, len(self._rows)),
        )

    def _focus(self, Z: Array) -> Focus:
        scores = torch.from_numpy(Z @ self._rows.T)
        logits = self._logit_scale * (scores + torch.from_numpy(self._constant))
        leading, candidates = logits.topk(min(_CANDIDATES, logits.shape[1]), dim=1)
        share = torch.softmax(_SOFTNESS * leading, dim=1)
        targets = scores.gather(1, candidates) / self._unit
        targets = share.sqrt() * (targets - (share * targets).sum(dim=1, keepdim=True))
        share = share.float()[:, :, None]
        atoms = self._weights[candidates]
        atoms = share.sqrt() * (atoms - (share * atoms).sum(dim=1, keepdim=True))
        scale = _EVERYWHERE**-0.5
        return Focus(atoms * scale, targets.float() * scale)
