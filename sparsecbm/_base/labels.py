"""Class labels: one a row, numbered by sorted classes. scikit-learn is imported when used."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError


def label_column(y: ArrayLike, n_rows: int, what: str = "y") -> NDArray[Any]:
    """Return labels of shape (n,). Of shape (n, 1) they are taken, too, with scikit-learn's DataConversionWarning.

    Every estimator and every measure goes through here, since labels (n, 1) beside predictions (n,) would broadcast.

    Raises
    ------
    InputError
        If there is not one label a row.
    """
    from sklearn.utils import column_or_1d

    try:
        labels = column_or_1d(y, warn=True)
    except ValueError as error:
        raise InputError(
            f"{what}: labels of shape {np.shape(y)}; expected one label a row, shape ({n_rows},)"
        ) from error
    if len(labels) != n_rows:
        raise InputError(f"{what}: {len(labels)} labels for {n_rows} rows; expected one label a row")
    if labels.dtype == object and all(isinstance(value, (int, np.integer)) for value in labels):
        return np.array(labels.tolist())  # whole numbers that came as objects are numbers
    return labels


def indicator(y: Any) -> NDArray[np.float32] | None:
    """Return labels that are an indicator matrix (n, K) of 0 and 1, of which a row may hold any number; else None.

    Raises
    ------
    InputError
        If a class has no row, or all.
    """
    try:
        given = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
    except ValueError:  # rows of different lengths
        return None
    if given.ndim != 2 or given.shape[1] < 2 or given.dtype.kind not in "biuf" or not np.isin(given, (0, 1)).all():
        return None
    share = given.mean(axis=0)
    empty = np.flatnonzero((share == 0) | (share == 1))
    if len(empty):
        what = "no" if share[empty[0]] == 0 else "every"
        raise InputError(f"y: {what} row is of class {empty[0]} ({len(empty)} such classes): leave the column out")
    return given.astype(np.float32)


def number_classes(y: ArrayLike, n_rows: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted classes of training labels, shape (K,), and the number of each label's class, shape (n,).

    Raises
    ------
    InputError
        If labels are of kinds that cannot be sorted, or of one class.
    ValueError
        scikit-learn's own, if they are no class labels.
    """
    from sklearn.utils.multiclass import check_classification_targets

    labels = label_column(y, n_rows)
    try:
        check_classification_targets(labels)
        classes, numbers = np.unique(labels, return_inverse=True)
    except TypeError as error:
        kinds = sorted({type(value).__name__ for value in labels.tolist()})
        raise InputError(f"y holds labels of the kinds {', '.join(kinds)}: expected one kind of label") from error
    if len(classes) < 2:
        raise InputError(f"y holds one class only, {classes.tolist()[0]!r}: expected at least two classes")
    return classes, numbers


def class_numbers(y: ArrayLike, n_rows: int, classes: NDArray[Any] | Sequence[Any], what: str) -> NDArray[np.int64]:
    """Return the number of each label's class, shape (n,), of labels that must be among known classes.

    Raises
    ------
    InputError
        If there is not one label a row, or one that is no class.

    Examples
    --------
    >>> class_numbers(["jay", "finch"], 2, np.array(["finch", "jay"]), "y_val").tolist()
    [1, 0]
    """
    numbers = {name: number for number, name in enumerate(np.asarray(classes).tolist())}
    labels = label_column(y, n_rows, what).tolist()
    strange = [label for label in labels if label not in numbers]
    if strange:
        raise InputError(
            f"{what}: {strange[0]!r} ({len(strange)} such rows) is not among the classes, "
            f"such as {next(iter(numbers))!r}"
        )
    return np.array([numbers[label] for label in labels], dtype=np.int64)
