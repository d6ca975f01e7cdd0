"""Where concepts are seen over many pictures: on the object, or in the background."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import InputError
from sparsecbm.explain.ledger import Ledgers
from sparsecbm.explain.maps.regions import covered

STAYS = 0.8
"""A unit that keeps this share of its value without the object is not about the object."""


@dataclass(frozen=True, eq=False)
class Whereabout:
    """Where one concept is seen.

    Attributes
    ----------
    concept : str
    n : int
        Pictures in which it is active.
    grid : ndarray of float64, shape (h, w)
        Its mean map.
    outside : float or None
        Mean share of the positive part of its maps that lies outside the object, in [0, 1]; None without objects.
    area : float or None
        Share of the pictures that lies outside the object: what `outside` is by chance.
    kept : float or None
        Share of its unit that is left when the object is painted over; None where that was not tried.
    rows : tuple of (int, float)
        Pictures and their own share outside, most outside first.
    """

    concept: str
    n: int
    grid: NDArray[np.float64]
    outside: float | None = None
    area: float | None = None
    kept: float | None = None
    rows: tuple[tuple[int, float], ...] = ()

    @property
    def background(self) -> bool:
        """Whether the concept is read off the background: its unit stays, or nearly, without the object."""
        return self.kept is not None and self.kept >= STAYS


def whereabouts(
    ledgers: Ledgers,
    objects: Sequence[ArrayLike] | None = None,
    units: NDArray[np.floating] | None = None,
    without: NDArray[np.floating] | None = None,
) -> list[Whereabout]:
    """Gather the maps of many pictures, a concept at a time; `ledgers.select(...)` takes those of a class.

    Parameters
    ----------
    ledgers : Ledgers
        With maps.
    objects : sequence of array_like of bool, shape (h, w), optional
        The object in each picture.
    units, without : ndarray of shape (n, M), optional
        Units of the pictures, and of the same pictures with the object painted over (`blanked`).

    Returns
    -------
    list of Whereabout
        Of every concept that is active somewhere, those most outside the object first.

    Raises
    ------
    InputError
        If there are no maps, or not as many objects as pictures.
    """
    if ledgers.maps is None:
        raise InputError("these ledgers have no maps: make them with maps=True")
    if objects is not None and len(objects) != len(ledgers):
        raise InputError(f"{len(objects)} objects given for {len(ledgers)} pictures: expected as many")
    sums: dict[str, list[tuple[int, NDArray[np.float64]]]] = {}
    for i, maps in enumerate(ledgers.maps):
        for name, grid in zip(maps.concepts, maps.grids):
            sums.setdefault(name, []).append((i, grid))
    made = []
    for name, found in sums.items():
        grid = np.mean([one for _, one in found], axis=0)
        if objects is None:
            made.append(Whereabout(name, len(found), grid))
            continue
        clear = [1.0 - covered(objects[i], (one.shape[0], one.shape[1])) for i, one in found]
        positive = [np.maximum(one, 0.0) for _, one in found]
        shares = [float((one * free).sum() / (one.sum() or 1.0)) for one, free in zip(positive, clear)]
        kept = None
        if units is not None and without is not None:
            rows, j = [i for i, _ in found], ledgers.concepts.index(name)
            before = float(units[rows, j].sum())
            kept = float(without[rows, j].sum()) / before if before > 0 else None
        order = np.argsort(-np.array(shares), kind="stable")
        rows_of = tuple((found[k][0], shares[k]) for k in order)
        area = float(np.mean([free.mean() for free in clear]))
        made.append(Whereabout(name, len(found), grid, float(np.mean(shares)), area, kept, rows_of))
    return sorted(made, key=lambda one: (-(one.kept or 0.0), -(one.outside or 0.0), one.concept))


def in_words(found: Sequence[Whereabout]) -> str:
    """Say in a sentence which concepts are read off the background."""
    away = [one for one in found if one.background]
    if not away:
        return "No concept was found that is read off the background: without the object, every unit falls."
    names = ", ".join(one.concept for one in away)
    shares = [one.outside or 0.0 for one in away]
    least, most = f"{min(shares):.0%}", f"{max(shares):.0%}"
    lies = least if least == most else f"{least} to {most}"
    whose = "its map lies" if len(away) == 1 else "their maps lie"
    stays = "its unit stays" if len(away) == 1 else "their units stay"
    return (
        f"The model looks at the background for {names}: {stays} when the object is painted over, "
        f"and {lies} of {whose} outside it."
    )
