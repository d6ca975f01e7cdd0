"""Embeddings of classes as people have them, checked: one row a class, several prompts a class, or a dict by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.rows import as_numpy, unit_rows


def read_class_rows(
    class_embeddings: Any, class_names: Sequence[Any] | None, *, allow_missing: bool = False, unit: bool = True
) -> tuple[list[NDArray[np.float64]], NDArray[Any]]:
    """Check class embeddings and names against each other.

    Parameters
    ----------
    class_embeddings : array-like of shape (K, d) or (K, P, d), sequence of K items, or mapping
        One row a class; P prompts a class; items of shape (d,) or (p_c, d), where p_c may differ from class to class;
        or a mapping from class name to such an item, so that the order of two lists can never disagree.
    class_names : sequence of length K, optional
        Labels that `predict` returns. For a mapping: the order of the classes, every name a key and every key named.
        Default: the mapping's keys, else 0..K-1.
    allow_missing : bool
        Whether an item may be None or empty: a class without texts.
    unit : bool
        Scale every row to length one.

    Returns
    -------
    rows : list of K ndarrays of shape (p_c, d), float64
    names : ndarray of shape (K,)

    Raises
    ------
    InputError
        If shapes, numbers of classes or dimensions disagree, a name is repeated or unknown, or a value is not finite.
    """
    if isinstance(class_embeddings, Mapping):
        names = list(class_embeddings) if class_names is None else list(class_names)
        for name in names:
            if name not in class_embeddings:
                raise unknown("class", name, class_embeddings)
        left = [name for name in class_embeddings if name not in set(names)]
        if left:
            raise InputError(
                f"class_embeddings has {left[0]!r} ({len(left)} in all) that class_names does not name: "
                "expected the same classes in both"
            )
        items = [class_embeddings[name] for name in names]
    else:
        if hasattr(class_embeddings, "to_numpy"):
            class_embeddings = class_embeddings.to_numpy()
        items = list(as_numpy(class_embeddings))
        names = list(range(len(items))) if class_names is None else list(class_names)
    if len(names) != len(items):
        raise InputError(f"class_names: {len(names)} names for {len(items)} classes; expected one a class")
    if len(items) < 2:
        raise InputError(f"class_embeddings holds {len(items)} class(es): expected at least two")
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"class_names: {repeated!r} is there more than once; expected distinct names")
    rows = [_item(item, name, allow_missing, unit) for item, name in zip(items, names)]
    widths = {len(block[0]) for block in rows if len(block)}
    if len(widths) > 1:
        raise InputError(
            f"class_embeddings have {min(widths)} and {max(widths)} dimensions: expected one encoder for all classes"
        )
    width = widths.pop() if widths else 0
    # Mixed kinds stay the objects they are.
    labels = np.array(names, dtype=None if len({type(name) for name in names}) == 1 else object)
    return [block if len(block) else np.zeros((0, width)) for block in rows], labels


def _item(item: Any, name: Any, allow_missing: bool, unit: bool) -> NDArray[np.float64]:
    block = np.zeros((0, 0)) if item is None else np.asarray(as_numpy(item), dtype=np.float64)
    if block.size == 0:
        if not allow_missing:
            raise InputError(f"class {name!r} has no embedding: expected at least one text a class")
        return np.zeros((0, 0))
    block = np.atleast_2d(block)
    if block.ndim != 2:
        raise InputError(
            f"class {name!r} has embeddings of shape {block.shape}: expected (dimensions,) or (prompts, dimensions)"
        )
    if not np.isfinite(block).all():
        raise InputError(f"class {name!r}: its embeddings contain NaN or infinity; expected finite numbers")
    return unit_rows(block, f"class {name!r}", dtype=np.float64) if unit else block


def mean_rows(blocks: Sequence[NDArray[np.float64]], unit: bool = True) -> NDArray[np.float64]:
    """Mean of each class's rows, of length one again (Radford et al. 2021, prompt ensembles): shape (K, d).

    Examples
    --------
    >>> mean_rows([np.array([[1.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0]])]).round(3).tolist()
    [[1.0, 0.0], [0.707, 0.707]]
    """
    means = np.stack([block.mean(axis=0) for block in blocks])
    return unit_rows(means, "class_embeddings (mean of a class's rows)") if unit else means
