"""Names for directions, from a vocabulary: what the word scores on the unit's pictures, and whether that is chance.

Images and texts lie in two cones of the embedding space; each side is centred by its own mean, which takes the gap out.
A word v then has two claims on a unit j: by *direction*, the cosine of the unit's atom with the centred word; by
*activations*, how far the word's score on the unit's active pictures (weighted by activation) lies above its score on
all, in standard deviations of that score. The second needs only a mean and a covariance, so a million words cost one
matrix product. Chance: as many meaningless directions with the words' mean and covariance, drawn several times; the
best of each draw is what the best word has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.directions import matched_directions
from sparsecbm._base.errors import InputError
from sparsecbm._base.rows import unit_rows

_BLOCK = 16384
_DRAWS = 20
_MOST = 4096
"""Meaningless directions of a draw; the best of a larger vocabulary is extrapolated."""
_EULER = 0.5772156649


@dataclass(frozen=True, eq=False)
class Naming:
    """What a vocabulary says about M units.

    Attributes
    ----------
    names : list of str or None, length M
        None: no word is clearly better than chance.
    words : list of str, length M
        The best word of each, whether or not it is a name.
    confidence : ndarray of float64, shape (M,)
        In [0, 1]: the chance that the best of as many meaningless words would score less.
    by_direction : ndarray of float64, shape (M,)
        Cosine of the atom with the best word, both centred.
    by_activation : ndarray of float64, shape (M,)
        Standard deviations by which the word scores higher on the unit's pictures.
    index : ndarray of int64, shape (M,)
        Of the word in the vocabulary.
    """

    names: list[str | None]
    words: list[str]
    confidence: NDArray[np.float64]
    by_direction: NDArray[np.float64]
    by_activation: NDArray[np.float64]
    index: NDArray[np.int64]


def name_units(
    atoms: NDArray[Any],
    codes: NDArray[Any],
    X: NDArray[Any],
    words: Sequence[str],
    word_embeddings: NDArray[Any],
    *,
    confidence: float = 0.999,
    seed: int = 0,
) -> Naming:
    """Name units by direction and by activations.

    Parameters
    ----------
    atoms : ndarray of shape (M, d)
        Unit rows.
    codes : ndarray of shape (n, M)
        Activations on pictures, at least 0.
    X : ndarray of shape (n, d)
        The pictures' embeddings; may be memory-mapped.
    words, word_embeddings : sequence of V str, ndarray of shape (V, d)
        May be memory-mapped, and float16.
    confidence : float
        Least confidence of a name: tens to hundreds of units ask at once, and words are less regular than chance.
    seed : int
        Of the meaningless words.

    Raises
    ------
    InputError
        If the vocabulary is empty, its embeddings do not fit, or it comes from another encoder (dimensions differ).
    """
    if len(words) == 0:
        raise InputError("the vocabulary is empty: expected a word or phrase a line")
    if len(word_embeddings) != len(words) or word_embeddings.shape[1] != atoms.shape[1]:
        raise InputError(
            f"vocabulary of {len(words)} words with embeddings of shape {word_embeddings.shape}; the concepts have "
            f"{atoms.shape[1]} dimensions: embed the words with the encoder of the pictures"
        )
    frame = _Frame(atoms, codes, X, word_embeddings)
    best = np.full(len(atoms), -np.inf)
    index = np.zeros(len(atoms), dtype=np.int64)
    for start in range(0, len(words), _BLOCK):
        scores = frame.scores(np.asarray(word_embeddings[start : start + _BLOCK], dtype=np.float32))
        top = scores.argmax(axis=1)
        value = scores[np.arange(len(atoms)), top]
        index = np.where(value > best, start + top, index)
        best = np.maximum(best, value)
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.choice(len(words), min(len(words), _MOST), replace=False))
    held = np.asarray(word_embeddings[sample], dtype=np.float32)
    chance = np.stack([frame.scores(matched_directions(held, rng)).max(axis=1) for _ in range(_DRAWS)], axis=1)
    # The best of many is Gumbel; moments give its place and width, and more words move the place by log(V / drawn).
    width = np.maximum(chance.std(axis=1, ddof=1) * np.sqrt(6) / np.pi, 1e-9)
    place = chance.mean(axis=1) - _EULER * width + width * np.log(len(words) / len(sample))
    sure = np.exp(-np.exp(-np.clip((best - place) / width, -50, 50)))
    found = np.asarray(word_embeddings[index], dtype=np.float32)
    named: list[str | None] = [
        words[i] if c >= confidence and a else None for i, c, a in zip(index.tolist(), sure, frame.used)
    ]
    direction, activation = frame.claims(found)
    every = np.arange(len(atoms))
    return Naming(
        named,
        [words[i] for i in index.tolist()],
        np.where(frame.used, sure, 0.0),
        direction[every, every],
        activation[every, every],
        index,
    )


class _Frame:
    """Means and covariance in which words are scored."""

    def __init__(
        self, atoms: NDArray[Any], codes: NDArray[Any], X: NDArray[Any], word_embeddings: NDArray[Any]
    ) -> None:
        d = X.shape[1]
        total, square, weighted = np.zeros(d), np.zeros((d, d)), np.zeros((codes.shape[1], d))
        for start in range(0, len(X), _BLOCK):
            block = np.asarray(X[start : start + _BLOCK], dtype=np.float64)
            total += block.sum(axis=0)
            square += block.T @ block
            weighted += np.asarray(codes[start : start + _BLOCK], dtype=np.float64).T @ block
        mean = total / len(X)
        weight = codes.sum(axis=0, dtype=np.float64)
        self.used = weight > 0
        self.shift = np.where(self.used[:, None], weighted / np.maximum(weight, 1e-12)[:, None] - mean, 0.0)
        self.covariance = square / len(X) - np.outer(mean, mean)
        self.atoms = np.asarray(atoms, dtype=np.float64)
        self.word_mean = _mean(word_embeddings)

    def claims(self, words: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """By direction and by activations, each (M, V)."""
        centred = unit_rows(words.astype(np.float64) - self.word_mean, floor=1e-9)
        deviation = np.sqrt(np.maximum(np.einsum("vd,vd->v", centred @ self.covariance, centred), 1e-18))
        return self.atoms @ centred.T, (self.shift @ centred.T) / deviation

    def scores(self, words: NDArray[Any]) -> NDArray[np.float64]:
        """Both claims as one number, (M, V): the activations' where the direction agrees."""
        direction, activation = self.claims(words)
        return activation * np.clip(direction, 0.0, None)


def _mean(rows: NDArray[Any]) -> NDArray[np.float64]:
    blocks = (np.asarray(rows[i : i + _BLOCK], dtype=np.float64) for i in range(0, len(rows), _BLOCK))
    return sum(block.sum(axis=0) for block in blocks) / len(rows)  # type: ignore[return-value]  # at least one block
