"""Classification by description: the class whose descriptions fit best on average."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm.estimators.class_rows import read_class_rows
from sparsecbm.estimators.class_scores import ExplainedScores
from sparsecbm.estimators.storage import Arrays, ModelRecord, check_arrays
from sparsecbm.estimators.zero_shot import ZeroShotClassifier


class DescriptionClassifier(ExplainedScores, ZeroShotClassifier):
    """Score of a class = logit_scale * mean cosine of the image with its descriptions (Menon & Vondrick 2023).

    The paper is arXiv 2210.07183. Classes may have any number of descriptions; each class is a mean over its own. Give
    them as a mapping from class name to rows: two parallel lists whose orders disagreed are how a published
    implementation got 11% on Pets.

    Parameters
    ----------
    logit_scale : float
        Temperature of the probabilities.

    Attributes
    ----------
    classes_ : ndarray of shape (K,)
    descriptions_ : ndarray of shape (D, d)
        All descriptions, unit rows, class by class.
    description_names_ : list of str
        Their texts, as far as given.
    class_of_ : ndarray of int64, shape (D,)
        Class number of each description.
    n_features_in_ : int

    Examples
    --------
    >>> import numpy as np
    >>> texts = {"finch": [[1.0, 0.0], [0.8, 0.6]], "jay": [[0.0, 1.0]]}
    >>> names = {"finch": ["small", "yellow"], "jay": ["blue"]}
    >>> model = DescriptionClassifier().fit(texts, description_names=names)
    >>> print(model.explain([[1.0, 0.0]])[0].top(1)[0].concept)
    finch: small
    """

    def fit(
        self,
        class_embeddings: ArrayLike | Mapping[Any, ArrayLike] | Sequence[ArrayLike],
        class_names: Sequence[Any] | None = None,
        *,
        description_names: Mapping[Any, Sequence[str]] | Sequence[Sequence[str]] | None = None,
    ) -> DescriptionClassifier:
        """Take the descriptions.

        Parameters
        ----------
        class_embeddings, class_names
            As of `ZeroShotClassifier.fit`: rows (p_c, d) of each class, p_c at least 1.
        description_names : mapping or sequence, optional
            p_c texts a class, for `explain`; a mapping by class name, or in the order of the classes.

        Raises
        ------
        InputError
            If shapes, names or values are not as expected.
        """
        super().fit(class_embeddings, class_names)
        blocks, _ = read_class_rows(class_embeddings, class_names)
        self.descriptions_ = np.concatenate(blocks)
        counts = [len(block) for block in blocks]
        self.class_of_ = np.repeat(np.arange(len(blocks)), counts)
        self.class_rows_ = np.stack([block.mean(axis=0) for block in blocks])
        labels = self.classes_.tolist()
        if description_names is None:
            texts = [[f"description {i + 1}" for i in range(count)] for count in counts]
        elif isinstance(description_names, Mapping):
            texts = [list(description_names.get(label, ())) for label in labels]
        else:
            texts = [list(item) for item in description_names]
        if len(texts) != len(labels):
            raise InputError(f"description_names: {len(texts)} lists for {len(labels)} classes; expected one a class")
        for label, names, count in zip(labels, texts, counts):
            if len(names) != count:
                raise InputError(
                    f"description_names: {len(names)} texts for the {count} descriptions of {label!r}; "
                    "expected one each"
                )
        # One line a description: the same text may describe several classes.
        self.description_names_ = [f"{label}: {text}" for label, names in zip(labels, texts) for text in names]
        return self

    def _parts(self, X: ArrayLike) -> tuple[Any, ...]:
        rows = self._float_rows(self._checked(X))
        weights = np.zeros((len(self.classes_), len(self.descriptions_)))
        weights[self.class_of_, np.arange(len(self.descriptions_))] = self.logit_scale
        weights /= np.bincount(self.class_of_)[:, None]
        activations, intercept = rows @ self.descriptions_.T, np.zeros(len(weights))
        return activations, weights, intercept, self.description_names_, self._scores(rows), None

    def _arrays(self) -> Arrays:
        return {"class_rows": self.class_rows_, "descriptions": self.descriptions_, "class_of": self.class_of_}

    def _extra(self) -> dict[str, Any]:
        return {"description_names": self.description_names_}

    def _restore(self, arrays: Arrays, record: ModelRecord) -> None:
        super()._restore(arrays, record)
        self.description_names_ = record.description_names
        n = len(self.description_names_)
        check_arrays(arrays, {"descriptions": (np.float64, (n, self.n_features_in_)), "class_of": (np.int64, (n,))})
        self.descriptions_, self.class_of_ = arrays["descriptions"], arrays["class_of"]
        if not np.array_equal(np.unique(self.class_of_), np.arange(len(self.classes_))):
            raise ValueError("the array 'class_of' does not number every class")
