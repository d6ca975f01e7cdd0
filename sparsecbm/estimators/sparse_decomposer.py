"""SparseDecomposer: an embedding as a short non-negative sum of named concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array, check_is_fitted, validate_data

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.parameters import Count, Flag, OpenShare, Verbosity, checked_parameters
from sparsecbm._base.rows import as_numpy, evenly_spaced, row_lengths, unit_rows
from sparsecbm.estimators.hub import PublishedEstimator
from sparsecbm.estimators.inputs import check_concepts, check_names
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sparsecbm.estimators.large_lasso import LargeLasso
    from sparsecbm.estimators.nonnegative_lasso import NonnegativeLasso
    from sparsecbm.explain import Ledger, Ledgers

_EPSILON = 1e-12
_SEEN = 2048
"""Pictures of `fit` that say in which directions to look for first candidates among many phrases."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What `SparseDecomposer.decompose` found, with its certificate.

    Attributes
    ----------
    codes : csr_matrix of float64, shape (n, M)
        Positive where a concept is used.
    alpha : ndarray of float64, shape (n,)
        Penalty of each row.
    cosine : ndarray of float64, shape (n,)
        Cosine of each embedding with its reconstruction.
    objective, gap : ndarray of float64, shape (n,)
        Value of the lasso's objective, and how far above the minimum it can be at most (duality gap).
    """

    codes: csr_matrix
    alpha: NDArray[np.float64]
    cosine: NDArray[np.float64]
    objective: NDArray[np.float64]
    gap: NDArray[np.float64]

    @property
    def counts(self) -> NDArray[np.int64]:
        """Concepts of each row, shape (n,)."""
        return np.diff(self.codes.indptr).astype(np.int64)


class SparseDecomposer(PublishedEstimator, TransformerMixin, BaseEstimator):
    """Write embeddings as sparse non-negative sums of concept embeddings, to certified optimality.

    After SpLiCE (Bhalla et al. 2024, arXiv 2402.10376): images and texts lie in two cones of the embedding space, so
    each side is centred by its own mean m and rescaled to length one, and for every image x

        minimise over w >= 0:   1/2 ||x - C'w||^2 + alpha sum_j w_j

    which is scikit-learn's ``Lasso(alpha=alpha / d, positive=True, fit_intercept=False)``; SpLiCE's ``l1_penalty`` is
    ``2 * alpha``. The embedding is reconstructed as the unit vector along ``unit(C'w) + m_image``.

    Parameters
    ----------
    concept_embeddings : array-like of shape (M, d)
        Text embeddings of the vocabulary. One of more than 50,000 phrases stays where it is, memory-mapped and in
        float16 if it is so: candidates are found in blocks, and the certificate is for the whole of it (see
        `sparsecbm.estimators.large_lasso`). Ask `decompose` then, whose codes are sparse.
    concept_names : sequence of str or None
        M names; ``"concept 0"``, ... if None.
    alpha : float
        Penalty in (0, 1): with unit rows, a concept can enter only where its correlation exceeds it.
    max_concepts : int or None
        At most so many concepts an image: each gets the smallest penalty (to 2%) whose solution keeps to it, and
        `alpha` is not used.
    suppress : sequence of str
        Concepts that may not be used, such as a known spurious one; their codes are zero.
    center : bool
        Centre images and texts by their own means. Without it the shared direction of all images (the modality gap) has
        to be spelt in concepts.
    image_mean : array-like of shape (d,) or None
        Mean image embedding, such as that of a large collection of photographs; None takes that of the `X` of `fit`.
    tolerance : float
        Largest duality gap, relative to half the squared length of an embedding.
    verbose : bool or None
        Progress bar; None shows it on a terminal when it takes more than a second.

    Attributes
    ----------
    concept_names_ : list of str
    image_mean_, text_mean_ : ndarray of float64, shape (d,)
        Zeros without centring.
    dictionary_ : ndarray of float64, shape (M, d), or None
        Centred unit rows; None for a vocabulary that stays on disk.
    allowed_ : ndarray of bool, shape (M,)
        False for suppressed concepts.
    n_features_in_ : int

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> concepts = rng.normal(size=(30, 16))
    >>> pictures = rng.normal(size=(200, 16))
    >>> model = SparseDecomposer(concepts, max_concepts=4).fit(pictures)
    >>> codes = model.transform(pictures[:5])
    >>> codes.shape, int((codes != 0).sum(axis=1).max()), bool((codes >= 0).all())
    ((5, 30), 4, True)
    >>> bool(model.decompose(pictures[:5]).gap.max() < 1e-8)
    True
    """

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        alpha: OpenShare = 0.125,
        max_concepts: Count | None = None,
        suppress: Sequence[str] = (),
        center: Flag = True,
        image_mean: ArrayLike | None = None,
        tolerance: OpenShare = 1e-9,
        verbose: Verbosity = None,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.alpha = alpha
        self.max_concepts = max_concepts
        self.suppress = suppress
        self.center = center
        self.image_mean = image_mean
        self.tolerance = tolerance
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: Any = None) -> SparseDecomposer:
        """Take the mean image from a reference set; no labels are used.

        Parameters
        ----------
        X : array-like of shape (n, d)
            Image embeddings. With `image_mean` given, or without centring, only their dimension matters.
        y : ignored

        Raises
        ------
        InputError
            If a parameter, a shape or a value is not as expected; one line says which.
        """
        from sparsecbm.estimators.large_lasso import LARGE, LargeLasso, Vocabulary
        from sparsecbm.estimators.nonnegative_lasso import NonnegativeLasso

        checked_parameters(self)
        if self.concept_embeddings is None:
            raise InputError("concept_embeddings=None: expected the text embeddings of a vocabulary, shape (M, d)")
        X = unit_rows(validate_data(self, as_numpy(X), dtype=[np.float64, np.float32]), "X", dtype=np.float64)
        d, given = self.n_features_in_, as_numpy(self.concept_embeddings)
        large = np.ndim(given) == 2 and len(given) > LARGE and np.shape(given)[1] == d
        rows = given[:1] if large else given
        concepts, self.concept_names_ = check_concepts(rows, None if large else self.concept_names, d)
        if large:
            self.concept_names_ = check_names(self.concept_names, len(given))
        assert concepts is not None
        concepts = unit_rows(concepts, dtype=np.float64)
        if self.center:
            self.image_mean_ = (
                X.mean(axis=0, dtype=np.float64) if self.image_mean is None else _vector(self.image_mean, d)
            )
            self.text_mean_ = concepts.mean(axis=0)
        else:
            self.image_mean_, self.text_mean_ = np.zeros(d), np.zeros(d)
        self._vocabulary = None
        self.dictionary_: Any = None
        if large:
            seen = unit_rows(X[evenly_spaced(len(X), _SEEN)] - self.image_mean_, floor=_EPSILON)
            self._vocabulary = Vocabulary(given, bool(self.center), seen)
            self.text_mean_ = self._vocabulary.mean
        else:
            self.dictionary_ = unit_rows(concepts - self.text_mean_, floor=_EPSILON)
        self.allowed_ = np.ones(len(given), dtype=bool)
        for name in [self.suppress] if isinstance(self.suppress, str) else self.suppress:
            if name not in self.concept_names_:
                raise unknown("concept to suppress", str(name), self.concept_names_)
            self.allowed_[self.concept_names_.index(name)] = False
        if not self.allowed_.any():
            raise InputError(f"suppress names all {len(self.allowed_)} concepts: leave at least one")
        self._solver: LargeLasso | NonnegativeLasso
        if self._vocabulary is not None:
            self._solver = LargeLasso(self._vocabulary, np.flatnonzero(~self.allowed_), float(self.tolerance))
        else:
            self._solver = NonnegativeLasso(self._rows_of(self.allowed_), tolerance=float(self.tolerance))
        return self

    _RESTORED = ("concept_embeddings", "concept_names", "image_mean", "text_mean")

    def _arrays(self) -> Arrays:
        concepts, _ = check_concepts(self.concept_embeddings, self.concept_names_, self.n_features_in_)
        assert concepts is not None
        return {"concept_embeddings": concepts, "image_mean": self.image_mean_, "text_mean": self.text_mean_}

    def _extra(self) -> dict[str, Any]:
        return {"concept_names": self.concept_names_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        m, d = len(record.concept_names), record.n_features_in
        means = dict.fromkeys(("image_mean", "text_mean"), (np.float64, (d,)))
        check_arrays(arrays, {"concept_embeddings": (np.float32, (m, d)), **means})
        self.concept_embeddings, self.concept_names = arrays["concept_embeddings"], record.concept_names
        # What it was fitted with stands for the reference pictures, so that it is fitted again without them.
        if self.center:
            self.image_mean, self.text_mean = arrays["image_mean"], arrays["text_mean"]
        self.fit(arrays["concept_embeddings"])

    def decompose(self, X: ArrayLike) -> Decomposition:
        """Return codes, reconstruction cosines and certificates.

        Parameters
        ----------
        X : array-like of shape (n, d)
        """
        from scipy.sparse import csr_matrix

        check_is_fitted(self)
        X = self._rows(X)
        centred = unit_rows(X - self.image_mean_, floor=_EPSILON)
        if self.max_concepts is None:
            solved = self._solver.solve(centred, float(self.alpha), progress=self.verbose)
        else:
            solved = self._solver.at_most(centred, int(self.max_concepts), progress=self.verbose)
        used = solved.indices >= 0
        columns = solved.indices[used]
        if self._vocabulary is None:
            columns = np.flatnonzero(self.allowed_)[columns]
        pointers = np.concatenate([[0], used.sum(axis=1).cumsum()])
        codes = csr_matrix((solved.values[used], columns, pointers), shape=(len(X), len(self.concept_names_)))
        codes.sort_indices()
        cosine = np.einsum("nd,nd->n", X, self.reconstruct(codes))
        return Decomposition(codes, solved.alpha, cosine, solved.objective, solved.gap)

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Return the codes, shape (n, M): exact zeros for concepts that are not used. `decompose` gives them sparse."""
        return self.decompose(X).codes.toarray()

    def reconstruct(self, codes: ArrayLike | csr_matrix) -> NDArray[np.float64]:
        """Return the unit embedding that codes stand for, shape (n, d); the mean image for an empty code.

        Parameters
        ----------
        codes : array-like or sparse matrix of shape (n, M)
        """
        check_is_fitted(self)
        parts = self._parts(codes)
        return unit_rows(parts[0] + self.image_mean_, floor=_EPSILON)

    def class_scores(self, X: ArrayLike, class_embeddings: ArrayLike) -> NDArray[np.float64]:
        """Return the cosine of each reconstruction with each class text, shape (n, K): zero-shot through concepts."""
        return self.reconstruct(self.decompose(X).codes) @ self._class_rows(class_embeddings).T

    def explain(
        self,
        X: ArrayLike,
        class_embeddings: ArrayLike | None = None,
        class_names: Sequence[str] | None = None,
        *,
        logit_scale: float = 100.0,
        sources: Sequence[str] | None = None,
        truths: Sequence[object] | None = None,
    ) -> list[Ledger] | Ledgers:
        """Account for the reconstructions, or for the class scores they give.

        Parameters
        ----------
        X : array-like of shape (n, d)
        class_embeddings : array-like of shape (K, d), optional
            Class texts. The ledgers then explain ``logit_scale`` times the cosine of the reconstruction with each;
            without it, the cosine of each image with its own reconstruction.
        class_names : sequence of str, optional
            K names; ``"class 0"``, ... if None.
        logit_scale : float
        sources, truths : sequence of str, optional
            Names of the images, and their true classes.

        Returns
        -------
        list of Ledger, or Ledgers
            Every score is a sum over the concepts used and one line for the mean image.
        """
        from sparsecbm.explain import Ledger, explain
        from sparsecbm.explain.ledger import EVERYTHING_ELSE

        check_is_fitted(self)
        found = self.decompose(X)
        _, lengths = self._parts(found.codes)
        whole = self._parts(found.codes)[0] + self.image_mean_
        norms = np.maximum(row_lengths(whole), _EPSILON)
        # Of a vocabulary that stays on disk, the concepts that these pictures use.
        kept = np.arange(len(self.concept_names_)) if self._vocabulary is None else np.unique(found.codes.indices)
        atoms, known = self._rows_of(kept), [self.concept_names_[j] for j in kept]
        codes = found.codes[:, kept].toarray()
        activations = np.concatenate([codes / (lengths * norms)[:, None], 1.0 / norms[:, None]], axis=1)
        if class_embeddings is not None:
            texts = self._class_rows(class_embeddings)
            labels = [f"class {k}" for k in range(len(texts))] if class_names is None else list(class_names)
            return explain(
                activations[:, :-1],
                logit_scale * (texts @ atoms.T),
                np.zeros(len(texts)),
                known,
                labels,
                sources=sources,
                truths=truths,
                remainder=logit_scale * activations[:, -1:] * (texts @ self.image_mean_),
            )
        X = self._rows(X)
        rows = np.concatenate([atoms, self.image_mean_[None]])
        names = (*known, EVERYTHING_ELSE)
        return [
            Ledger(
                names,
                activations[i],
                np.where(activations[i] != 0, rows @ X[i], 0.0),
                0.0,
                target="this picture",
                source=None if sources is None else str(sources[i]),
                truth=None if truths is None else str(truths[i]),
            )
            for i in range(len(X))
        ]

    def _rows_of(self, which: NDArray[Any]) -> NDArray[np.float64]:
        """Some rows of the dictionary."""
        return self.dictionary_[which] if self._vocabulary is None else self._vocabulary.take(which)

    def _rows(self, X: ArrayLike) -> NDArray[np.float64]:
        X = validate_data(self, as_numpy(X), dtype=[np.float64, np.float32], reset=False)
        return unit_rows(X, "X", dtype=np.float64)

    def _parts(self, codes: ArrayLike | csr_matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Unit direction of each code (zero for an empty one) and the length it had."""
        if codes.ndim != 2 or codes.shape[1] != len(self.concept_names_):  # type: ignore[union-attr]
            raise InputError(f"codes have shape {np.shape(codes)}: expected (n, {len(self.concept_names_)})")
        used: Any = codes
        if self._vocabulary is None:
            vectors = np.asarray(used @ self.dictionary_)
        else:
            kept = np.unique(used.nonzero()[1])
            vectors = np.asarray(used[:, kept] @ self._rows_of(kept))
        if not self.center:
            return vectors, np.ones(len(vectors))
        lengths = row_lengths(vectors)
        return unit_rows(vectors, floor=_EPSILON), np.where(lengths > _EPSILON, lengths, 1.0)

    def _class_rows(self, class_embeddings: ArrayLike) -> NDArray[np.float64]:
        texts = check_array(as_numpy(class_embeddings), dtype=np.float64, input_name="class_embeddings")
        if texts.shape[1] != self.n_features_in_:
            raise InputError(
                f"class_embeddings have {texts.shape[1]} dimensions but the images' embeddings have "
                f"{self.n_features_in_}: encode both with the same encoder"
            )
        return unit_rows(texts, "class_embeddings", dtype=np.float64)


def _vector(values: ArrayLike, d: int) -> NDArray[np.float64]:
    vector = np.asarray(values, dtype=np.float64).reshape(-1)
    if vector.shape != (d,) or not np.isfinite(vector).all():
        raise InputError(f"image_mean has shape {np.shape(values)}: expected {d} finite numbers")
    return vector
