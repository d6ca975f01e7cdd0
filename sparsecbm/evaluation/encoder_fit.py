"""Whether an encoder relates these words to these pictures at all; nobody has to declare what it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.rows import evenly_spaced, unit_rows

MAX_PICTURES, MAX_CONCEPTS, DRAWS = 2000, 100, 64
ENOUGH_TAILS, ENOUGH_NAMES = 2.0, 4.0
"""Standard deviations beyond chance that are taken for a sign; of names more, since chance has no exact level there."""
FEWEST = 40
"""Fewer concepts than these show too little by themselves: without names of classes nothing is said of them."""


@dataclass(frozen=True)
class EncoderFit:
    """Signs that an encoder knows what words have to do with pictures.

    Attributes
    ----------
    tails : float
        How far the mean skewness of the concepts' scores lies above that of meaningless mixtures of the same texts, in
        standard deviations of the mixtures'. What a word names is in few pictures, and lifts their scores alone.
    names : float or None
        How far the accuracy of the class names alone lies above chance, in standard deviations; None without labels or
        class texts.
    n_concepts : int
        How many were looked at.
    alike : int
        How many of them have a text that is one with another's to the encoder (cosine above 0.99).
    """

    tails: float
    names: float | None
    n_concepts: int
    alike: int

    @property
    def related(self) -> bool | None:
        """Whether any sign was found; None where there is too little to look at."""
        if self.tails >= ENOUGH_TAILS or (self.names is not None and self.names >= ENOUGH_NAMES):
            return True
        return None if self.names is None and self.n_concepts < FEWEST else False

    @property
    def note(self) -> str | None:
        """One line about what is missing; None where nothing is."""
        parts = []
        if self.related is False:
            named = "" if self.names is None else ", and the names of the classes find them no better than chance"
            parts.append(
                "nothing shows that this encoder relates these words to these pictures: the words' scores single out "
                f"pictures no more than meaningless mixtures of the words do{named}"
            )
        if self.alike > self.n_concepts / 4:
            parts.append(f"to this encoder {self.alike} of {self.n_concepts} concepts are one and the same text")
        return (
            f"{'; '.join(parts)}: look for an encoder that knows both before believing an explanation"
            if parts
            else None
        )


def encoder_fit(
    X: ArrayLike,
    concepts: ArrayLike,
    labels: ArrayLike | None = None,
    class_texts: ArrayLike | None = None,
    random_state: int = 0,
) -> EncoderFit:
    """Look for signs that the texts of concepts have to do with pictures, in the space of one encoder.

    Parameters
    ----------
    X : array-like of shape (n, d)
        Embeddings of pictures; of more than `MAX_PICTURES`, evenly spread ones.
    concepts : array-like of shape (M, d)
        Embeddings of the concepts' texts; of more than `MAX_CONCEPTS`, evenly spread ones.
    labels : array-like of int, shape (n,), optional
        Rows of `class_texts`.
    class_texts : array-like of shape (K, d), optional
    random_state : int
        Seed of the mixtures.

    Notes
    -----
    A mixture is a Gaussian combination of the centred texts, so it has their covariance and, as a direction, means
    nothing. Its scores are as often skewed to one side as to the other.
    """
    at = evenly_spaced(len(np.asarray(X)), MAX_PICTURES)
    pictures = unit_rows(np.asarray(X)[at].astype(np.float64), "X")
    texts = unit_rows(np.asarray(concepts, dtype=np.float64), "concepts")
    texts = texts[evenly_spaced(len(texts), MAX_CONCEPTS)]
    scores = pictures @ (texts - texts.mean(axis=0)).T
    generator = np.random.default_rng(random_state)
    m = len(texts)
    chance = [_skewness(scores @ generator.standard_normal((m, m))) for _ in range(DRAWS)]
    spread = float(np.std(chance))
    tails = 0.0 if spread == 0 else float((_skewness(scores) - np.mean(chance)) / spread)
    names = None
    if labels is not None and class_texts is not None:
        y, rows = np.asarray(labels)[at], unit_rows(np.asarray(class_texts, dtype=np.float64), "class_texts")
        found = float(np.mean((pictures @ rows.T).argmax(axis=1) == y))
        # A class that takes all pictures is right as often as the class is common: that is the chance to beat.
        share = max(float(np.bincount(y).max()) / len(y), 1 / len(rows))
        names = (found - share) / np.sqrt(share * (1 - share) / len(y)) if share < 1 else 0.0
    alike = int(((texts @ texts.T - 2 * np.eye(m)).max(axis=1, initial=-1) > 0.99).sum())
    return EncoderFit(tails, names, m, alike)


def _skewness(scores: NDArray[np.float64]) -> float:
    """Mean skewness of the columns that vary."""
    centred = scores - scores.mean(axis=0)
    scale = centred.std(axis=0)
    varying = scale > 1e-9
    return float(np.mean((centred[:, varying] / scale[varying]) ** 3)) if varying.any() else 0.0
