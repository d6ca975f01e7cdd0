"""The one-page report: metrics, explained pictures, classes and concepts in a single HTML file without any request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm.explain.cues import CueReport
from sparsecbm.explain.interventions.counterfactual import counterfactual
from sparsecbm.explain.interventions.curves import InterventionCurve
from sparsecbm.explain.maps.whereabouts import Whereabout, in_words
from sparsecbm.explain.mistakes import Confusion, WrongReason, confusions, right_for_absent
from sparsecbm.explain.pages.base import Example, Page, in_turns
from sparsecbm.explain.pages.pictures import InlinePicture, inline_picture
from sparsecbm.explain.sankey import Sankey, sankey
from sparsecbm.explain.views import (
    Together,
    Usage,
    WeightMap,
    coactivation,
    concept_usage,
    flows,
    top_images,
    weight_map,
)

if TYPE_CHECKING:
    from markupsafe import Markup

MAX_ROWS = 2000
"""Longest class or concept table; the page shows the first rows, and all of them on request."""
GALLERIES, GALLERY_PICTURES, THUMBNAIL = 16, 5, 96
"""Concepts with a row of their top pictures, pictures in a row, and their longest side in pixels."""


class Standing(NamedTuple):
    """Where the model stands among others of its kind: a picture, what it shows, and lines to read beside it."""

    picture: InlinePicture
    note: str
    lines: Sequence[str]


class Thumbnail(NamedTuple):
    """A small picture: where it comes from and how strongly the concept is active in it."""

    picture: InlinePicture
    alt: str
    value: float


class Gallery(NamedTuple):
    """The pictures that activate a concept most."""

    concept: str
    pictures: Sequence[Thumbnail]


class ClassRow(NamedTuple):
    """One class: how many pictures, the share of them found, what takes them instead, and the weights that make it.

    Where classes do not exclude each other, `confused_with` is "absent", and in how many pictures it is said then.
    """

    name: str
    n_images: int
    accuracy: float | None
    confused_with: tuple[str, int] | None
    positive: list[tuple[str, float]]
    negative: list[tuple[str, float]]


class ConceptRow(NamedTuple):
    """One concept: how it is used, the classes it speaks for, and its measured AUC."""

    usage: Usage
    classes: list[tuple[str, float]]
    auc: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class Report(Page):
    """The report of a model on test pictures.

    Parameters
    ----------
    concept_auc : mapping of str to float
        Area under the ROC curve of each concept's activations against its truth, where truth is known.
    controls : sequence of mapping
        Accuracies to read the model's against: ``name``, ``accuracy``, ``sd``, ``note``.
    verdict : str, optional
        One sentence on what the accuracy owes to the concepts.
    standing : Standing, optional
        Where the model stands on its frontier.
    cues : CueReport, optional
        What `find_cues` saw.
    background : sequence of Whereabout
        Where the concepts are seen, on pictures that know where their object is.
    edits : sequence of str
        Edits that the model carries, a line each (`ModelEdits.to_text`).
    curves : sequence of InterventionCurve
        Accuracy as concepts are set to their true values.
    truth : tuple of (columns, flags), optional
        Concept columns whose truth is known, and that truth, bool of shape (n, len(columns)).
    there : array_like of int, shape (n, K), optional
        0 and 1: which classes are there, where they do not exclude each other.
    reliability : mapping, optional
        Of the probabilities of concepts: `sparsecbm.evaluation.concept_reliability`.
    examples : int
        Pictures explained at most: half of them wrong ones, if there are so many.
    seed : int
        Seed of the choice of examples.
    **others
        See `Page`.

    Raises
    ------
    InputError
        If there are no pictures, labels are not one class index a picture, or a control has no name or accuracy.
    """

    concept_auc: Mapping[str, float] = field(default_factory=dict)
    controls: Sequence[Mapping[str, Any]] = ()
    verdict: str | None = None
    standing: Standing | None = None
    cues: CueReport | None = None
    background: Sequence[Whereabout] = ()
    edits: Sequence[str] = ()
    curves: Sequence[InterventionCurve] = ()
    truth: tuple[Sequence[int], ArrayLike] | None = None
    there: ArrayLike | None = None
    reliability: Mapping[str, Any] | None = None
    examples: int = 12
    seed: int = 0

    template = "report.html.j2"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not len(self.ledgers):
            raise InputError("no images to report on: expected at least one")
        object.__setattr__(self, "controls", [_control(made) for made in self.controls])

    # -- the page's own script: its policy (Content-Security-Policy) lets this one run, by its hash, and nothing else --

    @cached_property
    def script(self) -> Markup:
        """Ours, constant, and without "</script": the only text of the page that is not escaped."""
        from markupsafe import Markup

        return Markup(files("sparsecbm.explain").joinpath("templates/report.js").read_text(encoding="utf-8").strip())

    @property
    def digest(self) -> str:
        """SHA-256 of the script, in base64."""
        return base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode("ascii")

    @property
    def looks(self) -> str:
        """Which concepts are read off the background, in words."""
        return in_words(self.background)

    # -- explained pictures --------------------------------------------------------------------------------------------

    @cached_property
    def right(self) -> np.ndarray | None:
        """Whether each prediction is right, where labels are given."""
        return None if self.truth_of is None else self.ledgers.targets == self.truth_of

    @property
    def n_wrong(self) -> int:
        """Predictions that are known to be wrong."""
        return 0 if self.right is None else int((~self.right).sum())

    @cached_property
    def _chosen(self) -> tuple[list[int], list[int]]:
        """Right and wrong examples, going round the predicted classes so that no class fills the page."""
        predicted, right = self.ledgers.targets, self.right
        order = np.random.default_rng(self.seed).permutation(len(predicted))
        wrong = [] if right is None else in_turns(order[~right[order]], predicted)
        good = in_turns(order if right is None else order[right[order]], predicted)
        n_wrong = min(len(wrong), max(self.examples // 2, self.examples - len(good)))
        return good[: self.examples - n_wrong], wrong[:n_wrong]

    @cached_property
    def correct(self) -> list[Example]:
        """Explained predictions that are right, or not known to be wrong."""
        return [self.example(i) for i in self._chosen[0]]

    @cached_property
    def wrong(self) -> list[Example]:
        """Explained predictions that are wrong."""
        return [self.example(i) for i in self._chosen[1]]

    def example(self, i: int) -> Example:
        """Gather what the page shows of picture `i`, and the smallest change that turns its prediction."""
        made = replace(super().example(i), turned=counterfactual(self.ledgers, i))
        if not self.ledgers.multilabel:
            return made
        said, p = self.ledgers.said(i), self.ledgers.probabilities[i]
        also = ", ".join(f"{self.ledgers.classes[k]} {p[k]:.1%}" for k in said[1:])
        made = replace(made, also=f"also {also}" if also else "" if said else "no class is likelier there than not")
        if self.there is None:
            return made
        truth = np.flatnonzero(np.asarray(self.there)[i])
        names = ", ".join(self.ledgers.classes[k] for k in truth) or "none"
        return replace(made, correct=set(said) == set(truth), ledger=replace(made.ledger, truth=names))

    # -- errors --------------------------------------------------------------------------------------------------------

    @cached_property
    def confusions(self) -> list[Confusion]:
        """The most frequent ones."""
        return [] if self.truth_of is None else confusions(self.ledgers, self.truth_of, k=15)

    @cached_property
    def reasons(self) -> list[WrongReason]:
        """All pictures that are right for concepts which truth says are absent."""
        if self.truth_of is None or self.truth is None:
            return []
        return right_for_absent(self.ledgers, self.truth_of, self.truth[1], self.truth[0])

    # -- classes and concepts ------------------------------------------------------------------------------------------

    @cached_property
    def classes(self) -> list[ClassRow]:
        """Rows of the table of classes."""
        ledgers, predicted = self.ledgers, self.ledgers.targets
        truth, rows = self.truth_of, []
        said = ledgers.scores > 0 if ledgers.multilabel else predicted[:, None] == np.arange(len(ledgers.classes))
        there = None if self.there is None else np.asarray(self.there) > 0
        for c, name in enumerate(ledgers.classes[:MAX_ROWS]):
            of_class = there[:, c] if there is not None else said[:, c] if truth is None else truth == c
            accuracy = confused = None
            if there is not None:
                accuracy = float(said[of_class, c].mean()) if of_class.any() else None
                wrongly = int(said[~of_class, c].sum())
                confused = ("absent", wrongly) if wrongly else None
            elif truth is not None and of_class.any():
                accuracy = float((predicted[of_class] == c).mean())
                errors = np.bincount(predicted[of_class & (predicted != c)], minlength=len(ledgers.classes))
                if errors.any():
                    confused = (ledgers.classes[int(errors.argmax())], int(errors.max()))
            weights = ledgers.weights[c]
            order = np.argsort(-weights, kind="stable")
            positive = [(ledgers.concepts[j], float(weights[j])) for j in order[:5] if weights[j] > 0]
            negative = [(ledgers.concepts[j], float(weights[j])) for j in order[::-1][:3] if weights[j] < 0]
            rows.append(ClassRow(name, int(of_class.sum()), accuracy, confused, positive, negative))
        return rows

    @cached_property
    def usage(self) -> list[Usage]:
        """Use of every concept, the most active first."""
        return concept_usage(self.ledgers)

    @cached_property
    def concepts(self) -> list[ConceptRow]:
        """Rows of the table of concepts."""
        rows = []
        for usage in self.usage[:MAX_ROWS]:
            weights = self.ledgers.weights[:, usage.column]
            best = [c for c in np.argsort(-weights, kind="stable")[:3] if weights[c] > 0]
            speaks = [(self.ledgers.classes[c], float(weights[c])) for c in best]
            rows.append(ConceptRow(usage, speaks, self.concept_auc.get(usage.concept)))
        return rows

    @cached_property
    def galleries(self) -> list[Gallery]:
        """Pictures of the concepts that are active most often."""
        if self.picture is None:
            return []
        made = []
        drawn: dict[int, InlinePicture | None] = {}
        for usage in [usage for usage in self.usage if usage.share > 0][:GALLERIES]:
            shown = []
            for i, value in top_images(self.ledgers, usage.concept, GALLERY_PICTURES):
                if i not in drawn:
                    image = self.picture(i)
                    drawn[i] = None if image is None else inline_picture(image, THUMBNAIL)
                small = drawn[i]
                if small is not None:
                    label = self.ledgers.classes[int(self.ledgers.targets[i])]
                    shown.append(Thumbnail(small, f"{label}, activation {value:.2f}", value))
            if shown:
                made.append(Gallery(usage.concept, shown))
        return made

    @cached_property
    def together(self) -> list[Together]:
        """Concepts that fire together."""
        return coactivation(self.ledgers, max_pairs=12).pairs

    @cached_property
    def heat(self) -> WeightMap | None:
        """Weights at a glance; None where nothing is used."""
        used = (self.ledgers.weights != 0).any(axis=0) & (self.ledgers.activations != 0).any(axis=0)
        return weight_map(self.ledgers) if used.any() else None

    @cached_property
    def sankey(self) -> Sankey | None:
        """From concepts to classes; None where nothing is used."""
        return None if self.heat is None else sankey(flows(self.ledgers))


def _control(made: Mapping[str, Any]) -> dict[str, Any]:
    try:
        sd = made.get("sd")
        numbers = {"accuracy": float(made["accuracy"]), "sd": None if sd is None else float(sd)}
        return {"name": str(made["name"]), **numbers, "note": str(made.get("note") or "")}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"controls: {made!r} is no control ({error}): expected name, accuracy, sd, note") from error
