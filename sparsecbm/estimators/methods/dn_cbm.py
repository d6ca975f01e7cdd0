"""DN-CBM: concepts discovered by a sparse autoencoder, then named."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import DataWarning
from sparsecbm._base.parameters import Count, NonNegative, Seed
from sparsecbm._base.rows import as_numpy, unit_rows
from sparsecbm.estimators.methods.base import ConceptMethod, Rows, spread
from sparsecbm.estimators.sparse_autoencoder import SparseAutoencoder


class DNCBM(ConceptMethod):
    """Discover-then-Name bottleneck (Rao et al. 2024, arXiv 2407.14499).

    Activations are the codes of a sparse autoencoder of image embeddings (`SparseAutoencoder`); a unit is named by the
    concept whose embedding is nearest, by cosine, to its decoder row; the head is an elastic net on the codes. Names
    come last: they decide nothing.

    Deviations: at most `active` units a picture (top-k), where the paper has ReLU and an l1 penalty; it learns on the
    training pictures unless others are given, where the paper takes CC3M; codes are divided by their mean spread.

    Parameters
    ----------
    concept_embeddings, concept_names
        See `ConceptMethod`; the vocabulary of names.
    concepts_per_class : int or None
        Budget of the head; None: penalty `lam`.
    n_concepts : int
        Units, at most one for every two pictures.
    active : int
        Units that a picture may use.
    lam : float
    steps : int
        Of the autoencoder.
    random_state : int, RandomState or None

    Notes
    -----
    ``fit(X, y, pictures=U)``: embeddings (m, d) to learn the autoencoder on. A name of several units is numbered.
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        concepts_per_class: Count | None = None,
        n_concepts: Count = 512,
        active: Count = 16,
        lam: NonNegative = 1e-4,
        steps: Count = 500,
        random_state: Seed | None = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.concepts_per_class = concepts_per_class
        self.n_concepts = n_concepts
        self.active = active
        self.lam = lam
        self.steps = steps
        self.random_state = random_state

    def _learn(self, rows: Rows, labels: NDArray[np.int64], *, pictures: ArrayLike | None = None) -> None:
        import torch

        seen = rows if pictures is None else self._prepared(np.asarray(as_numpy(pictures)))
        count = max(1, min(self.n_concepts, len(np.unique(seen, axis=0)) // 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DataWarning)  # units that no picture uses get no weight
            made = SparseAutoencoder(
                count, active=min(self.active, count), max_iter=self.steps, device="cpu", verbose=False,
                random_state=self._seed,
            ).fit(seen)  # fmt: skip
        model: Any = made._model

        def units(x: Rows) -> Rows:
            with torch.no_grad():
                return model.units(torch.from_numpy(x / made._scale).float()).double().numpy() * made._scale

        d = rows.shape[1]
        bias = units(np.zeros((1, d)))[0]
        weights = (units(np.eye(d)) - bias).T
        bank = np.eye(len(self.concept_names_)) if self.concept_embeddings_ is None else self.concept_embeddings_
        nearest = (made.components_ @ unit_rows(bank, dtype=np.float32).T).argmax(axis=1)
        self._keep(weights, bias, nearest)
        self.unit_weights_, self.unit_bias_ = self._scaled(weights, bias, rows)
        names, seen_names = [], dict.fromkeys(self.concept_names_, 0)
        for name in self.concept_names_:
            seen_names[name] += 1
            names.append(name if seen_names[name] == 1 else f"{name} ({seen_names[name]})")
        self.concept_names_ = names

    def _scaled(self, weights: Rows, bias: Rows, rows: Rows) -> tuple[Rows, Rows]:
        scale = float(np.sqrt(np.mean(spread(self._activate(rows)) ** 2)))
        return weights / scale, bias / scale

    def _activate(self, rows: Rows) -> Rows:
        units = np.maximum(self._units(rows), 0.0)
        if self.active < units.shape[1]:
            least = np.partition(units, -self.active, axis=1)[:, [-self.active]]
            units[units < least] = 0.0
        return units
