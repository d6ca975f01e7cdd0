"""The one-page report: metrics, explained pictures, classes and concepts in a single HTML file without any request."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._errors import InputError
from sparsecbm._files import write_text
from sparsecbm.explain.html import Rows, environment, ledger_rows
from sparsecbm.explain.ledger import Ledger, Ledgers
from sparsecbm.explain.pictures import InlinePicture, inline_picture

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ROWS = 200
"""Longest class or concept table; a page of thousands of rows is neither read nor small."""


@dataclass(frozen=True)
class Figure:
    """One number of the summary: value as shown, and what it means in a few words."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Example:
    """An explained picture; `rival` answers why the true class lost, for a wrong prediction."""

    ledger: Ledger
    rows: Rows
    picture: InlinePicture | None
    alt: str
    correct: bool | None
    rival: Rows | None = None


@dataclass(frozen=True)
class ClassRow:
    """One class: how many pictures, how many right, and the weights that make it."""

    name: str
    count: int
    accuracy: float | None
    confused_with: tuple[str, int] | None
    positive: list[tuple[str, float]]
    negative: list[tuple[str, float]]


@dataclass(frozen=True)
class ConceptRow:
    """One concept: its share of pictures, its mean when active, the classes it speaks for, and its measured AUC."""

    name: str
    share: float
    mean: float
    classes: list[tuple[str, float]]
    auc: float | None


@dataclass(frozen=True)
class Report:
    """Everything the page shows; made by `build_report`."""

    title: str
    summary: str
    figures: Sequence[Figure]
    facts: Mapping[str, str]
    correct: Sequence[Example]
    wrong: Sequence[Example]
    n_wrong: int
    classes: Sequence[ClassRow]
    concepts: Sequence[ConceptRow]
    n_classes: int
    n_concepts: int
    n_images: int
    n_used: int
    version: str = field(default="")


def build_report(
    ledgers: Ledgers,
    *,
    title: str,
    summary: str,
    figures: Sequence[Figure] = (),
    facts: Mapping[str, str] | None = None,
    labels: ArrayLike | None = None,
    picture: Callable[[int], Image | None] | None = None,
    concept_auc: Mapping[str, float] | None = None,
    examples: int = 12,
    lines: int = 8,
    seed: int = 0,
) -> Report:
    """Gather the page from the ledgers of the test images.

    Parameters
    ----------
    ledgers : Ledgers
        Of all test images, explaining the predicted class of each.
    title, summary : str
        Heading and one sentence under it.
    figures : sequence of Figure
        Headline numbers.
    facts : mapping of str to str, optional
        How the model was made.
    labels : array_like of int, shape (n,), optional
        True class of each image; without it nothing is called right or wrong.
    picture : callable, optional
        Index -> picture to show, or None.
    concept_auc : mapping of str to float, optional
        Area under the ROC curve of each concept's activations against its truth, where truth is known.
    examples : int
        Pictures explained at most: half of them wrong ones, if there are so many.
    lines : int
        Ledger lines shown by name.
    seed : int
        Seed of the choice of examples.

    Raises
    ------
    InputError
        If there are no images, or labels are not one class index an image.
    """
    from sparsecbm import __version__

    n, k = len(ledgers), len(ledgers.classes)
    if not n:
        raise InputError("no images to report on: expected at least one")
    truth = None if labels is None else np.asarray(labels)
    if truth is not None and (
        truth.shape != (n,) or truth.dtype.kind not in "iu" or truth.min() < 0 or truth.max() >= k
    ):
        raise InputError(f"labels: expected {n} class indices in 0..{k - 1}, got shape {truth.shape}, {truth.dtype}")
    predicted = ledgers.targets
    right = None if truth is None else predicted == truth
    chosen_right, chosen_wrong = _choose(predicted, right, examples, np.random.default_rng(seed))
    show = picture or (lambda _: None)

    def make(i: int) -> Example:
        return _example(ledgers, i, None if truth is None else int(truth[i]), show(i), lines)

    classes = _class_rows(ledgers, truth)
    concepts = _concept_rows(ledgers, concept_auc or {})
    return Report(
        title=title,
        summary=summary,
        figures=figures,
        facts=facts or {},
        correct=[make(i) for i in chosen_right],
        wrong=[make(i) for i in chosen_wrong],
        n_wrong=0 if right is None else int((~right).sum()),
        classes=classes[:MAX_ROWS],
        concepts=concepts[:MAX_ROWS],
        n_classes=k,
        n_concepts=len(ledgers.concepts),
        n_images=n,
        n_used=sum(row.share > 0 for row in concepts),
        version=__version__,
    )


def render_report(report: Report) -> str:
    """Return the page: one HTML document with inline style and pictures, no script and no request."""
    return environment().get_template("report.html.j2").render(report=report)


def write_report(path: str | Path, report: Report) -> None:
    """Write the page beside and rename it.

    Raises
    ------
    StoredFileError
        If the file cannot be written.
    """
    write_text(path, render_report(report))


def _choose(
    predicted: np.ndarray, right: np.ndarray | None, examples: int, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """Pick right and wrong examples, going round the predicted classes so that no class fills the page."""
    order = rng.permutation(len(predicted))
    wrong = [] if right is None else _round_robin(order[~right[order]], predicted)
    good = _round_robin(order if right is None else order[right[order]], predicted)
    n_wrong = min(len(wrong), max(examples // 2, examples - len(good)))
    return good[: examples - n_wrong], wrong[:n_wrong]


def _round_robin(rows: np.ndarray, groups: np.ndarray) -> list[int]:
    seen: dict[int, int] = {}
    turns = []
    for place, i in enumerate(rows):
        turn = seen[int(groups[i])] = seen.get(int(groups[i]), -1) + 1
        turns.append((turn, place, int(i)))
    return [i for _, _, i in sorted(turns)]


def _example(ledgers: Ledgers, i: int, truth: int | None, image: Any, lines: int) -> Example:
    from dataclasses import replace

    ledger = ledgers[i]
    if truth is not None and ledger.truth is None:
        ledger = replace(ledger, truth=ledgers.classes[truth])
    correct = None if truth is None else int(ledgers.targets[i]) == truth
    alt = f"{ledger.source or f'image {i}'}, predicted {ledger.target}"
    if correct is False:
        alt += f", truly {ledger.truth}"
    rival = None
    if correct is False:
        rival = ledger_rows(ledgers.ledger(i, int(ledgers.targets[i]), against=truth), lines)
    return Example(
        ledger=ledger,
        rows=ledger_rows(ledger, lines),
        picture=None if image is None else inline_picture(image),
        alt=alt,
        correct=correct,
        rival=rival,
    )


def _class_rows(ledgers: Ledgers, truth: np.ndarray | None) -> list[ClassRow]:
    rows = []
    predicted = ledgers.targets
    for c, name in enumerate(ledgers.classes):
        of_class = (predicted if truth is None else truth) == c
        accuracy = confused = None
        if truth is not None and of_class.any():
            accuracy = float((predicted[of_class] == c).mean())
            errors = np.bincount(predicted[of_class & (predicted != c)], minlength=len(ledgers.classes))
            if errors.any():
                confused = (ledgers.classes[int(errors.argmax())], int(errors.max()))
        weights = ledgers.weights[c]
        order = np.argsort(-weights, kind="stable")
        rows.append(
            ClassRow(
                name=name,
                count=int(of_class.sum()),
                accuracy=accuracy,
                confused_with=confused,
                positive=[(ledgers.concepts[j], float(weights[j])) for j in order[:5] if weights[j] > 0],
                negative=[(ledgers.concepts[j], float(weights[j])) for j in order[::-1][:3] if weights[j] < 0],
            )
        )
    return rows


def _concept_rows(ledgers: Ledgers, auc: Mapping[str, float]) -> list[ConceptRow]:
    activations, weights = ledgers.activations, ledgers.weights
    active = activations != 0
    share = active.mean(axis=0)
    mean = np.divide(activations.sum(axis=0), active.sum(axis=0), out=np.zeros(share.shape), where=active.any(axis=0))
    rows = []
    for j in np.argsort(-share, kind="stable"):
        best = np.argsort(-weights[:, j], kind="stable")[:3]
        rows.append(
            ConceptRow(
                name=ledgers.concepts[j],
                share=float(share[j]),
                mean=float(mean[j]),
                classes=[(ledgers.classes[c], float(weights[c, j])) for c in best if weights[c, j] > 0],
                auc=None if ledgers.concepts[j] not in auc else float(auc[ledgers.concepts[j]]),
            )
        )
    return rows
