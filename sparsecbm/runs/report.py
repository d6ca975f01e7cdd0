"""The report of a model: ledgers of a split, pictures at a size worth looking at, words for the numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.files import read_json, remove_leftovers, write_text
from sparsecbm._base.rows import evenly_spaced
from sparsecbm.explain import Ledgers, explain
from sparsecbm.explain.cues import find_cues
from sparsecbm.explain.interventions import (
    ConceptTruth,
    InterventionCurve,
    ModelEdits,
    concept_uncertainty,
    intervention_curve,
)
from sparsecbm.explain.interventions.curves import BLIND, ORDERS
from sparsecbm.explain.maps.regions import blanked
from sparsecbm.explain.maps.whereabouts import Whereabout, whereabouts
from sparsecbm.explain.pages.report import Report, Standing
from sparsecbm.inputs.model_data import DataOptions, model_class_texts, open_split
from sparsecbm.inputs.models import StoredModel, load_model
from sparsecbm.runs.base import Result
from sparsecbm.runs.measure import concept_truth, headline, measure
from sparsecbm.runs.predict import mapped

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image
    from typing_extensions import Unpack

    from sparsecbm.embeddings import Embeddings
    from sparsecbm.estimators.frontier import FrontierPoint
    from sparsecbm.explain.maps.picture_maps import PictureMaps


MAX_MAPPED = 100
"""Pictures, evenly spread, whose maps are compared with where their objects are."""
MAX_REPORTED = 10_000
"""Images behind a report's tables, evenly spread; the headline numbers are of all."""


@dataclass(frozen=True)
class ReportResult(Result):
    """The page that `report_run` wrote."""

    path: Path
    n_images: int
    bytes: int


def make_report(
    model: StoredModel,
    split: Embeddings,
    metrics: Mapping[str, Any] | None,
    *,
    title: str,
    examples: int = 12,
    seed: int = 0,
    train: Embeddings | None = None,
    folder: Path | None = None,
    notes: Sequence[str] = (),
) -> tuple[str, Ledgers]:
    """Return the page of a model on one split, and the ledgers behind it.

    With the training split the page also says which concepts do not keep what they promised in training, and, where the
    truth of the concepts is known, how true values would help.
    """
    rows = evenly_spaced(len(split.vectors), MAX_REPORTED)
    classifier = model.classifier
    labels = _columns(model, split, rows)
    ledgers = split_ledgers(model, split, rows, labels)
    known = concept_truth(classifier.concept_names_, split)
    truth = None if known is None else (known[0], known[1][rows])
    cues, curves = None, []
    if labels is not None:
        train_rows = np.arange(0) if train is None else evenly_spaced(len(train.vectors), MAX_REPORTED)
        train_labels = None if train is None else _columns(model, train, train_rows)
        train_ledgers = None
        if train is not None and train_labels is not None:
            train_ledgers = split_ledgers(model, train, train_rows, train_labels)
        cues = find_cues(ledgers, labels, train_ledgers, train_labels)
        if truth is not None:
            curves = _curves(model, split, rows, ledgers, labels, truth, train, train_rows, train_ledgers, seed)
    figures = headline(metrics) if metrics is not None else []
    auc = {} if metrics is None else metrics.get("concept_auc", {}).get("each", {})
    limit = getattr(classifier, "max_active_concepts", None)
    does = f"tells {len(ledgers.classes):,} classes apart"
    if ledgers.multilabel:
        does = f"says which of {len(ledgers.classes):,} classes are there"
    kept = f", at most {limit} of them active in a picture" if limit else ""
    page = Report(
        ledgers,
        title=title,
        summary=f"A sparse concept bottleneck that {does} by {len(ledgers.concepts):,} named concepts{kept}.",
        figures=figures,
        facts=_facts(model, split),
        labels=labels,
        picture=lambda i: large_picture(split, int(rows[i])),
        maps=_maps(model, split, rows, ledgers),
        background=_background(model, split, rows, ledgers),
        controls=(metrics or {}).get("controls") or (),
        verdict=(metrics or {}).get("verdict"),
        notes=notes,
        standing=None if folder is None else standing(folder, classifier),
        cues=cues,
        edits=ModelEdits(classifier).to_text().splitlines() if "edits" in model.metadata else (),
        curves=curves,
        truth=truth,
        there=np.asarray(split.labels)[rows] if split.multilabel else None,
        reliability=(metrics or {}).get("concepts"),
        concept_auc={name: value for name, value in auc.items() if value is not None},
        examples=examples,
        seed=seed,
    )
    return page.render(), ledgers


def _maps(
    model: StoredModel, split: Embeddings, rows: np.ndarray, ledgers: Ledgers
) -> Callable[[int], PictureMaps | None] | None:
    """Maps of one picture at a time; None where the pictures, or what their encoder sees, cannot be had."""
    images = split.images
    if images is None or not hasattr(model.classifier, "bottleneck_"):
        return None
    try:
        _ = model.encoder
    except (InputError, OSError):
        return None

    def of(i: int) -> PictureMaps | None:
        try:
            made = mapped(ledgers.select([i]), model, [images[int(rows[i])].convert("RGB")]).maps
        except InputError:  # an encoder that does not open
            return None
        return None if made is None else made[0]

    return of


def _background(model: StoredModel, split: Embeddings, rows: np.ndarray, ledgers: Ledgers) -> list[Whereabout]:
    """Where concepts are seen, in pictures that know where their object is."""
    images, masks = split.images, getattr(split.images, "object_mask", None)
    if images is None or masks is None or not hasattr(model.classifier, "bottleneck_"):
        return []
    some = evenly_spaced(len(rows), MAX_MAPPED)
    pictures = [images[int(rows[i])] for i in some]
    objects = [masks(int(rows[i])) for i in some]
    try:
        of_some = mapped(ledgers.select(some), model, pictures)
        over = model.encoder.encode_images([blanked(p, o) for p, o in zip(pictures, objects)], progress=False)
    except (InputError, OSError):
        return []
    units = model.classifier.units(np.asarray(split.vectors[rows[some]]))
    return whereabouts(of_some, objects, units, model.classifier.units(over))


def _columns(model: StoredModel, split: Embeddings, rows: np.ndarray) -> np.ndarray | None:
    """Labels as columns of the model's scores; None without, or where a picture may have several."""
    if split.labels is None or split.multilabel:
        return None
    return np.searchsorted(model.classifier.classes_, np.asarray(split.labels)[rows])


def _curves(
    model: StoredModel,
    split: Embeddings,
    rows: np.ndarray,
    ledgers: Ledgers,
    labels: np.ndarray,
    truth: tuple[list[int], np.ndarray],
    train: Embeddings | None,
    train_rows: np.ndarray,
    train_ledgers: Ledgers | None,
    seed: int,
) -> list[InterventionCurve]:
    """Accuracy as concepts are set to their true values, by each order; empty where truth cannot be translated."""
    classifier, (known, flags) = model.classifier, truth
    if ledgers.presence is not None and ledgers.worth is not None:  # labels taught it what presence is worth
        values = ConceptTruth(*ledgers.worth[::-1]).values(flags, known)
        return [intervention_curve(ledgers, labels, values, order=order, seed=seed) for order in ORDERS]
    if train is None or train_ledgers is None:
        return []
    of_train = concept_truth(classifier.concept_names_, train)
    if of_train is None or of_train[0] != known or not hasattr(classifier, "units"):
        return []
    translated = ConceptTruth.fit(train_ledgers.activations, of_train[1][train_rows], known)
    if not len(translated.known):
        return []
    units, of_trained = (
        classifier.units(np.asarray(held.vectors[at])) for held, at in ((split, rows), (train, train_rows))
    )
    unsure = concept_uncertainty(units, of_trained, of_train[1][train_rows], known)
    values = translated.values(flags, known)
    orders = [order for order in ORDERS if order not in BLIND]
    return [intervention_curve(ledgers, labels, values, order=order, uncertainty=unsure, seed=seed) for order in orders]


def split_ledgers(model: StoredModel, split: Embeddings, rows: np.ndarray, labels: np.ndarray | None = None) -> Ledgers:
    """Return the ledgers of the predicted classes of some rows of a split."""
    from sparsecbm.estimators.inference import told_presence  # takes seconds to import

    names = model.class_names
    vectors = np.asarray(split.vectors[rows])
    return explain(
        model.classifier.transform(vectors),
        model.classifier.head_weights_,
        model.classifier.head_intercept_,
        model.classifier.concept_names_,
        names,
        sources=[split.ids[i] for i in rows],
        truths=None if labels is None else [names[k] for k in labels],
        **told_presence(model.classifier, vectors),
    )


def large_picture(split: Embeddings, i: int) -> Image | None:
    """Return picture i of a split at a size worth looking at; None where there are vectors only."""
    images = split.images
    if images is None:
        return None
    from sparsecbm.data.birds import BirdImages

    if isinstance(images, BirdImages):
        # The painter can paint the same bird larger; 64 pixels are enough for an encoder, not for a reader.
        images = BirdImages(images.split, seed=images.seed, n_images=len(images), size=256, habitat=images.habitat)
    return images[i]


def _facts(model: StoredModel, split: Embeddings) -> dict[str, str]:
    classifier, metadata = model.classifier, model.metadata
    encoder = metadata.get("encoder") or {}
    images = metadata.get("images") or {}
    facts = {
        "Pictures": f"{images.get('spec', 'embeddings made elsewhere')}, {len(split.vectors):,} shown here",
        "Encoder": f"{encoder.get('spec') or 'unknown'} (frozen)",
        "Model": type(classifier).__name__,
        "Loss": f"{classifier.loss} ({classifier.variant})",
        "Most active concepts": str(classifier.max_active_concepts or "no limit"),
        "Head weights per class": str(classifier.concepts_per_class or "no limit"),
        "Concepts from": str((metadata.get("concepts") or {}).get("source", "unknown")),
    }
    rule = getattr(split.images, "split_rule", None)
    if rule:
        facts["Split"] = str(rule)
    return facts


def report_run(
    model: str | Path,
    *,
    output: str | Path | None = None,
    examples: int = 12,
    training: bool = True,
    encoder: str | None = None,
    device: str = "auto",
    **data: Unpack[DataOptions],
) -> ReportResult:
    """Write the page of a saved model; by default ``report.html`` in the output folder of its run.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    output : str or Path, optional
        HTML file to write.
    examples : int
        Pictures explained.
    training : bool
        Whether to compare with the training pictures, which is how spurious cues show; they are embedded, or found
        embedded. Left out, with a note on the page, where they cannot be had.
    encoder, device : str
        See `load_model`.
    **data
        What to report on; see `open_split`.

    Raises
    ------
    InputError
        If the pictures have other classes than the model, or the encoder has changed.
    """
    stored = load_model(model, encoder=encoder, device=device)
    held, split = open_split(stored, **data), data.get("split", "test")
    texts = model_class_texts(stored, held)
    metrics = measure(stored.classifier, held, texts) if held.labels is not None else None
    title = str(stored.metadata.get("config") or stored.path.name)
    given = Path(model)
    folder = given if stored.path != given else given.parent
    judged = held.labels is not None and not held.multilabel
    train = _training(stored) if training and judged and split != "train" else None
    if metrics is not None and not data.get("images") and not data.get("embeddings"):
        metrics |= stored_controls(folder, split, len(held.vectors))
    page, _ = make_report(
        stored, held, metrics, title=title, examples=examples, train=train, folder=folder, notes=_notes(folder)
    )
    path = Path(output) if output is not None else folder / "report.html"
    write_text(path, page)
    remove_leftovers(path.parent, [path.name])
    return ReportResult(path, len(held.vectors), len(page.encode()))


def _notes(folder: Path) -> list[str]:
    """What training said about its data and its encoder."""
    try:
        found = read_json(folder / "metrics.json")
    except StoredFileError:
        return []
    notes = found.get("notes") if isinstance(found, dict) else None
    return [str(line) for line in notes] if isinstance(notes, list) else []


def _training(stored: StoredModel) -> Embeddings | None:
    """The training split the model remembers; None where it cannot be had."""
    try:
        return open_split(stored, split="train")
    except (InputError, OSError):
        return None


def standing(folder: Path, classifier: Any) -> Standing | None:
    """Where a model stands on the frontier that lies beside it; None where there is none."""
    from PIL import Image

    from sparsecbm.estimators.frontier import Frontier
    from sparsecbm.explain.pages.pictures import inline_picture

    try:
        stored = read_json(folder / "frontier.json")
        found = Frontier.from_json(stored)
        with Image.open(folder / "frontier.png") as image:
            picture = inline_picture(image.convert("RGB"), 1600)
    except (StoredFileError, InputError, OSError):
        return None

    def said(point: FrontierPoint) -> str:
        gap = "" if point.advantage is None else f", {100 * point.advantage:+.1f} points beyond meaningless directions"
        what = f"{point.nec} concepts a class, {point.active} active in a picture, tie {point.tie}"
        return f"{what}: {point.accuracy:.1%}{gap}"

    lines = []
    with contextlib.suppress(InputError):
        own = found.find(nec=classifier.concepts_per_class, active=classifier.max_active_concepts, tie=classifier.tie)
        lines.append(f"This model: {said(own)}.")
    lines.append(f"Most accurate: {said(max(found.points, key=lambda point: point.accuracy))}.")
    if any(point.advantage is not None for point in found.points):
        lines.append(f"Most owed to names: {said(max(found.points, key=lambda point: point.advantage or 0.0))}.")
    note = f"{len(found.points)} models tried on {found.n_images:,} {stored.get('split', 'held-out')} pictures."
    return Standing(picture, note, lines)


def stored_controls(folder: Path, split: str, n_images: int) -> dict[str, Any]:
    """Controls and advantage that `sparsecbm evaluate`, or else training, left in a run's folder for these pictures."""
    for path, place, rows in (
        (folder / "evaluation" / f"{split}.json", "controls", "rows"),
        (folder / "metrics.json", "test", "controls"),
    ):
        try:
            found = read_json(path)
        except StoredFileError:
            continue
        measured = (found.get("metrics") or found.get("test") or {}) if isinstance(found, dict) else {}
        held = found.get(place) if isinstance(found, dict) else None
        if measured.get("n_images") == n_images and "meaningless" in measured:
            return {"meaningless": measured["meaningless"]}
        if isinstance(held, dict) and held.get(rows) and measured.get("n_images") == n_images:
            kept = {"controls": held[rows], "advantage": held.get("advantage"), "verdict": held.get("verdict")}
            return {key: value for key, value in kept.items() if value}
    return {}
