"""The one-page report: metrics, explained pictures, classes and concepts in a single HTML file without any request."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import write_text
from sparsecbm.explain.cues import CueReport
from sparsecbm.explain.html import environment
from sparsecbm.explain.interventions.counterfactual import counterfactual
from sparsecbm.explain.interventions.curves import InterventionCurve
from sparsecbm.explain.ledger import Ledgers
from sparsecbm.explain.mistakes import check_labels, confusions, right_for_absent
from sparsecbm.explain.pages.examples import Example, make_example
from sparsecbm.explain.pages.pictures import InlinePicture, inline_picture
from sparsecbm.explain.sankey import Sankey, sankey
from sparsecbm.explain.views import Together, WeightMap, coactivation, flows, top_images, weight_map

if TYPE_CHECKING:
    from PIL.Image import Image

MAX_ROWS = 2000
"""Longest class or concept table; the page shows the first rows, and all of them on request."""
GALLERIES, GALLERY_PICTURES, THUMBNAIL = 16, 5, 96
"""Concepts with a row of their top pictures, pictures in a row, and their longest side in pixels."""


@dataclass(frozen=True)
class Figure:
    """One number of the summary: value as shown, and what it means in a few words."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Control:
    """One line of the table of controls: what a model without readable concepts, or with the wrong ones, achieves."""

    name: str
    accuracy: float
    sd: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Standing:
    """Where the model stands among others of its kind: a picture, what it shows, and lines to read beside it."""

    picture: InlinePicture
    note: str
    lines: Sequence[str]


@dataclass(frozen=True)
class Thumbnail:
    """A small picture: where it comes from and how strongly the concept is active in it."""

    picture: InlinePicture
    alt: str
    value: float


@dataclass(frozen=True)
class Gallery:
    """The pictures that activate a concept most."""

    concept: str
    pictures: Sequence[Thumbnail]


@dataclass(frozen=True)
class ConfusionRow:
    """One confusion: how often, and the concepts that pulled towards the wrong class."""

    truth: str
    predicted: str
    count: int
    share: float
    causes: list[tuple[str, float]]


@dataclass(frozen=True)
class ReasonRow:
    """One picture that is right for concepts which truth says are absent."""

    source: str
    target: str
    absent: list[tuple[str, float]]
    share: float
    decisive: bool


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
    controls: Sequence[Control] = ()
    verdict: str | None = None
    standing: Standing | None = None
    cues: CueReport | None = None
    edits: Sequence[str] = ()
    curves: Sequence[InterventionCurve] = ()
    confusions: Sequence[ConfusionRow] = ()
    reasons: Sequence[ReasonRow] = ()
    n_reasons: int = 0
    n_decisive: int = 0
    galleries: Sequence[Gallery] = ()
    together: Sequence[Together] = ()
    heat: WeightMap | None = None
    sankey: Sankey | None = None
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
    controls: Sequence[Control | Mapping[str, Any]] = (),
    verdict: str | None = None,
    standing: Standing | None = None,
    cues: CueReport | None = None,
    edits: Sequence[str] = (),
    curves: Sequence[InterventionCurve] = (),
    truth: tuple[Sequence[int], ArrayLike] | None = None,
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
    controls : sequence of Control or mapping
        Accuracies to read the model's against: ``name``, ``accuracy``, ``sd``, ``note``.
    verdict : str, optional
        One sentence on what the accuracy owes to the concepts.
    standing : Standing, optional
        Where the model stands on its frontier.
    cues : CueReport, optional
        What `find_cues` saw.
    edits : sequence of str
        Edits that the model carries, a line each (`ModelEdits.to_text`).
    curves : sequence of InterventionCurve
        Accuracy as concepts are set to their true values.
    truth : tuple of (columns, flags), optional
        Concept columns whose truth is known, and that truth, bool of shape (n, len(columns)).
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
    y = None if labels is None else check_labels(ledgers, labels)
    predicted = ledgers.targets
    right = None if y is None else predicted == y
    chosen_right, chosen_wrong = _choose(predicted, right, examples, np.random.default_rng(seed))
    show = picture or (lambda _: None)

    def make(i: int) -> Example:
        example = make_example(ledgers, i, None if y is None else int(y[i]), show(i), lines)
        return replace(example, turned=counterfactual(ledgers, i))

    classes = _class_rows(ledgers, y)
    concepts = _concept_rows(ledgers, concept_auc or {})
    confused = [] if y is None else confusions(ledgers, y, k=15)
    reasons = [] if y is None or truth is None else right_for_absent(ledgers, y, truth[1], truth[0])
    sources = ledgers.sources or tuple(f"image {i}" for i in range(n))
    has_weights = bool(((ledgers.weights != 0).any(axis=0) & (ledgers.activations != 0).any(axis=0)).any())
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
        controls=[made if isinstance(made, Control) else _control(made) for made in controls],
        verdict=verdict,
        standing=standing,
        cues=cues,
        edits=list(edits),
        curves=list(curves),
        confusions=[ConfusionRow(c.truth, c.predicted, len(c), c.share, c.causes()) for c in confused],
        reasons=[
            ReasonRow(sources[one.row], ledgers.classes[int(y[one.row])], one.absent[:4], one.share, one.decisive)
            for one in reasons[:15]
        ]
        if y is not None
        else [],
        n_reasons=len(reasons),
        n_decisive=sum(one.decisive for one in reasons),
        galleries=_galleries(ledgers, [row.name for row in concepts if row.share > 0][:GALLERIES], picture),
        together=coactivation(ledgers, max_pairs=12).pairs,
        heat=weight_map(ledgers) if has_weights else None,
        sankey=sankey(flows(ledgers)) if has_weights else None,
        version=__version__,
    )


def render_report(report: Report) -> str:
    """Return the page: one HTML document with inline style, script and pictures, and no request.

    The page's own policy (Content-Security-Policy) lets this one script run, by its hash, and nothing be fetched.
    """
    script = files("sparsecbm.explain").joinpath("templates/report.js").read_text(encoding="utf-8").strip()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    from markupsafe import Markup

    # Ours, constant, and without "</script": the only text of the page that is not escaped.
    trusted = Markup(script)
    return environment().get_template("report.html.j2").render(report=report, script=trusted, digest=digest)


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


def _control(made: Mapping[str, Any]) -> Control:
    try:
        sd = made.get("sd")
        return Control(
            str(made["name"]),
            float(made["accuracy"]),
            None if sd is None else float(sd),
            str(made.get("note") or ""),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"controls: {made!r} is no control ({error}): expected name, accuracy, sd, note") from error


def _galleries(
    ledgers: Ledgers, concepts: Sequence[str], picture: Callable[[int], Image | None] | None
) -> list[Gallery]:
    if picture is None:
        return []
    made = []
    drawn: dict[int, InlinePicture | None] = {}
    for concept in concepts:
        shown = []
        for i, value in top_images(ledgers, concept, GALLERY_PICTURES):
            if i not in drawn:
                image = picture(i)
                drawn[i] = None if image is None else inline_picture(image, THUMBNAIL)
            small = drawn[i]
            if small is not None:
                label = ledgers.classes[int(ledgers.targets[i])]
                shown.append(Thumbnail(small, f"{label}, activation {value:.2f}", value))
        if shown:
            made.append(Gallery(concept, shown))
    return made


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
