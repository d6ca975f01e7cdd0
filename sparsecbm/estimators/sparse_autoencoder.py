"""SparseAutoencoder: concepts found in embeddings, with scikit-learn's conventions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from sparsecbm._base.errors import DataWarning, InputError, unknown
from sparsecbm._base.parameters import Count, Positive, Seed, Text, Verbosity, checked_parameters
from sparsecbm._base.rows import as_numpy, check_scale, unit_rows
from sparsecbm.dictionary import (
    DICTIONARIES,
    DICTIONARY_BASELINES,
    Dictionary,
    DictionaryOptions,
    DictionaryTrainer,
    begin,
)
from sparsecbm.dictionary.restarts import recurring, together
from sparsecbm.estimators.hub import PublishedEstimator
from sparsecbm.estimators.inputs import SAFE_SCALE, check_finite, encoder_note
from sparsecbm.estimators.matrix_search.pursuit import Pursuit
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays

_ROWS = 2048
_LOOK = 65536
"""Rows that baselines are fitted on, and that say which units are dead."""
_DEAD = 0.1


def left_over(X: ArrayLike, concept_embeddings: ArrayLike, active: int) -> NDArray[np.float32]:
    """What `active` given concepts a row do not rebuild of rows about their mean, (n, d): data for the concepts beside.

    Parameters
    ----------
    X : array-like of shape (n, d)
    concept_embeddings : array-like of shape (M, d)
        Texts, seen from their mean where there are several.
    active : int
    """
    texts = unit_rows(as_numpy(concept_embeddings), "concept_embeddings", dtype=np.float64)
    atoms = unit_rows(texts - texts.mean(axis=0), floor=1e-9) if len(texts) > 1 else texts
    rows, pursuit = as_numpy(X), Pursuit(atoms)
    mean = np.mean(rows, axis=0, dtype=np.float64)
    left = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), _ROWS):
        block = np.asarray(rows[start : start + _ROWS], dtype=np.float64) - mean
        left[start : start + _ROWS] = block - pursuit.codes(block, active, nonnegative=True).times(atoms)
    return left


class SparseAutoencoder(PublishedEstimator, TransformerMixin, BaseEstimator):
    """Directions such that a few of them rebuild each embedding: concepts that nobody had to name beforehand.

    ``row ~ centre_ + code @ components_`` with rows of `components_` of length one, and codes that are never negative
    and exactly zero for all but a few units. Rows are taken as they are; memory-mapped and float16 ones become float32
    a batch at a time.

    Parameters
    ----------
    n_concepts : int
        Units M; at most as many as there are different rows.
    kind : str
        "top_k" and "matryoshka" (whose first units are the general ones): at most `active` units a row; "batch_top_k"
        and "concrete" (gates that are learned): so many on average. Baselines by scikit-learn, with codes by
        non-negative orthogonal pursuit: "dictionary_learning", "nmf", "k_means", "pca", "random".
    active : int
        Units that a row may use, 1 to M.
    max_iter, batch_size : int
        Optimizer steps; rows a step.
    learning_rate : float
        Of Adam, with cosine decay.
    restarts : int
        Trainings from different seeds, of `max_iter` steps each; not for the baselines. Of several, the `n_concepts`
        units are kept that recur most in the others, and trained together for a quarter as many steps, at least 200.
    device : str
        "auto", "cpu", "cuda" or "mps".
    random_state : int, RandomState or None
    verbose : bool or None
        Progress bar; None shows it on a terminal when it takes more than a second.

    Attributes
    ----------
    components_ : ndarray of float32, shape (M, d)
        Unit rows.
    centre_ : ndarray of float32, shape (d,)
    dead_ : ndarray of bool, shape (M,)
        Units that no row of the data (of a part of it, where it is large) uses.
    history_ : list of dict
        ``step``, ``loss``, ``idle``; empty for baselines.
    n_iter_ : int
    n_features_in_ : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> concepts = np.linalg.qr(rng.normal(size=(16, 16)))[0][:8]
    >>> X = (rng.random((500, 8)) < 0.2) @ concepts
    >>> model = SparseAutoencoder(12, active=4, max_iter=300, batch_size=100, random_state=0).fit(X)
    >>> codes = model.transform(X)
    >>> codes.shape, int((codes > 0).sum(axis=1).max()) <= 4, model.score(X) > 0.8
    ((500, 12), True, True)
    """

    _RESTORED = ()

    def __init__(
        self,
        n_concepts: Count = 512,
        *,
        kind: Text = "top_k",
        active: Count = 16,
        max_iter: Count = 2000,
        batch_size: Count = 512,
        learning_rate: Positive = 3e-3,
        restarts: Count = 1,
        device: Text = "auto",
        random_state: Seed | None = None,
        verbose: Verbosity = None,
    ) -> None:
        self.n_concepts = n_concepts
        self.kind = kind
        self.active = active
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.restarts = restarts
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None, *, checkpoint_dir: str | Path | None = None) -> SparseAutoencoder:
        """Find the concepts; no labels are used.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Embeddings, or what `embed_images` returned.
        y : ignored
        checkpoint_dir : path, optional
            Keep checkpoints there; the same call, killed at any point, goes on from the last to the same bits.

        Raises
        ------
        InputError
            If a parameter or a shape is not as expected, there are fewer different rows than concepts, or training
            diverges.
        ValueError
            If a row holds NaN or infinity.
        """
        given = self._given()
        made_by = encoder_note(X)
        rows = self._validated(X, ensure_min_samples=2)
        seed = int(check_random_state(given.random_state).randint(np.iinfo(np.int32).max))
        atoms, centre, scale = begin(rows, given.n_concepts, seed)
        self.history_: list[dict[str, float]] = []
        if given.kind in DICTIONARY_BASELINES:
            index = np.random.default_rng(seed).permutation(len(rows))[:_LOOK]
            some = np.asarray(rows[np.sort(index)], dtype=np.float64)
            middle, found = DICTIONARY_BASELINES.find(given.kind)(some / scale, given.n_concepts, given.active, seed)
            self._set({"atoms": unit_rows(found, floor=1e-12), "centre": middle}, scale)
        else:
            names = ("max_iter", "batch_size", "learning_rate")
            options = DictionaryOptions(**{name: getattr(given, name) for name in names})
            head = torch.from_numpy(np.asarray(rows[:_ROWS], dtype=np.float32) / np.float32(scale))
            folders = [checkpoint_dir] * given.restarts
            if checkpoint_dir is not None and given.restarts > 1:
                folders = [Path(checkpoint_dir) / f"restart-{turn}" for turn in range(given.restarts)]
            models: list[Dictionary] = []
            for turn, folder in enumerate(folders):
                first = begin(rows, given.n_concepts, seed + turn)[0] if turn else atoms
                model: Dictionary = DICTIONARIES.find(given.kind)(first, centre, given.active)
                model.prepare(head)
                self._train(model, options, rows, scale, seed + turn, folder)
                models.append(model)
            if given.restarts > 1:
                model = recurring(models, rows, scale)
                self._train(model, together(options), rows, scale, seed + given.restarts, checkpoint_dir)
            self._set({name: value.detach().cpu().numpy() for name, value in model.state_dict().items()}, scale)
        self.n_iter_ = int(self.history_[-1]["step"]) if self.history_ else 1
        self.dead_ = ~np.any([(code > 0).any(0) for code in self._blocks(rows[:_LOOK])], axis=0)
        if self.dead_.mean() > _DEAD:
            warnings.warn(
                f"{int(self.dead_.sum())} of {given.n_concepts} concepts are in no picture: ask for fewer concepts, a "
                f"larger active ({given.active}) or a longer training (max_iter={given.max_iter})",
                DataWarning,
                stacklevel=2,
            )
        self.metadata_: dict[str, Any] = {} if made_by is None else {"encoder": made_by}
        return self

    def _train(
        self, model: Dictionary, options: DictionaryOptions, rows: Any, scale: float, seed: int, folder: Any
    ) -> None:
        """Train in place, and write the history on."""
        trainer = DictionaryTrainer(
            model,
            options,
            scale,
            seed=seed,
            device=self.device,
            checkpoint_dir=folder,
            progress=self.verbose,
        )
        before = self.history_[-1]["step"] if self.history_ else 0
        self.history_ += [{**entry, "step": entry["step"] + before} for entry in trainer.fit(rows)]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _given(self) -> Any:
        given = checked_parameters(self)
        if given.kind not in DICTIONARIES and given.kind not in DICTIONARY_BASELINES:
            raise unknown("kind", given.kind, [*DICTIONARIES, *DICTIONARY_BASELINES])
        if given.active > given.n_concepts:
            raise InputError(f"active={given.active} of n_concepts={given.n_concepts}: expected at most all of them")
        return given

    def _validated(self, X: ArrayLike, **options: Any) -> NDArray[Any]:
        X = as_numpy(X)
        narrow = getattr(X, "dtype", None) == np.float16
        kinds = [np.float32, np.float64, np.float16]
        rows = validate_data(self, X, dtype=kinds, ensure_all_finite=not narrow, **options)
        if narrow:
            check_finite(rows, "X")
        check_scale(rows, "X", *SAFE_SCALE)
        return rows

    def _set(self, state: Arrays, scale: float) -> None:
        """Take over what was found; `state` is that of a `Dictionary`, or a baseline's atoms and centre."""
        self._state, self._scale = state, float(scale)
        self.components_ = np.ascontiguousarray(state["atoms"], dtype=np.float32)
        self.centre_ = np.asarray(state["centre"] * scale, dtype=np.float32)
        self._model: Dictionary | None = None
        if self.kind in DICTIONARIES:
            held = {name: torch.from_numpy(np.array(value)) for name, value in state.items()}
            self._model = DICTIONARIES.find(self.kind)(held["atoms"], held["centre"], int(self.active))
            self._model.load_state_dict(held)
        else:
            self._pursuit = Pursuit(state["atoms"])

    @torch.no_grad()
    def _blocks(self, rows: NDArray[Any]) -> Any:
        """Codes of some rows at a time."""
        for start in range(0, len(rows), _ROWS):
            block = np.asarray(rows[start : start + _ROWS], dtype=np.float64) / self._scale
            if self._model is None:
                codes = self._pursuit.codes(block - self._state["centre"], int(self.active), nonnegative=True).dense()
            else:
                codes = self._model.dense(torch.from_numpy(block).float()).numpy()
            yield (codes * self._scale).astype(np.float32)

    def transform(self, X: ArrayLike) -> NDArray[np.float32]:
        """Codes, shape (n, M): at least 0, and exactly 0 where a unit is not active."""
        check_is_fitted(self)
        return np.concatenate(list(self._blocks(self._validated(X, reset=False))))

    def inverse_transform(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Embeddings (n, d) that codes (n, M) stand for."""
        check_is_fitted(self)
        codes = np.asarray(codes, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != len(self.components_):
            raise InputError(f"codes have shape {codes.shape}: expected (n, {len(self.components_)})")
        return codes @ self.components_ + self.centre_

    def score(self, X: ArrayLike, y: Any = None) -> float:
        """Share of the variance of rows (n, d) about their mean that their codes rebuild."""
        check_is_fitted(self)
        rows = self._validated(X, reset=False)
        lost, start = 0.0, 0
        for codes in self._blocks(rows):
            block = np.asarray(rows[start : start + len(codes)], dtype=np.float64)
            lost += float(np.square(block - self.inverse_transform(codes)).sum())
            start += len(codes)
        mean = np.mean(rows, axis=0, dtype=np.float64)
        blocks = (np.asarray(rows[i : i + _ROWS], dtype=np.float64) for i in range(0, len(rows), _ROWS))
        whole = sum(float(np.square(block - mean).sum()) for block in blocks)
        return 1.0 - lost / whole if whole > 0 else float(lost == 0)

    def _arrays(self) -> Arrays:
        state = {f"dictionary.{name}": value for name, value in self._state.items()}
        return {**state, "scale": np.array([self._scale]), "dead": self.dead_.astype(np.uint8)}

    def _extra(self) -> dict[str, Any]:
        return {"history": self.history_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        given, d = self._given(), self.n_features_in_
        kind = np.float32 if given.kind in DICTIONARIES else np.float64
        shapes = {"dictionary.atoms": (kind, (given.n_concepts, d)), "dictionary.centre": (kind, (d,))}
        check_arrays(arrays, {**shapes, "scale": (np.float64, (1,)), "dead": (np.uint8, (given.n_concepts,))})
        state = {name.removeprefix("dictionary."): arrays[name] for name in arrays if name.startswith("dictionary.")}
        self._set(state, float(arrays["scale"][0]))
        self.dead_, self.history_ = arrays["dead"].astype(bool), list(record.history)
