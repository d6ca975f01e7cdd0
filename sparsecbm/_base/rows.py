"""Rows of length one: the one place of the package that divides a row by its length.

A zero row has no direction. Where embeddings come in it is refused, with its number; where the package itself made the
rows (differences from a mean, scores in concept space) it stays zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError

_BLOCK = 8192  # rows at a time: a memory-mapped matrix larger than memory is read in pieces
# Between these lengths no square that matters overflows or vanishes in float64.
_SAFE = (1e-140, 1e150)


def as_numpy(values: Any) -> Any:
    """Return a tensor of any device and type as an array, what embedding returned as its rows, all else as it is.

    NumPy has no bfloat16 and narrower; their numbers are the same in float32.
    """
    if isinstance(getattr(values, "provenance", None), dict) and hasattr(values, "vectors"):
        return values.vectors
    if not hasattr(values, "detach"):
        return values
    values = values.detach().cpu()
    try:
        return values.numpy()
    except TypeError:
        return values.float().numpy()


def evenly_spaced(n: int, limit: int) -> NDArray[np.int64]:
    """Return at most `limit` row numbers, evenly spread over n rows, ascending."""
    return np.arange(n) if n <= limit else np.linspace(0, n - 1, limit).round().astype(np.int64)


def row_lengths(
    rows: NDArray[Any], what: str = "", *, names: Sequence[str] | None = None, first: int = 0
) -> NDArray[np.float64]:
    """Euclidean length of each row, in float64 whatever the rows are in: shape (n,).

    Zero and NaN tell zero rows and rows that are not finite; with `what` they are refused, as by `unit_rows`.
    """
    result = np.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        _, lengths, powers = _measured(rows[start : start + _BLOCK])
        result[start : start + _BLOCK] = _whole(lengths, powers)
    _check(result, what, names, first)
    return result


def unit_rows(
    rows: Any,
    what: str = "",
    *,
    tolerance: float = 0.0,
    floor: float = 0.0,
    dtype: Any = None,
    names: Sequence[str] | None = None,
    first: int = 0,
) -> NDArray[Any]:
    """Return rows of length one, right to the last bits for any length that the numbers can have.

    Parameters
    ----------
    rows : array-like or tensor of shape (n, d)
        Numbers of any type.
    what : str
        What they are, for messages; then zero rows and rows with NaN or infinity are refused. Without it, zero rows
        stay zero.
    tolerance : float
        Rows whose length is less than this away from one stay as they are, and `rows` is not copied where all do. Each
        row decides for itself, so that it does not depend on its neighbours.
    floor : float
        Rows of this length or less become zero.
    dtype : dtype, optional
        Of the result; None takes float64 for float64 rows, else float32.
    names : sequence of str, optional
        Of the rows, for messages.
    first : int
        Number of the first row, for messages.

    Returns
    -------
    ndarray of shape (n, d)

    Raises
    ------
    InputError
        If `what` is given and a row is zero or not finite.

    Examples
    --------
    >>> unit_rows([[3e-200, 4e-200], [0.0, 0.0]]).tolist()
    [[0.6, 0.8], [0.0, 0.0]]
    """
    rows = np.asarray(as_numpy(rows))
    dtype = dtype or (np.float64 if rows.dtype == np.float64 else np.float32)
    if tolerance and row_divisors(rows, what, tolerance, names=names, first=first) is None:
        return rows.astype(dtype, copy=False)
    result = np.empty(rows.shape, dtype)
    for start in range(0, len(rows), _BLOCK):
        block, lengths, powers = _measured(rows[start : start + _BLOCK])
        whole = _whole(lengths, powers)
        _check(whole, what, names, first + start)
        kept = np.abs(whole - 1.0) < tolerance
        block /= np.where(kept | (lengths == 0), 1.0, lengths)[:, None]
        block[whole <= floor] = 0.0
        result[start : start + _BLOCK] = block
    return result


def row_divisors(
    rows: NDArray[Any], what: str, tolerance: float = 0.0, *, names: Sequence[str] | None = None, first: int = 0
) -> NDArray[np.float64] | None:
    """Numbers to divide rows by so that `unit_rows` comes out, shape (n,); None where all rows may stay as they are.

    For rows in float32 or narrower, whose lengths float64 always holds.
    """
    lengths = row_lengths(rows, what, names=names, first=first)
    kept = np.abs(lengths - 1.0) < tolerance
    return None if kept.all() else np.where(kept, 1.0, lengths)


def all_finite(values: NDArray[Any]) -> bool:
    """Whether no number is NaN or infinite, reading a piece at a time."""
    return all(bool(np.isfinite(values[start : start + _BLOCK]).all()) for start in range(0, len(values), _BLOCK))


def check_scale(values: NDArray[Any], what: str, low: float, high: float) -> None:
    """Refuse numbers of a size at which sums of squares would overflow or vanish; numbers that are all zero pass.

    Raises
    ------
    InputError
        If the largest absolute value is not zero and outside ``low`` to ``high``.
    """
    blocks = (values[start : start + _BLOCK] for start in range(0, len(values), _BLOCK))
    largest = max((float(np.abs(block).max(initial=0)) for block in blocks), default=0.0)
    if largest and not low <= largest <= high:
        raise InputError(
            f"{what}: its largest number is {largest:.3g}: expected between {low:g} and {high:g}; scale the numbers"
        )


def finite(values: NDArray[Any], what: str) -> NDArray[Any]:
    """Return numbers (n, k) that are finite.

    Raises
    ------
    InputError
        If one is not: an embedding, or a weight of the model, is too large to calculate with.
    """
    if not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise InputError(
            f"{what} of row {row} are not finite: its numbers, or the model's weights, are too large to calculate with"
        )
    return values


def _check(lengths: NDArray[np.float64], what: str, names: Sequence[str] | None, first: int) -> None:
    if not what:
        return
    for wrong, problem in ((np.isnan(lengths), "holds NaN or infinity"), (lengths == 0, "is a zero vector")):
        if wrong.any():
            row = first + int(wrong.argmax())
            name = "" if names is None else f" ({str(names[row])!r})"
            raise InputError(
                f"{what}: row {row}{name} {problem} ({int(wrong.sum())} in all); expected finite embeddings with a "
                "direction, encode them again or leave them out"
            )


def _whole(lengths: NDArray[np.float64], powers: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(over="ignore", under="ignore"):  # a length may be too large or small for any number
        return np.where(lengths == 0, 0.0, np.maximum(np.ldexp(lengths, powers), 5e-324))


def _measured(rows: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Copy of rows in float64, divided by a power of two where their squares would not fit; lengths of that; powers."""
    block = rows.astype(np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        lengths = np.linalg.norm(block, axis=1)
    powers = np.zeros(len(block), dtype=np.int64)
    odd = np.flatnonzero(~((lengths > _SAFE[0]) & (lengths < _SAFE[1])))
    if len(odd):
        largest = np.abs(block[odd]).max(axis=1, initial=0.0)
        finite = np.isfinite(largest)
        powers[odd] = np.where(finite, np.frexp(np.where(finite, largest, 1.0))[1], 0)
        block[odd] = np.ldexp(block[odd], -powers[odd, None])
        with np.errstate(invalid="ignore", under="ignore"):
            lengths[odd] = np.where(finite, np.linalg.norm(block[odd], axis=1), np.nan)
    return block, lengths, powers
