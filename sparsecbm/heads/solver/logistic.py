"""Classes that do not exclude each other: a logistic regression each, which share one budget of weights.

The objective of `softmax.py` with sum_k BCE(t_ki, (W a_i + b)_k) in place of the cross-entropy.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from scipy.special import entr

from sparsecbm._base.logistic import sigmoid
from sparsecbm.heads.solver.softmax import Problem


class LogisticProblem(Problem):
    """Data of logistic regressions; `targets` (K, n) holds whether each sample is of each class."""

    @cached_property
    def labels(self) -> np.ndarray | None:
        """None: no sample has one class."""
        return None

    def loss(self, logits: np.ndarray) -> tuple[float, np.ndarray]:
        losses = (np.logaddexp(0, logits) - self.targets * logits).sum(0)
        return float(self.weights.astype(np.float64) @ losses.astype(np.float64)), sigmoid(logits)

    def bend(self, probabilities: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        curvature = self.weights * probabilities * (1 - probabilities)
        return lambda change: change * curvature

    def entropies(self, probabilities: np.ndarray) -> np.ndarray:
        return -(entr(probabilities) + entr(1 - probabilities)).sum(0)

    def log_prior(self) -> np.ndarray:
        share = np.clip(self.targets @ self.weights, 1e-12, 1 - 1e-12)
        return np.log(share) - np.log1p(-share)
