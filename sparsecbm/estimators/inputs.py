"""Checks of embeddings, concept embeddings and names that every estimator on embeddings shares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm._base.rows import as_numpy, row_divisors, unit_rows
from sparsecbm.bottleneck.rows import Rows

_ROWS = 8192
UNIT = 1e-3
"""Rows whose length is less than this away from one are taken as they are."""


SAFE_SCALE = (1e-30, 1e30)
"""Sizes of numbers, other than embeddings of length one, that can be calculated with in float32."""


def unit_rows_lazily(X: np.ndarray, what: str) -> np.ndarray | Rows:
    """Rows of length one without a copy of any: they are scaled as they are used.

    Raises
    ------
    InputError
        If a row is zero: a zero vector has no direction, hence no cosine.
    """
    divisors = row_divisors(X, what, UNIT)
    return X if divisors is None else Rows(X, divisors=divisors)


def encoder_note(X: Any) -> dict[str, Any] | None:
    """Which encoder made what `embed_images` returned; None for other arrays."""
    note = getattr(X, "provenance", None)
    made_by = note.get("encoder") if isinstance(note, dict) else None
    return (
        {key: made_by.get(key) for key in ("spec", "fingerprint", "precision")} if isinstance(made_by, dict) else None
    )


def column_names(model: Any) -> list[str] | None:
    """Names of the columns X had in `fit`, where they are the concepts."""
    names = getattr(model, "feature_names_in_", None)
    return None if names is None or model.concept_embeddings is not None else list(map(str, names))


def check_finite(X: np.ndarray, what: str) -> None:
    """Raise scikit-learn's ValueError if a number is NaN or infinite, reading a piece at a time."""
    from sklearn.utils import assert_all_finite

    for start in range(0, len(X), _ROWS):
        assert_all_finite(X[start : start + _ROWS].astype(np.float32), input_name=what)


def check_concepts(
    concept_embeddings: ArrayLike | None,
    concept_names: Sequence[str] | None,
    n_features: int,
    n_labelled: int | None = None,
) -> tuple[np.ndarray | None, list[str]]:
    """Check concept embeddings, names and labels against each other and against the number of columns of X.

    Without embeddings the concepts are those that are labelled, or the columns of X.

    Returns
    -------
    embeddings : ndarray of shape (M, d), float32, unit rows, or None
    names : list of str, length M
        ``"concept 0"``, ... where none are given.

    Raises
    ------
    InputError
        If dimensions differ, a value is NaN or infinite, a row is zero, or a name is repeated.
    """
    if concept_embeddings is None:
        embeddings, n_concepts = None, n_features if n_labelled is None else n_labelled
    else:
        embeddings = np.asarray(as_numpy(concept_embeddings))
        if embeddings.ndim != 2 or len(embeddings) == 0:
            raise InputError(
                f"concept_embeddings has shape {embeddings.shape}: expected (concepts, dimensions), at least one row"
            )
        if embeddings.shape[1] != n_features:
            raise InputError(
                f"concept_embeddings have {embeddings.shape[1]} dimensions but the images' embeddings have "
                f"{n_features}: encode images and concepts with the same encoder"
            )
        embeddings = unit_rows(embeddings, "concept_embeddings", tolerance=UNIT, dtype=np.float32)
        n_concepts = len(embeddings)
    if n_labelled not in (None, n_concepts):
        raise InputError(f"concept_labels have {n_labelled} columns: expected one for each of {n_concepts} concepts")
    return embeddings, check_names(concept_names, n_concepts)


def check_names(concept_names: Sequence[str] | None, n_concepts: int) -> list[str]:
    """Return names of so many concepts, ``"concept 0"``, ... where none are given.

    Raises
    ------
    InputError
        If there are more or fewer, or a name is repeated.
    """
    names = [f"concept {j}" for j in range(n_concepts)] if concept_names is None else [str(n) for n in concept_names]
    if len(names) != n_concepts:
        raise InputError(f"concept_names: {len(names)} names for {n_concepts} concepts; expected one a concept")
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"concept_names: {repeated!r} is there more than once; expected distinct names")
    return names
