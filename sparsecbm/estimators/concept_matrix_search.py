"""Concept Matrix Search: classification by concepts without training."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import _check_feature_names

from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm._base.labels import class_numbers, label_column
from sparsecbm._base.parameters import (
    Count,
    Flag,
    NonNegative,
    Positive,
    PositiveShare,
    Share,
    Text,
    checked_parameters,
)
from sparsecbm._base.parts import SEARCH_RULES
from sparsecbm._base.rows import as_numpy, finite, unit_rows
from sparsecbm.estimators.class_rows import mean_rows, read_class_rows
from sparsecbm.estimators.class_scores import ClassScoreClassifier, ExplainedScores
from sparsecbm.estimators.inputs import UNIT, check_concepts, check_names, column_names
from sparsecbm.estimators.large_lasso import LARGE, Vocabulary
from sparsecbm.estimators.matrix_search.base import SearchOptions, SearchProblem, SearchRule, centred
from sparsecbm.estimators.matrix_search.few_shot import FewShotRows, few_shot_rows
from sparsecbm.estimators.matrix_search.metric_codes import MetricCodes
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays

_ROWS = 8192
_BANK, _SHOTS = 20_000, 2000
"""Phrases kept of a larger vocabulary, about; shots that have a say in which."""


class ConceptMatrixSearch(ExplainedScores, ClassScoreClassifier):
    """Find the class whose concepts match an image's: no training, and every decision in named concepts.

    Images and classes become rows of concept scores, V = cos(x, concepts) and T = cos(class, concepts), and a rule
    compares them (Semenov et al. 2024, arXiv 2404.03323). Their rules lose to plain zero-shot classification; the
    rule "whitened" takes the overlap of the concepts out and matches it, but any directions would do as well there. The
    default, "sparse", decides by at most k concepts an image, which is where it matters what they mean.

    Parameters
    ----------
    concept_embeddings : array-like of shape (M, d) or None
        Text embeddings of the concepts. None: X and the class rows are concept scores already. Of more than 50,000,
        which may be memory-mapped and float16, `fit` keeps the about 20,000 nearest to classes and shots, and says so
        in a warning: the fitted model holds these alone, and its codes are the rule's on these, with no certificate
        that a phrase left out would not have been chosen (`SparseDecomposer` gives one).
    concept_names : sequence of str or None
        M names; ``"concept 0"``, ... if None.
    similarity : str
        The rule:

        - "sparse": at most `max_active_concepts` concepts decide; codes that rewrite the image.
        - "contrast": the same, chosen to tell each image's leading candidates apart. As accurate as "whitened" from
          about 32 concepts on, and the one in which the dense scores have a say in which concepts are named.
        - "whitened": cosine in the metric (C C^T + lambda I)^-1 of the concepts. All concepts decide; with M >= d as
          many meaningless directions decide alike.
        - "separating": centred, signed-squared scores, weighted by how much a concept separates the classes.
        - "cosine", "cubed", "max": the published rules.
        - "column_normalised": published, and **transductive**: an image's class depends on the batch it comes in.
    ridge : float
        Of "whitened", "sparse" and "contrast": lambda in units of the mean non-zero eigenvalue of C C^T, above 0.
    max_active_concepts : int
        Of "sparse" and "contrast": the most concepts that decide about an image.
    nonnegative : bool
        Whether sparse codes (also those of explanations) name only concepts that are there.
    max_class_concepts : int or None
        Rewrite every class row, too, with at most so many concepts, so that classes are as readable as images; see
        ``class_codes_``. None leaves class rows as they are.
    max_explained_concepts : int
        The most concepts that an explanation names.
    concept_groups : sequence of length M or None
        A label for each concept; those of one label were embedded alike (with one prompt, say), and each group is
        centred by its own mean before concepts of different groups are compared. None: one group.
    origin_weight : float
        Of "sparse" and "contrast", in [0, 1]: how much of what the mean of the reference images itself scores for a
        class enters the decision.
    reference_embeddings : array-like of shape (n, d) or None
        Images whose mean is the origin of sparse codes. Any images do; the batch to predict is never used. None: the
        zero vector, or, with labelled images, their mean.
    text_weight : float
        With labelled images: a class's text counts as so many images, in the class rows and, where all classes have
        texts, in the whitened scores.
    covariance_shrinkage : float
        With labelled images: weight in [0, 1] of the identity in their within-class covariance.
    logit_scale : float
        Scores are so many times the rule's cosines; 100 is CLIP's temperature.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
        In the order of `fit`'s classes.
    class_concepts_ : ndarray of shape (K, M)
        The class x concept matrix by which activations are multiplied in ledgers.
    intercept_ : ndarray of shape (K,)
    class_codes_ : ndarray of shape (K, M) or None
        With `max_class_concepts`: the concepts of each class row, exactly zero elsewhere.
    concept_names_ : list of str
    concept_embeddings_ : ndarray of shape (M, d), float32, or None
    transductive_ : bool
        Whether predictions depend on the batch.
    n_features_in_ : int

    Notes
    -----
    ``explain`` names at most `max_explained_concepts` concepts an image: class score = intercept + sum of activation
    times class-concept weight + "everything else", exactly; a ledger's ``share`` is what the named concepts carry.
    ``ledgers.ledger(i, a, against=b)`` accounts for the margin between two classes with the same activations. "sparse",
    "contrast" and "max" leave nothing else, unless `max_explained_concepts` is below `max_active_concepts`.

    `fit` takes class embeddings and class names, not labelled rows (X, y), so scikit-learn's ``check_estimator`` does
    not apply; cloning, parameters, feature names and input checks follow its conventions.

    The settings of the whitened and sparse rules (ridge, metric, candidates) were chosen on ImageNet's ``train1``
    images, those of few-shot rows on the validation splits of the real sets; `scripts/benchmark_search.py` reports
    other images.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> concepts = rng.normal(size=(40, 16))
    >>> classes = {"finch": concepts[:3].mean(0), "jay": concepts[3:6].mean(0), "lark": concepts[6:9].mean(0)}
    >>> search = ConceptMatrixSearch(concepts, max_active_concepts=3).fit(classes)
    >>> image = 2 * classes["jay"] + 0.1 * rng.normal(size=16)
    >>> search.predict([image]).tolist()
    ['jay']
    >>> why = search.explain([image])[0]
    >>> why.n_active <= 4, bool(abs(why.score - search.decision_function([image])[0, 1]) < 1e-9)
    (True, True)
    """

    _ARRAY_PARAMETERS = ("reference_embeddings",)

    def __init__(
        self,
        concept_embeddings: ArrayLike | None = None,
        concept_names: Sequence[str] | None = None,
        *,
        similarity: Text = "sparse",
        ridge: Positive = 0.01,
        max_active_concepts: Count = 8,
        nonnegative: Flag = True,
        max_class_concepts: Count | None = None,
        max_explained_concepts: Count = 32,
        concept_groups: Sequence[str] | None = None,
        origin_weight: Share = 0.4,
        reference_embeddings: ArrayLike | None = None,
        text_weight: NonNegative = 2.0,
        covariance_shrinkage: PositiveShare = 0.7,
        logit_scale: Positive = 100.0,
    ) -> None:
        self.concept_embeddings = concept_embeddings
        self.concept_names = concept_names
        self.similarity = similarity
        self.ridge = ridge
        self.max_active_concepts = max_active_concepts
        self.nonnegative = nonnegative
        self.max_class_concepts = max_class_concepts
        self.max_explained_concepts = max_explained_concepts
        self.concept_groups = concept_groups
        self.origin_weight = origin_weight
        self.reference_embeddings = reference_embeddings
        self.text_weight = text_weight
        self.covariance_shrinkage = covariance_shrinkage
        self.logit_scale = logit_scale

    # -- fitting -------------------------------------------------------------------------------------------------------

    def fit(
        self,
        class_embeddings: ArrayLike | Mapping[Any, ArrayLike] | Sequence[ArrayLike | None] | None = None,
        class_names: Sequence[Any] | None = None,
        *,
        shots: tuple[ArrayLike, ArrayLike] | None = None,
    ) -> ConceptMatrixSearch:
        """Build the class x concept matrix.

        Parameters
        ----------
        class_embeddings : array-like of shape (K, d) or (K, P, d), sequence of K items, mapping, or None
            Texts of the classes. Several rows a class are prompts (an ensemble): their mean, of length one, is the
            class's row. Items may have different numbers of prompts. A mapping goes from class name to rows. With
            `shots`, an item may be None: a class without a text; and None in all: classes from images alone.
        class_names : sequence of length K, optional
            Labels to predict; default: the mapping's keys, 0..K-1, or the sorted labels of `shots`.
        shots : tuple of (X, y), optional
            Few labelled images: embeddings (n, d) and labels among the class names. Class rows come from them, shrunk
            towards the texts where there are texts. The whitened and sparse rules then whiten by the images'
            within-class covariance.

        Raises
        ------
        InputError
            If a parameter, a shape, a name or a value is not as expected; one line says which.
        """
        checked_parameters(self)
        SEARCH_RULES.check(self.similarity)
        images, labels = self._shots(shots)
        if class_embeddings is None:
            if labels is None:
                raise InputError("class_embeddings is None and there are no shots: expected texts, images, or both")
            names = np.unique(labels) if class_names is None else class_names
            class_embeddings = [None] * len(names)
            class_names = list(names)
        unit = self.concept_embeddings is not None
        blocks, self.classes_ = read_class_rows(
            class_embeddings, class_names, allow_missing=images is not None, unit=unit
        )
        width = images.shape[1] if images is not None else max(block.shape[1] for block in blocks)
        has_text = np.array([len(block) > 0 for block in blocks])
        if has_text.any() and blocks[int(has_text.argmax())].shape[1] != width:
            raise InputError(
                f"shots have {width} dimensions but class_embeddings have {blocks[int(has_text.argmax())].shape[1]}: "
                "encode images and texts with the same encoder"
            )
        self.n_features_in_ = width
        _check_feature_names(self, class_embeddings if shots is None else as_numpy(shots[0]), reset=True)
        bank = self.concept_embeddings
        named = column_names(self) if self.concept_names is None else self.concept_names
        kept = self._retrieved([block.mean(axis=0) for block in blocks if len(block)], images, width)
        if kept is not None:
            known = check_names(named, len(as_numpy(bank)))
            bank, named = np.asarray(as_numpy(bank)[kept], dtype=np.float32), [known[j] for j in kept]
        concepts, self.concept_names_ = check_concepts(bank, named, width)
        self.concept_embeddings_ = concepts
        if concepts is None:
            matrix = np.eye(width)
        else:
            matrix = unit_rows(concepts, dtype=np.float64)
        texts = np.zeros((len(blocks), width))
        if has_text.any():
            texts[has_text] = mean_rows([block for block in blocks if len(block)], unit)
        origin = self._reference_mean(width)
        few: FewShotRows | None = None
        if images is not None and labels is not None:
            few = few_shot_rows(
                texts,
                has_text,
                images,
                class_numbers(labels, len(images), self.classes_, "shots"),
                self.classes_,
                covariance_shrinkage=float(self.covariance_shrinkage),
                text_weight=float(self.text_weight),
            )
            origin = few.image_mean if origin is None else origin
        self._start()
        groups = self._groups(len(matrix), kept)
        rows = self._readable_rows(
            texts if few is None else few.class_rows, matrix, origin if few is not None else None, groups
        )
        self._rule.fit(
            SearchProblem(
                matrix,
                rows,
                concept_groups=groups,
                image_mean=origin,
                image_covariance=None if few is None else few.image_covariance,
                text_rows=texts if few is not None and has_text.all() and self.max_class_concepts is None else None,
                text_share=0.0 if few is None else float(self.text_weight / (self.text_weight + few.images_a_class)),
            )
        )
        self._publish()
        return self

    def _retrieved(
        self, texts: list[NDArray[np.float64]], images: NDArray[np.float64] | None, width: int
    ) -> NDArray[np.int64] | None:
        """Phrases of a large vocabulary that are among the nearest of a class or a shot; None: all of a small one."""
        bank = as_numpy(self.concept_embeddings)
        if bank is None or np.ndim(bank) != 2 or len(bank) <= LARGE or bank.shape[1] != width:
            return None
        vocabulary = Vocabulary(bank)
        sides = ([np.stack(texts)] if texts else []) + ([] if images is None else [images[:_SHOTS]])
        # Each side is seen from its own mean, since images and texts lie in two cones.
        rows = np.concatenate([unit_rows(side - side.mean(axis=0) * (len(side) > 1), floor=1e-9) for side in sides])
        kept = np.unique(vocabulary.nearest(rows, max(8, _BANK // len(rows)))[0])
        warnings.warn(
            f"of {len(bank):,} phrases, the {len(kept):,} nearest to the classes are searched; nothing certifies that "
            "no other would be chosen: SparseDecomposer decomposes over all of them, certified",
            DataWarning,
            stacklevel=3,
        )
        return kept

    def _groups(self, n_concepts: int, kept: NDArray[np.int64] | None) -> NDArray[np.int64] | None:
        if self.concept_groups is None:
            return None
        labels = np.asarray(self.concept_groups).astype(str)
        labels = labels if kept is None else labels[kept]
        if labels.shape != (n_concepts,):
            raise InputError(f"concept_groups have shape {labels.shape}: expected one label for each of {n_concepts}")
        return np.unique(labels, return_inverse=True)[1]

    def _shots(
        self, shots: tuple[ArrayLike, ArrayLike] | None
    ) -> tuple[NDArray[np.float64] | None, NDArray[Any] | None]:
        if shots is None:
            return None, None
        if not isinstance(shots, tuple) or len(shots) != 2:
            raise InputError("shots: expected a tuple of embeddings (n, d) and n labels")
        X = np.asarray(as_numpy(shots[0]), dtype=np.float64)
        if X.ndim != 2 or not len(X):
            raise InputError(f"shots: embeddings of shape {X.shape}: expected (n, d), n at least 1")
        y = label_column(as_numpy(shots[1]), len(X), "shots")
        if not np.isfinite(X).all():
            raise InputError("shots: the embeddings contain NaN or infinity; expected finite numbers")
        if self.concept_embeddings is not None:
            X = unit_rows(X, "shots")
        return X, y

    def _reference_mean(self, width: int) -> NDArray[np.float64] | None:
        if self.reference_embeddings is None:
            return None
        rows = as_numpy(self.reference_embeddings)
        rows = rows if isinstance(rows, np.ndarray) else np.asarray(rows)
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != width:
            raise InputError(f"reference_embeddings have shape {rows.shape}: expected embeddings of shape (n, {width})")
        total = np.zeros(width)
        for start in range(0, len(rows), _ROWS):  # a memory-mapped array stays on disk
            block = rows[start : start + _ROWS]
            if self._unit_rows():
                block = unit_rows(block, "reference_embeddings", tolerance=UNIT, first=start)
            total += block.sum(axis=0, dtype=np.float64)
        return finite(total[None] / len(rows), "reference_embeddings: the mean")[0]

    def _readable_rows(
        self,
        rows: NDArray[np.float64],
        concepts: NDArray[np.float64],
        origin: NDArray[np.float64] | None,
        groups: NDArray[np.int64] | None,
    ) -> NDArray[np.float64]:
        self.class_codes_ = None
        if self.max_class_concepts is None:
            return rows
        origin = concepts.mean(axis=0) if origin is None else origin  # texts have the concepts' mean, images their own
        atoms = centred(concepts, groups)
        coder = MetricCodes(
            rows - rows.mean(axis=0),
            atoms,
            np.zeros(len(rows)),
            logit_scale=1.0,
            nonnegative=bool(self.nonnegative),
        )
        codes = coder.common(rows - origin, int(self.max_class_concepts))
        self.class_codes_ = codes.dense()
        return origin + codes.times(atoms)

    def _start(self) -> None:
        given = checked_parameters(self)
        options = SearchOptions(**{option.name: getattr(given, option.name) for option in fields(SearchOptions)})
        self._scale = options.logit_scale
        self._rule: SearchRule = SEARCH_RULES.find(given.similarity)(options)

    def _publish(self) -> None:
        # One memory layout, fitted or loaded: sums are then rounded alike.
        self._rule.arrays = {name: np.ascontiguousarray(value) for name, value in self._rule.arrays.items()}
        self.class_concepts_ = self._scale * self._rule.weights
        self.intercept_ = self._scale * self._rule.intercept
        self.transductive_ = self._rule.transductive

    def _unit_rows(self) -> bool:
        return self.concept_embeddings is not None

    # -- inference -----------------------------------------------------------------------------------------------------

    def _block(self) -> int:
        return 0 if self._rule.transductive else super()._block()

    def _scores(self, X: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._scale * self._rule.scores(X)

    def transform(self, X: ArrayLike) -> NDArray[np.float64]:
        """Activations of the concepts that `explain` names: shape (n, M), exactly zero elsewhere."""
        return self._rule.codes(self._float_rows(self._checked(X)), int(self.max_explained_concepts)).dense()

    def _parts(self, X: ArrayLike) -> tuple[Any, ...]:
        rows = self._float_rows(self._checked(X))
        scores = self._scores(rows)
        activations = self._rule.codes(rows, int(self.max_explained_concepts)).dense()
        rest = scores - (activations @ self.class_concepts_.T + self.intercept_)
        whole = self._rule.sparse and np.abs(rest).max() <= 1e-9 * max(1.0, np.abs(scores).max())
        left = None if whole else rest
        return activations, self.class_concepts_, self.intercept_, self.concept_names_, scores, left

    # -- storage -------------------------------------------------------------------------------------------------------

    def _arrays(self) -> Arrays:
        stored = {f"rule.{name}": value for name, value in self._rule.arrays.items()}
        for name in ("concept_embeddings", "class_codes"):
            if getattr(self, f"{name}_") is not None:
                stored[name] = getattr(self, f"{name}_")
        return stored

    def _extra(self) -> dict[str, Any]:
        return {"concept_names": self.concept_names_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        self.concept_names_ = record.concept_names
        k, m, d = len(self.classes_), len(self.concept_names_), self.n_features_in_
        self._start()
        shapes = {"rule.concepts": (m, d), "rule.weights": (k, m), "rule.intercept": (k,)}
        if "rule.rows" in arrays:
            shapes |= {"rule.rows": (k, d), "rule.constant": (k,), "rule.origin": (d,)}
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {name: (np.float64, shape) for name, shape in shapes.items()}
        expected |= {name: known for name, known in {
            "concept_embeddings": (np.float32, (m, d)), "class_codes": (np.float64, (k, m)),
        }.items() if name in arrays}  # fmt: skip
        check_arrays(arrays, expected)
        self.concept_embeddings_ = arrays.pop("concept_embeddings", None)
        self.class_codes_ = arrays.pop("class_codes", None)
        self.concept_embeddings, self.concept_names = self.concept_embeddings_, self.concept_names_
        self._rule.arrays = {name.removeprefix("rule."): value for name, value in arrays.items()}
        self._publish()
