"""Which pictures belong to train, validation and test: official where they exist, else seeded and stratified.

The rules, in order:

1. A split that the data set has itself (``train``; ``validation``, ``val``, ``valid`` or ``dev``; ``test``) is used.
2. A missing validation or test split is carved out of the training pictures, class by class, and removed from them:
   `VALIDATION_SHARE` and `TEST_SHARE` of each class, rounded, and at least one picture of each class in each part.
   (scikit-learn's stratified splitters keep proportions but may leave a small class out of a part altogether.)
3. Pictures without labels are carved at random.

The same seed gives the same parts, whichever of them is asked for, and the parts never overlap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sparsecbm._base.errors import InputError, unknown

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2
_SHARES = {"test": TEST_SHARE, "validation": VALIDATION_SHARE}
SPLITS = ("train", "validation", "test")
_ALIASES = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


# "training_set", "test-images", "val2017"
_SET_OF = re.compile("(?P<split>[a-z]+?)(?:[ _-]?(?:set|data|images))?(?:[ _-]?(?:19|20)[0-9]{2})?")


def canonical_split(name: str) -> str:
    """Return ``train``, ``validation`` or ``test`` for one of their aliases, and any other name as it is.

    Examples
    --------
    >>> canonical_split("val"), canonical_split("Test_set"), canonical_split("train2017"), canonical_split("extra")
    ('validation', 'test', 'train', 'extra')
    """
    found = _SET_OF.fullmatch(name.strip().lower())
    return _ALIASES.get(found["split"], name) if found else name


@dataclass(frozen=True)
class SplitChoice:
    """The pictures of one split.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Row numbers, ascending.
    rule : str
        How they were chosen, for reports.
    """

    rows: np.ndarray
    rule: str


def choose_split(
    split: str,
    official: Mapping[str, range],
    labels: np.ndarray | None,
    class_names: Sequence[str] = (),
    *,
    seed: int = 0,
    splits: Mapping[str, str] | None = None,
    what: str = "the data set",
) -> SplitChoice:
    """Pick the rows of `split`.

    Parameters
    ----------
    split : str
        ``train``, ``validation`` or ``test`` (or an alias), the name of any official split, or ``all``.
    official : mapping of str to range
        The data set's own splits, each a range of rows.
    labels : ndarray of int64, shape (n,), or None
        Class of every row; negative where unknown.
    class_names : sequence of str
        For messages.
    seed : int
        Seed of the carved parts.
    splits : mapping of str to str, optional
        Which official split to use as which, for instance ``{"test": "validation"}`` where the official test labels are
        secret. An official split used this way is used for nothing else.
    what : str
        Name of the data set, for messages.

    Raises
    ------
    InputError
        If the split does not exist and cannot be carved, or a class has too few images to be in every part.
    """
    parts = _assign(official, splits, what)
    wanted = canonical_split(split)
    if wanted == "all":
        everything = [np.asarray(rows, dtype=np.int64) for rows in official.values()]
        return SplitChoice(np.concatenate(everything), "all pictures")
    # What missing parts are carved from.
    pool = parts.get("train", next(iter(official)) if len(official) == 1 and not parts else None)
    if wanted in parts and wanted != "train":
        return SplitChoice(np.asarray(official[parts[wanted]], dtype=np.int64), f"official {parts[wanted]!r}")
    if wanted not in SPLITS:
        if split in official:
            return SplitChoice(np.asarray(official[split], dtype=np.int64), f"official {split!r}")
        raise unknown(f"split of {what}", split, [*official, *SPLITS, "all"])
    if pool is None:
        raise InputError(
            f"{what} has no {wanted} split and no training pictures to carve one from: its splits are "
            f"{', '.join(official)}; name one of them, or give splits={{{wanted!r}: ...}}"
        )
    missing = [part for part in ("test", "validation") if part not in parts]
    rows = np.asarray(official[pool], dtype=np.int64)
    if not missing:
        return SplitChoice(rows, f"official {pool!r}")
    known = None if labels is None else labels[rows]
    carved = carve(known, len(rows), missing, seed=seed, class_names=class_names, what=f"{what}, split {pool!r}")
    shares = " and ".join(f"{_SHARES[part]:.0%} for {part}" for part in missing)
    rule = f"official {pool!r} less {shares}" if wanted == "train" else f"{_SHARES[wanted]:.0%} of official {pool!r}"
    return SplitChoice(rows[carved[wanted]], f"{rule}, stratified, seed {seed}")


def _assign(official: Mapping[str, range], splits: Mapping[str, str] | None, what: str) -> dict[str, str]:
    """Map train / validation / test to the official split each is taken from."""
    given = {canonical_split(ours): theirs for ours, theirs in (splits or {}).items()}
    for ours, theirs in given.items():
        if ours not in SPLITS:
            raise unknown("split in splits=", ours, SPLITS)
        if theirs not in official:
            raise unknown(f"split of {what}", theirs, official)
    if len(set(given.values())) < len(given):
        raise InputError(
            f"splits={dict(splits or {})} uses one official split twice: train, validation and test may not overlap"
        )
    parts = dict(given)
    for name in official:
        ours = canonical_split(name)
        if ours not in SPLITS or ours in given or name in given.values():
            continue
        if ours in parts:
            raise InputError(
                f"{what} has both {parts[ours]!r} and {name!r}: say which is meant by splits={{{ours!r}: {name!r}}}"
            )
        parts[ours] = name
    return parts


def carve(
    labels: np.ndarray | None,
    n: int,
    parts: Sequence[str] = ("test", "validation"),
    *,
    seed: int = 0,
    class_names: Sequence[str] = (),
    what: str = "the data set",
) -> dict[str, np.ndarray]:
    """Split rows 0..n-1 into train and the named parts, stratified by label.

    Returns
    -------
    dict of str to ndarray of int64
        ``train`` and each of `parts`: ascending row numbers that partition ``range(n)``.

    Raises
    ------
    InputError
        If a class has fewer than ``len(parts) + 1`` images.

    Examples
    --------
    >>> import numpy as np
    >>> carved = carve(np.repeat([0, 1], 10), 20)
    >>> {part: len(rows) for part, rows in carved.items()}
    {'train': 14, 'test': 4, 'validation': 2}
    """
    rng = np.random.default_rng(seed)
    groups = (
        [np.arange(n)]
        if labels is None or (labels < 0).all()
        else [np.flatnonzero(labels == k) for k in np.unique(labels)]
    )
    taken: dict[str, list[np.ndarray]] = {part: [] for part in ("train", *parts)}
    small = []
    for rows in groups:
        if len(rows) < len(parts) + 1:
            small.append(rows)
            continue
        order, start = rng.permutation(rows), 0
        for part in parts:
            count = max(1, round(_SHARES[part] * len(rows)))
            taken[part].append(order[start : start + count])
            start += count
        taken["train"].append(order[start:])
    if small:
        raise InputError(_too_small(small, labels, parts, class_names, what))
    return {part: np.sort(np.concatenate(rows)).astype(np.int64) for part, rows in taken.items()}


def _too_small(
    small: list[np.ndarray], labels: np.ndarray | None, parts: Sequence[str], class_names: Sequence[str], what: str
) -> str:
    need = len(parts) + 1
    if labels is None:
        return f"{what} has {len(small[0])} images; carving {' and '.join(parts)} out of it needs at least {need}"

    def describe(rows: np.ndarray) -> str:
        k = int(labels[rows[0]])
        name = repr(class_names[k]) if 0 <= k < len(class_names) else str(k)
        return f"{name} ({len(rows)} image{'s' if len(rows) > 1 else ''})"

    shown = ", ".join(describe(rows) for rows in small[:3]) + (f" and {len(small) - 3} more" if len(small) > 3 else "")
    return (
        f"too few images to carve {' and '.join(parts)} out of {what}: every class needs at least {need}, "
        f"but see {shown}; add images, drop the class, or provide separate train, validation and test splits"
    )


def stratified_subset(labels: np.ndarray | None, n: int, max_images: int, *, seed: int = 0) -> np.ndarray:
    """Choose `max_images` of n rows in the proportions of the classes, at least one of each class where there is room.

    Returns
    -------
    ndarray of int64, shape (min(n, max_images),)
        Ascending row numbers.

    Examples
    --------
    >>> import numpy as np
    >>> labels = np.repeat([0, 1, 2], [6, 3, 1])
    >>> np.bincount(labels[stratified_subset(labels, 10, 5)])
    array([2, 2, 1])
    """
    if max_images >= n:
        return np.arange(n)
    rng = np.random.default_rng([seed, 1])
    if labels is None:
        return np.sort(rng.permutation(n)[:max_images])
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    least = np.ones_like(sizes) if max_images >= len(sizes) else np.zeros_like(sizes)
    room, spare = max_images - least.sum(), sizes - least
    quota = room * spare / max(1, spare.sum())
    counts = least + np.floor(quota).astype(np.int64)
    # Largest remainder; equal remainders fall in seeded random order, so that no class is favoured by its number.
    shuffled = rng.permutation(len(sizes))
    by_remainder = shuffled[np.argsort(-(quota - np.floor(quota))[shuffled], kind="stable")]
    counts[by_remainder[: max_images - counts.sum()]] += 1
    chosen = [rng.permutation(np.flatnonzero(inverse == k))[: counts[k]] for k in range(len(sizes))]
    return np.sort(np.concatenate(chosen)).astype(np.int64)
