"""Pictures for the VAEs: scikit-learn's digits, MNIST and Omniglot from a folder, or arrays of one's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparsecbm._base.errors import InputError, StoredFileError, unknown
from sparsecbm._base.untrusted import open_npz
from sparsecbm.samplers import noise

__all__ = ["BINARISATIONS", "DATA_SETS", "Pictures", "binarise", "load_pictures", "split_pictures"]

BINARISATIONS = ("static", "dynamic", "threshold", "none")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures in three splits, flattened.

    Attributes
    ----------
    train, validation, test : ndarray, shape (n, height * width)
        uint8: 0 or 1 where they are binary, else intensities from 0 to 255; or float32 intensities from 0 to 1.
    labels : dict
        int64 labels (n,) by split, where there are any.
    shape : tuple of int
        (height, width).
    name, note : str
        What they are, and what to say beside a number measured on them.
    dynamic : bool
        Whether `train` holds intensities, to be binarised afresh at every step.
    """

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    shape: tuple[int, int]
    name: str
    labels: dict[str, np.ndarray]
    note: str = ""
    dynamic: bool = False

    @property
    def pixel_means(self) -> torch.Tensor:
        """Mean of each training pixel, in [0, 1], shape (height * width,)."""
        return torch.from_numpy(self.train.mean(0) / (255.0 if self.dynamic else 1.0)).float()


def _digits() -> Pictures:
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.rint(found.images.reshape(len(found.images), -1) * (255 / 16)).astype(np.uint8)
    return split_pictures(images, found.target, (8, 8), "digits", validation=200, test=360)


def _read_npz(folder: str | Path | None, names: tuple[str, ...], what: str) -> dict[str, np.ndarray]:
    if folder is None:
        raise InputError(f"data {what!r} is read from a folder: give one with data.folder (or --data-dir)")
    for name in names:
        path = Path(folder, name)
        if path.is_file():
            with open_npz(path) as stored:
                return {key: stored[key] for key in ("x_train", "y_train", "x_test", "y_test") if key in stored}
    raise StoredFileError(f"folder {str(folder)!r} holds no {what}: expected {' or '.join(names)}")


def _from_npz(folder: str | Path | None, names: tuple[str, ...], what: str, validation: int | None) -> Pictures:
    """Read a file of two splits; hold `validation` pictures of the first out, a tenth where it is None.

    Both are put in a random order, the same at every call: some of these files are sorted by class, so that the last
    pictures, or the first, are no sample of them.
    """
    held = _read_npz(folder, names, what)
    if not {"x_train", "x_test"} <= set(held):
        raise StoredFileError(f"the {what} file must hold x_train and x_test, got {sorted(held)}")
    order = {part: np.random.default_rng(0).permutation(len(held[f"x_{part}"])) for part in ("train", "test")}
    train, test = (held[f"x_{part}"].reshape(len(rows), -1)[rows] for part, rows in order.items())
    first = len(train) - (max(1, len(train) // 10) if validation is None else validation)
    labels = {}
    if {"y_train", "y_test"} <= set(held):
        if (len(held["y_train"]), len(held["y_test"])) != (len(train), len(test)):
            raise StoredFileError(f"the {what} file must hold a label a picture, it does not")
        y, y_test = (held[f"y_{part}"].astype(np.int64)[rows] for part, rows in order.items())
        labels = {"train": y[:first], "validation": y[first:], "test": y_test}
    shape = held["x_train"].shape[1:]
    return Pictures(train[:first], train[first:], test, (shape[0], shape[1]), what, labels)


def _mnist(folder: str | Path | None) -> Pictures:
    found = _from_npz(folder, ("mnist.npz", "mnist/mnist.npz"), "mnist", 10_000)
    return replace(found, note="10,000 of train, at random, for validation")


def _chardata(path: Path) -> Pictures:
    """The usual 24,345 / 8,070 pictures of 28 x 28 (Burda, Grosse & Salakhutdinov 2016), a column of intensities each.

    A picture lies column by column. The tenth held out for validation is drawn at random, the same at every call.
    """
    from scipy.io import loadmat

    try:
        held = loadmat(path, variable_names=("data", "testdata"), appendmat=False)
        parts = [np.asarray(held[name], dtype=np.float64).T.reshape(-1, 28, 28) for name in ("data", "testdata")]
        if not all(len(part) and part.min() >= 0 and part.max() <= 1 for part in parts):
            raise ValueError("intensities lie in [0, 1]")
    except Exception as error:  # SciPy's reader raises whatever a damaged file makes of it
        reason = " ".join(str(error).split())[:200]
        raise StoredFileError(f"{str(path)!r} is not Omniglot's chardata.mat ({reason})") from error
    train, test = (np.rint(255 * part.transpose(0, 2, 1)).astype(np.uint8).reshape(len(part), -1) for part in parts)
    train = train[np.random.default_rng(0).permutation(len(train))]
    first = len(train) - max(1, len(train) // 10)
    note = f"chardata.mat, {len(train):,} / {len(test):,}; {len(train) - first:,} of train, at random, for validation"
    return Pictures(train[:first], train[first:], test, (28, 28), "omniglot", {}, note)


def _omniglot(folder: str | Path | None) -> Pictures:
    if folder is not None:
        for name in ("chardata.mat", "omniglot/chardata.mat"):
            if Path(folder, name).is_file():
                return _chardata(Path(folder, name))
    names = ("omniglot.npz", "omniglot/omniglot.npz", "omniglot_small/omniglot_small.npz", "omniglot_small.npz")
    found = _from_npz(folder, names, "omniglot", None)
    total = len(found.train) + len(found.validation)
    return replace(found, note=f"{total} / {len(found.test)} pictures; the usual split has 24,345 / 8,070")


DATA_SETS: dict[str, Callable[[str | Path | None], Pictures]] = {
    "digits": lambda folder: _digits(),
    "mnist": _mnist,
    "omniglot": _omniglot,
}
"""Data sets by the name that configurations use; each takes the folder that it may lie in."""


def split_pictures(
    images: np.ndarray,
    labels: np.ndarray | None,
    shape: tuple[int, int],
    name: str,
    *,
    validation: int,
    test: int,
    seed: int = 0,
) -> Pictures:
    """Split intensities (n, height * width), uint8, at random into the three splits.

    Raises
    ------
    InputError
        If too few are left for training.
    """
    if len(images) <= validation + test:
        raise InputError(f"{name}: {len(images)} pictures are too few for {validation} + {test} held out")
    rows = np.random.default_rng(seed).permutation(len(images))
    parts = dict(zip(SPLITS, (rows[validation + test :], rows[:validation], rows[validation : validation + test])))
    held = {} if labels is None else {split: np.asarray(labels, np.int64)[part] for split, part in parts.items()}
    train, held_out, tested = (images[part] for part in parts.values())
    return Pictures(train, held_out, tested, shape, name, held)


def binarise(intensities: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """Return 1 where a uniform draw lies under the intensity (0 to 255), float32."""
    return (uniforms * 255.0 < intensities).float()


def load_pictures(
    name: str | Pictures = "digits",
    folder: str | Path | None = None,
    *,
    binarisation: str = "static",
    seed: int = 0,
    max_train: int | None = None,
    max_validation: int | None = None,
    max_test: int | None = None,
) -> Pictures:
    """Load pictures and make them binary, or leave them grey.

    Parameters
    ----------
    name : str or Pictures
        ``digits`` (in scikit-learn), ``mnist`` or ``omniglot`` (from `folder`), or intensities of one's own.
    folder : path or None
        Where ``mnist/mnist.npz``, ``omniglot/chardata.mat`` or ``omniglot_small/omniglot_small.npz`` lie.
    binarisation : {"static", "dynamic", "threshold", "none"}
        Intensities as probabilities, drawn once; the same, but training pictures afresh at every step; 1 above half; or
        none, intensities from 0 to 1 for a Gaussian likelihood.
    seed : int
        Of the binarisation.
    max_train, max_validation, max_test : int or None
        At most so many pictures.

    Raises
    ------
    InputError
        If a name is unknown.
    StoredFileError
        If the data are not in the folder.
    """
    if binarisation not in BINARISATIONS:
        raise unknown("binarisation", binarisation, BINARISATIONS)
    if isinstance(name, Pictures):
        found = name
    else:
        if name not in DATA_SETS:
            raise unknown("data", name, DATA_SETS)
        found = DATA_SETS[name](folder)
    limits = {"train": max_train, "validation": max_validation, "test": max_test}
    made: dict[str, Any] = {}
    for number, split in enumerate(SPLITS):
        images = getattr(found, split)[: limits[split]]
        if binarisation == "threshold":
            made[split] = (images > 127).astype(np.uint8)
        elif binarisation == "none":
            made[split] = images.astype(np.float32) / np.float32(255)
        elif binarisation == "dynamic" and split == "train":
            made[split] = images
        else:
            generator = torch.Generator().manual_seed(3 * seed + number)
            uniforms = noise.uniform(tuple(images.shape), generator=generator)
            made[split] = binarise(torch.from_numpy(images), uniforms).to(torch.uint8).numpy()
    labels = {split: y[: limits[split]] for split, y in found.labels.items()}
    return replace(found, **made, labels=labels, dynamic=binarisation == "dynamic")
