"""Runs on a saved model: predict, explain, report; and how its data are opened."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError, unknown
from sparsecbm._base.files import atomic_path, plain, remove_leftovers
from sparsecbm.data.files import picture_files
from sparsecbm.explain import Entry, Ledger, Ledgers, explain
from sparsecbm.inputs.models import StoredModel, load_model
from sparsecbm.runs.base import Result

if TYPE_CHECKING:
    from PIL.Image import Image

    from sparsecbm.data.base import EncodedImages, OnError

_ROWS = 4096
NO_EVIDENCE, UNCERTAIN, NO_CLASS = "no evidence", "uncertain", "no class"
"""Why a class is not an answer: no concept is active, or it is less probable than asked; of classes that do not exclude
each other, each is more likely absent."""


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first, and how many concepts carried them.

    `note` says why the first is not to be taken for an answer; empty where it is one. `said` holds all that are
    answers, several only where classes do not exclude each other.
    """

    source: str
    classes: Sequence[tuple[str, float]]
    n_active: int
    note: str = ""
    said: Sequence[str] = ()

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.classes[0][0]

    @property
    def probability(self) -> float:
        """Its own, in [0, 1]."""
        return self.classes[0][1]


@dataclass(frozen=True)
class PredictResult(Result):
    """What `predict_run` saw; `skipped` holds name and reason of unreadable pictures."""

    model: Path
    predictions: Sequence[Prediction]
    skipped: Sequence[tuple[str, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            {
                "image": made.source,
                "class": None if made.note else made.label,
                "classes": made.said,
                "probability": made.probability,
                "active_concepts": made.n_active,
                "note": made.note,
                "top": [{"class": name, "probability": p} for name, p in made.classes],
            }
            for made in self.predictions
        ]
        return plain({"model": self.model, "predictions": rows, "skipped": self.skipped})


@dataclass(frozen=True, eq=False)
class ExplainResult(Result):
    """The ledgers of `explain_run`, and the pictures they explain: `shown[i]` that of row `rows[i]`."""

    model: Path
    ledgers: Ledgers
    shown: Sequence[Ledger]
    images: Sequence[Any] | EncodedImages = field(default=(), repr=False)
    skipped: Sequence[tuple[str, str]] = ()
    top: int = 10
    rows: Sequence[int] = ()
    drawn: Sequence[Path] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values; `top` lines a picture, the rest summed."""
        rows = []
        for ledger in self.shown:
            count, remainder = ledger.rest(self.top)
            rows.append(
                {
                    "image": ledger.source,
                    "class": ledger.target,
                    "against": ledger.against,
                    "probability": ledger.probability,
                    "score": ledger.score,
                    "bias": ledger.bias,
                    "active_concepts": ledger.n_active,
                    "contributions": [_line(ledger, entry) for entry in ledger.top(self.top)],
                    "others": {"count": count, "contribution": remainder},
                }
            )
        return plain({"model": self.model, "explanations": rows, "skipped": self.skipped})


def _line(ledger: Ledger, entry: Entry) -> dict[str, Any]:
    where = {} if ledger.maps is None else ledger.place(entry.concept)._asdict()
    p = None if ledger.presence is None else float(ledger.presence[ledger.concepts.index(entry.concept)])
    return entry._asdict() | where | ({} if p is None or np.isnan(p) else {"probability": p})


def predict_run(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 3,
    min_probability: float = 0.0,
    encoder: str | None = None,
    on_error: OnError = "raise",
    device: str = "auto",
) -> PredictResult:
    """Classify picture files.

    Parameters
    ----------
    model : str or Path
    images : sequence of str or Path
        Files, or folders of files.
    top : int
        Classes given for each picture.
    min_probability : float
        In [0, 1], at least .5 where classes do not exclude each other: less probable classes are noted as
        `UNCERTAIN`, or `NO_CLASS` below .5 there. Where no concept is active, nothing but the bias speaks, and the note
        is `NO_EVIDENCE`.
    encoder : str, optional
        Where the encoder lies now; its fingerprint must be that of training.
    on_error : {"raise", "skip"}
        What to do with a file that cannot be decoded.
    device : str
    """
    check_probability(min_probability)
    stored, pictures, vectors = _encode(model, images, encoder, on_error, device)
    blocks = predictions(stored, pictures.ids, vectors, top, min_probability)
    return PredictResult(stored.path, [made for block in blocks for made in block], tuple(pictures.skipped))


def check_probability(value: float) -> None:
    """Refuse what is no probability."""
    if not 0 <= value <= 1:
        raise InputError(f"min_probability={value!r}: expected a number from 0 to 1")


def predictions(
    stored: StoredModel, names: Sequence[str], vectors: np.ndarray, top: int, min_probability: float
) -> Iterator[list[Prediction]]:
    """Classify embeddings (n, d), some rows at a time; see `predict_run`."""
    model, classes = stored.classifier, stored.class_names
    least = max(min_probability, 0.5 * model.multilabel_)
    for start in range(0, len(vectors), _ROWS):
        rows = np.asarray(vectors[start : start + _ROWS])
        active = (model.transform(rows) != 0).sum(axis=1)
        block = []
        for name, row, count in zip(names[start : start + _ROWS], model.predict_proba(rows), active):
            order = np.argsort(-row, kind="stable")
            best = [(classes[k], float(row[k])) for k in order[:top]]
            note = NO_EVIDENCE if not count else "" if best[0][1] >= least else UNCERTAIN
            if note == UNCERTAIN and model.multilabel_ and best[0][1] < 0.5:
                note = NO_CLASS
            answers = order[: int((row >= least).sum()) if model.multilabel_ else 1]
            block.append(Prediction(name, best, int(count), note, [] if note else [classes[k] for k in answers]))
        yield block


def explain_run(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    target: str | None = None,
    against: str | None = None,
    top: int = 10,
    plot: str | Path | None = None,
    maps: str | Path | None = None,
    encoder: str | None = None,
    on_error: OnError = "raise",
    device: str = "auto",
) -> ExplainResult:
    """Account for the scores of picture files.

    Parameters
    ----------
    model, images, encoder, on_error, device
        See `predict_run`.
    target : str, optional
        Class to explain; None takes the predicted one of each picture, or every one that is said of it.
    against : str, optional
        Explain the score difference to this class.
    top : int
        Concepts named for each picture.
    plot : str or Path, optional
        Folder to draw each ledger into; see `plot_ledgers`.
    maps : str or Path, optional
        Folder to draw into where in each picture each concept is seen; see `draw_maps`.
    """
    from sparsecbm.estimators.inference import told_presence  # takes seconds to import

    stored, pictures, vectors = _encode(model, images, encoder, on_error, device, check=(target, against))
    classifier = stored.classifier
    ledgers = explain(
        classifier.transform(vectors),
        classifier.head_weights_,
        classifier.head_intercept_,
        classifier.concept_names_,
        stored.class_names,
        sources=pictures.ids,
        **told_presence(classifier, vectors),
    )
    if maps is not None:
        ledgers = mapped(ledgers, stored, [pictures[i] for i in range(len(pictures))])
    several = ledgers.multilabel and target is None and against is None
    rows = [(i, k) for i in range(len(ledgers)) for k in (ledgers.said(i) if several else ()) or (target,)]
    shown = [ledgers.ledger(i, k, against) for i, k in rows]
    result = ExplainResult(stored.path, ledgers, shown, pictures, tuple(pictures.skipped), top, [i for i, _ in rows])
    drawn = [] if plot is None else plot_ledgers(result, plot, top)
    return replace(result, drawn=drawn if maps is None else [*drawn, *draw_maps(result, maps, top)])


def mapped(ledgers: Ledgers, stored: StoredModel[Any], images: Sequence[Image]) -> Ledgers:
    """Return the ledgers of a stored model's pictures with their maps; raises InputError where it has no units."""
    bottleneck = getattr(stored.classifier, "bottleneck_", None)
    if bottleneck is None:
        raise InputError(f"a {type(stored.classifier).__name__} has no maps: expected a sparse concept bottleneck")
    return ledgers.with_maps(images, stored.encoder, bottleneck.weight.numpy(), bottleneck.bias.numpy())


def draw_maps(result: ExplainResult, folder: str | Path, k: int = 10) -> list[Path]:
    """Draw what each concept adds where into ``FOLDER/NNN-name.png``, a sheet a picture; returns the files.

    Raises
    ------
    StoredFileError
        If the folder cannot be written.
    """
    from sparsecbm.explain.maps.overlay import map_sheet

    return _drawn(result, folder, lambda i, ledger, file: map_sheet(ledger.lines(k)).save(file, format="PNG"))


def plot_ledgers(result: ExplainResult, folder: str | Path, k: int = 10) -> list[Path]:
    """Draw each picture beside its ledger into ``FOLDER/NNN-name.png``; returns the files.

    Raises
    ------
    StoredFileError
        If the folder cannot be written.
    """
    from sparsecbm.explain.plots import plot_explained_prediction

    def draw(i: int, ledger: Ledger, file: Path) -> None:
        plot_explained_prediction(result.images[result.rows[i]], ledger.lines(k)).savefig(file, format="png", dpi=150)

    return _drawn(result, folder, draw)


def _drawn(result: ExplainResult, folder: str | Path, draw: Callable[[int, Ledger, Path], None]) -> list[Path]:
    folder, written = Path(folder), []
    for i, ledger in enumerate(result.shown):
        path = folder / f"{i:03d}-{Path(ledger.source or 'picture').stem}.png"
        with atomic_path(path) as temporary:
            draw(i, ledger, temporary)
        written.append(path)
    if written:
        remove_leftovers(folder, [path.name for path in written])
    return written


def _encode(
    model: str | Path,
    images: Sequence[str | Path],
    encoder: str | None,
    on_error: OnError,
    device: str,
    check: Sequence[str | None] = (),
) -> tuple[StoredModel, EncodedImages, np.ndarray]:
    # Cheap checks first: a misspelt file or class is said before an encoder is loaded.
    pictures = picture_files(images, on_error)
    stored = load_model(model, inference=True, encoder=encoder, device=device)
    for name in check:
        if name is not None and name not in stored.class_names:
            raise unknown("class", name, stored.class_names)
    with stored.within_domain() as made_by:
        return stored, pictures, made_by.encode_images(pictures)
