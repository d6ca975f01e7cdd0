"""What concept labels give an estimator: truer units, probabilities of concepts, and corrections that count."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from sparsecbm._base.errors import DataWarning, InputError
from sparsecbm._base.logistic import sigmoid
from sparsecbm.bottleneck import Rows, Whitening, class_means
from sparsecbm.bottleneck.labelled import LabelledConcepts, learn_concepts, unlabelled_presence, worth
from sparsecbm.bottleneck.ties.base import unit_rows

if TYPE_CHECKING:
    from sparsecbm.bottleneck import FrozenBottleneck
    from sparsecbm.estimators.fitting import Fitted
    from sparsecbm.estimators.inference import InferenceModel

_SAMPLE, _SAMPLE_PRIOR = 4096, 1024
"""Rows that judge a fitted model's concepts, and their scores before labels."""
_ENTRIES = 2**22
"""Rows times concepts that are held for it at most."""
_GOOD, _COARSE = 0.9, 0.1
"""AUC of a concept recognised well; accuracy that answers may lose to grades unsaid."""


class ConceptWarning(DataWarning):
    """A concept does not carry what its name says, or a model decides nothing."""


def _by_class_means(units: np.ndarray, labels: np.ndarray) -> float:
    """Share of pictures nearest to the mean of their own class, by units within classes (linear discriminants)."""
    Z = units.astype(np.float64)
    classes, numbers = np.unique(labels, return_inverse=True)
    means = class_means(Z, numbers, len(classes))
    within = np.cov(Z - means[numbers], rowvar=False, bias=True).reshape(Z.shape[1], -1)
    towards = np.linalg.solve(within + 0.1 * np.diag(Z.var(axis=0) + 1e-12), means.T)
    return float(((Z @ towards - 0.5 * (means.T * towards).sum(axis=0)).argmax(axis=1) == numbers).mean())


def check_concept_labels(
    labels: ArrayLike | None, concept_X: ArrayLike | None, n_rows: int, names: Sequence[str] | None
) -> NDArray[np.float64] | None:
    """Return concept labels (n, M) in [0, 1], NaN where there is none.

    Raises
    ------
    InputError
        If there are pictures without labels, a shape does not fit, or a value is none of 0, 1, between, or NaN.
    """
    if labels is None:
        if concept_X is not None:
            raise InputError("concept_X without concept_labels: give both, or neither")
        return None
    n = n_rows if concept_X is None else len(np.asanyarray(concept_X))
    pictures = "X" if concept_X is None else "concept_X"
    try:
        found = np.asarray(labels, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError("concept_labels hold what is no number: expected 0, 1, or NaN where nobody knows") from error
    if found.ndim != 2 or found.shape[0] != n or found.shape[1] == 0:
        raise InputError(
            f"concept_labels have shape {found.shape}: expected one row for each of the {n} pictures of {pictures}, "
            "and one column a concept"
        )
    known = ~np.isnan(found)
    strange = np.argwhere(known & ~((found >= 0) & (found <= 1)))
    if len(strange):
        i, j = strange[0]
        name = f"concept {j}" if names is None or len(names) <= j else names[j]
        raise InputError(
            f"concept_labels hold {found[i, j]:g} for {name!r} in row {i}: expected 0, 1, a probability, or NaN"
        )
    if not known.any():
        warnings.warn("concept_labels hold nothing but NaN: no concept learns from them", ConceptWarning, 3)
    between = known & (found > 0) & (found < 1)
    if between.any():
        warnings.warn(
            f"concept_labels hold {int(between.sum())} values between 0 and 1, such as {found[between][0]:g}: they are "
            "taken as probabilities",
            ConceptWarning,
            stacklevel=3,
        )
    return found


class ConceptTrust:
    """Probabilities of concepts, and predictions from concepts that are known."""

    classes_: NDArray[Any]
    concept_names_: list[str]
    concept_embeddings_: NDArray[np.float32] | None
    head_weights_: NDArray[np.float64]
    head_intercept_: NDArray[np.float64]
    n_features_in_: int

    label_counts_: NDArray[np.int64] | None = None
    multilabel_: bool
    _presence: NDArray[np.float64] | None = None
    _worth: NDArray[np.float64] | None = None
    _looked_at: tuple[NDArray[np.float32], NDArray[np.float64] | None, int] | None = None
    """Of fitting: units of some training pictures, their labels and the seed, for what is made of them later."""

    @property
    def presence_(self) -> NDArray[np.float64] | None:
        """Slope and intercept of each concept's probability in its unit, (2, M); made when first asked for."""
        if self._presence is None and self._looked_at is not None:
            units, _, seed = self._looked_at
            self._presence = np.stack(unlabelled_presence(units, seed))
        return self._presence

    @presence_.setter
    def presence_(self, value: NDArray[np.float64] | None) -> None:
        self._presence = value

    @property
    def worth_(self) -> NDArray[np.float64] | None:
        """Activation that an absent and a present concept are worth, (2, M); made when first asked for."""
        if self._worth is None and self._looked_at is not None:
            units, truth, _ = self._looked_at
            self._worth = self._made_worth(units, truth)
        return self._worth

    @worth_.setter
    def worth_(self, value: NDArray[np.float64] | None) -> None:
        self._worth = value

    def _made_worth(self, units: np.ndarray, truth: np.ndarray | None) -> NDArray[np.float64]:
        if self.bottleneck_.gate.name == "presence":  # type: ignore[attr-defined]
            return np.repeat([[0.0], [1.0]], units.shape[1], axis=1)
        slope, intercept = self._known("presence_")
        presence = sigmoid(units * slope + intercept)
        if truth is not None:
            presence = np.where(np.isnan(truth), presence, truth)
        return worth(self._activations(units), presence)

    def _activations(self, units: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return self.bottleneck_.gate(torch.from_numpy(units)).numpy()  # type: ignore[attr-defined]

    def _inference(self) -> InferenceModel:
        raise NotImplementedError

    def units(self, X: ArrayLike) -> np.ndarray:
        """Units (n, M)."""
        raise NotImplementedError

    def transform(self, X: ArrayLike) -> np.ndarray:
        """Activations (n, M)."""
        raise NotImplementedError

    def predict_concepts_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """How probable it is that each picture shows each concept.

        With labels of a concept: a logistic curve through its unit, fitted to held-out labels (Platt 1999), drawn
        towards the guess below while there are few. Without: the upper half of a mixture of two normal distributions
        of the unit; nobody has checked that, so read it as a rank.

        Parameters
        ----------
        X : array-like of shape (n, d)

        Returns
        -------
        ndarray of shape (n, M), float64
            In [0, 1].
        """
        units = self.units(X)
        slope, intercept = self._known("presence_")
        return sigmoid(units * slope + intercept)

    def predict_from_concepts(
        self, C: ArrayLike, known: ArrayLike | None = None, X: ArrayLike | None = None, *, proba: bool = False
    ) -> np.ndarray:
        """Class of pictures whose concepts are known, all or some of them.

        Parameters
        ----------
        C : array-like of shape (n, M)
            Presence of each concept in [0, 1]: 0 absent, 1 present; NaN unknown.
        known : array-like of bool, shape (n, M) or (M,), optional
            Which entries of `C` count; None: those that are not NaN.
        X : array-like of shape (n, d), optional
            Embeddings of the pictures, for the concepts that are not known. Without them, an unknown concept has the
            activation halfway between absent and present.
        proba : bool
            Whether to return class probabilities (n, K) in place of labels (n,).

        Raises
        ------
        InputError
            If shapes do not fit, or a value that counts is outside [0, 1].
        """
        from sparsecbm.estimators.inference import class_probabilities

        absent, present = self._known("worth_")
        values = np.atleast_2d(np.asarray(C, dtype=np.float64))
        shape = (len(values), len(self.concept_names_))
        if values.shape != shape:
            raise InputError(f"C has shape {values.shape}: expected a column for each of {shape[1]} concepts")
        counts = ~np.isnan(values)
        if known is not None:
            given = np.asarray(known)
            if given.dtype != bool or given.shape not in (shape, shape[1:]):
                raise InputError(f"known has shape {given.shape}: expected True or False in shape {shape}")
            counts = counts & given
        wrong = counts & ~((values >= 0) & (values <= 1))
        if wrong.any():
            raise InputError(f"C holds {values[wrong][0]:g}: expected the presence of a concept, from 0 to 1")
        if X is None:
            activations = np.broadcast_to((absent + present) / 2, shape)
        else:
            activations = self.transform(X).astype(np.float64)
            if len(activations) != len(values):
                raise InputError(f"X has {len(activations)} rows for {len(values)} rows of C")
        stand_in = absent + np.where(counts, values, 0.0) * (present - absent)
        scores = np.where(counts, stand_in, activations) @ self.head_weights_.T + self.head_intercept_
        if proba:
            return class_probabilities(scores, self.multilabel_)
        return (scores > 0).astype(np.int64) if self.multilabel_ else self.classes_[scores.argmax(axis=1)]

    # -- of fit --------------------------------------------------------------------------------------------------------

    def _learn_concepts(
        self, space: Whitening, truth: np.ndarray | None, pictures: np.ndarray | Rows, seed: int
    ) -> LabelledConcepts | None:
        """Move concepts to where their labels say; None without labels."""
        self.concept_directions_: NDArray[np.float32] | None = None
        self._presence = self._worth = self._looked_at = self.label_counts_ = None
        if truth is None:
            return None
        m, rows = truth.shape[1], self.concept_embeddings_
        texts = None
        if rows is not None or m == self.n_features_in_:
            texts = unit_rows(space.inverse if rows is None else rows.astype(np.float64) @ space.inverse)
        labelled = ~np.isnan(truth)
        sides = np.stack([(labelled & (truth < 0.5)).sum(0), (labelled & (truth >= 0.5)).sum(0)])
        self._name_one_sided(sides, texts is None)
        seen = np.flatnonzero(labelled.any(axis=1))
        self.label_share_, self.label_auc_ = np.zeros(m), np.full(m, np.nan)
        if not len(seen):
            return None
        self.label_counts_ = sides.astype(np.int64)
        rng = np.random.default_rng([seed, 7])
        some = np.sort(rng.permutation(len(truth))[:_SAMPLE_PRIOR])
        H, sample = (
            (np.asarray(pictures[rows_], dtype=np.float64) - space.center) @ space.matrix for rows_ in (seen, some)
        )
        found = learn_concepts(texts, H, truth[seen], sample, seed)
        self.presence_ = np.stack([found.slope, found.intercept])
        self.label_share_, self.label_auc_ = found.share, found.auc
        if texts is None or found.share.any():
            made = found.directions @ space.matrix
            self.concept_directions_ = (made if rows is None else unit_rows(made)).astype(np.float32)
        return found

    def _name_one_sided(self, sides: np.ndarray, needed: bool) -> None:
        """Concepts whose labels teach nothing, since they are of one kind."""
        total = sides.sum(axis=0)
        short = (sides.min(axis=0) < 2) if needed else (total >= 20) & (sides.min(axis=0) == 0)
        if not short.any():
            return
        j = int(np.flatnonzero(short)[0])
        text = (
            f"the concept {self.concept_names_[j]!r} is absent from {sides[0, j]} and present in {sides[1, j]} of its "
            "labelled pictures"
        )
        more = f" ({int(short.sum())} such concepts)" if short.sum() > 1 else ""
        if needed:
            raise InputError(f"{text}{more}: without a text, a concept needs at least two of each; leave it out")
        warnings.warn(
            f"{text}{more}: labels of one kind teach nothing, it stays its text", ConceptWarning, stacklevel=4
        )

    def _judge_concepts(
        self,
        X: np.ndarray | Rows,
        labels: np.ndarray,
        found: LabelledConcepts | None,
        truth: np.ndarray | None,
        seed: int,
    ) -> None:
        """Keep what probabilities and worth are made from, and warn of concepts that are not worth their names."""
        rows, model_units = self._seen(self.bottleneck_, X, seed)  # type: ignore[attr-defined]
        self._looked_at = (model_units, None if truth is None else truth[rows], seed)
        self._warn_of_concepts(model_units, labels[rows], found)

    def _seen(self, bottleneck: FrozenBottleneck, X: np.ndarray | Rows, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Some rows, and what they are in units."""
        rng, n = np.random.default_rng([seed, 6]), len(X)
        most = min(_SAMPLE, max(64, _ENTRIES // len(self.concept_names_)))
        rows = np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))
        return rows, bottleneck.units(np.asarray(X[rows], dtype=np.float32))

    def _too_coarse(self, fitted: Fitted, X: np.ndarray | Rows, labels: np.ndarray, seed: int, chosen: bool) -> bool:
        """Whether yes-or-no answers lose classes that graded scores tell apart, and say so.

        `chosen`: whether somebody asked for them.
        """
        bottleneck, head = fitted.bottleneck, fitted.head
        if bottleneck.gate.name != "presence" or self.multilabel_:
            return False
        rows, units = self._seen(bottleneck, X, seed)
        if 20 * units.shape[1] > len(units):  # class means would be fitted to these very pictures
            return False
        with torch.inference_mode():
            scores = bottleneck.gate(torch.from_numpy(units)).numpy() @ head.weights.T + head.intercept
        right, graded = float((scores.argmax(axis=1) == labels[rows]).mean()), _by_class_means(units, labels[rows])
        if graded <= right + _COARSE:
            return False
        more = "more concepts help (labels of some and texts of others go together)"
        advice = f"{more}, or training='joint', gate='dense', which read grades"
        warnings.warn(
            f"as yes-or-no answers {len(self.concept_names_)} concepts tell the classes of training pictures apart in "
            f"{right:.1%}, as graded scores they would in {graded:.1%}: "
            + (advice if chosen else f"training='joint' is taken, which reads grades; {more}"),
            ConceptWarning,
            stacklevel=3,
        )
        return True

    def _warn_of_concepts(self, units: np.ndarray, labels: np.ndarray, found: LabelledConcepts | None) -> None:
        activations = self._activations(units)
        weighed = (self.head_weights_ != 0).any(axis=0)
        scores = activations.astype(np.float64) @ self.head_weights_.T
        if self.multilabel_:  # right and most: of all classes together
            right = float(((scores + self.head_intercept_ > 0) == labels).mean())
            most = float(np.maximum(labels.mean(axis=0), 1 - labels.mean(axis=0)).mean())
        else:
            right = float(((scores + self.head_intercept_).argmax(axis=1) == labels).mean())
            most = float(np.bincount(labels).max() / len(labels))
        # Two deviations of a share: what fitting noise with few weights gains.
        if right <= most + 2.0 * np.sqrt(most * (1.0 - most) / len(labels)):
            shut = not (scores != scores[:1]).any()
            reason = "no concept is active where one has a weight" if shut else "weights of single concepts find none"
            warnings.warn(
                f"the model decides nothing: on training pictures it is right in {right:.1%}, the largest class alone "
                f"in {most:.1%} ({reason}); these concepts do not tell the classes apart one by one: add others, or "
                "a concept for two at once (label it with the product of their two columns)",
                ConceptWarning,
                stacklevel=4,
            )
            return
        if found is None:
            return
        absent, present = self._known("worth_")
        labelled = found.counts.min(axis=0) >= 2
        flat = weighed & labelled & (np.abs(present - absent) <= 1e-6 * np.maximum(activations.std(axis=0), 1e-12))
        # Of a concept at chance the AUC is normal around .5 (Mann-Whitney);
        # three deviations, as it is the best of a grid.
        low, high = np.maximum(found.counts, 1)
        chance = 0.5 + 3.0 * np.sqrt((low + high + 1) / (12.0 * low * high))
        blind = weighed & labelled & (found.auc < chance)
        unused = ~weighed & labelled & (found.auc > np.maximum(chance, _GOOD))
        for which, text in (
            (flat, "a correction of {} changes nothing: absent and present are worth the same"),
            (blind, "recognised no better than by chance on held-out labels, and yet with a weight: {}"),
            (unused, "recognised well, and yet weighed by no class: {}"),
        ):
            if which.any():
                first = [repr(self.concept_names_[j]) for j in np.flatnonzero(which)[:3]]
                names = ", ".join(first) + (f" and {int(which.sum()) - 3} more" if which.sum() > 3 else "")
                warnings.warn(text.format(names), ConceptWarning, stacklevel=4)

    def _known(self, name: str) -> np.ndarray:
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        found = getattr(self, name, None)
        if found is None:
            raise InputError(
                "this model was saved by version 0.1, which kept no probabilities of concepts: fit it again"
            )
        return found
