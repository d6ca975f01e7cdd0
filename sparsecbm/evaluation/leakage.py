"""Leakage: do the activations know more about the class than the true concepts do?

A clean activation depends on an image's class only through its true concepts (and noise). Each activation is regressed
on the true concepts, linearly (which is exact for a function of its own binary concept), and what is left must not
be related to what is left of the class. The relation is a share of variance, R^2; its null distribution comes from
permuting the residuals of the activations over the images (Freedman & Lane 1983), all units together, so that the
largest R^2 of all units has an exact family-wise null. Leaks spread thinly over many units show in the mean R^2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError

ALARM = 0.05


@dataclass(frozen=True)
class LeakageReport:
    """Result of `leakage`.

    Attributes
    ----------
    per_unit : ndarray of shape (M,)
        Share of each activation's residual variance that the class explains beyond the concepts, in [0, 1], minus its
        mean under the null: about 0 for a clean unit.
    unit_p_values : ndarray of shape (M,)
        Family-wise p-value of each unit (already corrected for looking at M units).
    p_value : float
        Of no leak anywhere: twice the smaller one of those of the largest and of the mean R^2, at most 1.
    score : float
        How far the observed shares stand from their null, in null standard deviations (the larger of the two
        statistics): a number to rank models by.
    accuracy_concepts, accuracy_activations : float
        Cross-validated accuracy of a logistic regression of the class on the true concepts, and on the activations.
        NaN when not asked for.
    nats : float
        Cross-validated log loss on the concepts minus that on concepts and activations together: what the activations
        add about the class. NaN when not asked for.
    """

    per_unit: np.ndarray = field(repr=False)
    unit_p_values: np.ndarray = field(repr=False)
    p_value: float
    score: float
    accuracy_concepts: float
    accuracy_activations: float
    nats: float

    @property
    def alarm(self) -> bool:
        """Whether a leak was found, at a chance of 5% of a false alarm."""
        return self.p_value < ALARM

    @property
    def leaking_units(self) -> np.ndarray:
        """Numbers of the units with a family-wise p-value below 5%."""
        return np.flatnonzero(self.unit_p_values < ALARM)

    def summary(self) -> dict[str, float | bool | int]:
        """Scalars for a table or JSON; numbers that were not computed are left out."""
        out = {
            "leak_p_value": self.p_value, "leak_score": self.score, "leak_alarm": self.alarm,
            "leaking_units": int(self.leaking_units.size), "accuracy_from_concepts": self.accuracy_concepts,
            "accuracy_from_activations": self.accuracy_activations, "leak_nats": self.nats,
        }  # fmt: skip
        return {key: value for key, value in out.items() if not (isinstance(value, float) and np.isnan(value))}


def leakage(
    A: ArrayLike,
    attributes: ArrayLike,
    y: ArrayLike,
    *,
    n_permutations: int = 499,
    information: bool = True,
    random_state: int | np.random.Generator | None = 0,
) -> LeakageReport:
    """Test activations for class information that the true concepts do not carry.

    Parameters
    ----------
    A : array-like of shape (n, M)
        Activations of held-out images.
    attributes : array-like of shape (n, C)
        True concepts of the images (booleans, or numbers); C may differ from M.
    y : array-like of shape (n,)
        Class labels.
    n_permutations : int
        Draws from the null; the least p-value is 2 / (n_permutations + 1).
    information : bool
        Also fit the cross-validated logistic regressions (seconds); needs three images of each class.
    random_state : int, Generator or None
        Seed of permutations and folds.

    Raises
    ------
    InputError
        If shapes differ, values are not finite, or there are too few images to regress on the concepts and the class.
    """
    A = np.asarray(A, dtype=float)
    attributes = np.asarray(attributes, dtype=float)
    y = np.asarray(y)
    if A.ndim != 2 or attributes.ndim != 2 or not len(A) == len(attributes) == len(y) or A.size == 0:
        raise InputError(
            f"activations {A.shape}, attributes {attributes.shape} and labels {y.shape}: expected one row an image"
        )
    if not (np.isfinite(A).all() and np.isfinite(attributes).all()):
        raise InputError("activations or attributes hold NaN or infinite values: expected finite numbers")
    if n_permutations < 19:
        raise InputError(f"n_permutations={n_permutations!r}: expected a whole number of at least 19")
    rng = np.random.default_rng(random_state)
    classes, codes = np.unique(y, return_inverse=True)
    concepts = _basis(np.column_stack([np.ones(len(A)), attributes]))
    onehot = np.eye(len(classes))[codes]
    scale = np.sqrt(len(A))
    left_of_class = onehot - concepts @ (concepts.T @ onehot)
    direction = _basis(left_of_class, floor=1e-8 * scale)
    freedom = len(A) - concepts.shape[1] - direction.shape[1]
    if freedom < 10:
        raise InputError(
            f"{len(A)} images are too few for {concepts.shape[1]} concept and {direction.shape[1]} class dimensions: "
            "give at least 10 more, or fewer attributes"
        )
    left = A - concepts @ (concepts.T @ A)
    # A unit that is an exact function of the concepts has nothing left but rounding.
    silent = np.linalg.norm(left, axis=0) <= 1e-9 * np.maximum(np.linalg.norm(A, axis=0), 1e-300)
    left = np.where(silent, 0.0, left / np.where(silent, 1.0, np.linalg.norm(left, axis=0)))
    observed = ((direction.T @ left) ** 2).sum(0)
    draws = np.empty((n_permutations, A.shape[1]))
    for i in range(n_permutations):
        shuffled = left[rng.permutation(len(A))]
        # Freedman-Lane: the shuffled residuals are regressed on the concepts again before they are compared.
        shuffled = shuffled - concepts @ (concepts.T @ shuffled)
        total = (shuffled * shuffled).sum(0)
        draws[i] = ((direction.T @ shuffled) ** 2).sum(0) / np.where(total == 0, 1.0, total)
    largest, mean = draws.max(1), draws.mean(1)
    unit_p = (1 + (largest[:, None] >= observed[None]).sum(0)) / (n_permutations + 1)
    unit_p[silent] = 1.0
    tail_mean = (1 + int((mean >= observed.mean()).sum())) / (n_permutations + 1)
    possible = direction.shape[1] > 0 and not silent.all()
    p_value = min(1.0, 2 * min(float(unit_p.min()), tail_mean)) if possible else 1.0
    score = max(
        (float(observed.max()) - largest.mean()) / max(largest.std(), 1e-300),
        (float(observed.mean()) - mean.mean()) / max(mean.std(), 1e-300),
    ) if possible else 0.0  # fmt: skip
    known = _information(A, attributes, codes, rng) if information else (float("nan"),) * 3
    return LeakageReport(observed - draws.mean(0), unit_p, float(p_value), float(score), *known)


def _basis(matrix: np.ndarray, floor: float = 0.0) -> np.ndarray:
    """Orthonormal basis of the columns."""
    left, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    return left[:, singular > max(floor, 1e-10 * singular.max(initial=0.0))]


def _information(
    A: np.ndarray, attributes: np.ndarray, codes: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss
    from sklearn.model_selection import StratifiedKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if np.bincount(codes).min() < 3:
        raise InputError("a class has fewer than three images: pass information=False, or more images")
    folds = StratifiedKFold(3, shuffle=True, random_state=int(rng.integers(2**31)))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=300))

    def known(table: np.ndarray) -> tuple[float, float]:
        proba = cross_val_predict(model, table, codes, cv=folds, method="predict_proba")
        return float((proba.argmax(1) == codes).mean()), float(log_loss(codes, proba))

    concepts, activations = known(attributes), known(A)
    both = known(np.column_stack([attributes, A]))
    return concepts[0], activations[0], concepts[1] - both[1]
