"""Runs on a saved model: predict, explain, report; and how its data are opened."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._errors import InputError, StoredFileError
from sparsecbm._files import atomic_path, read_json, remove_leftovers, write_text
from sparsecbm.config import ImagesConfig
from sparsecbm.explain import explain
from sparsecbm.runs.data import SPLITS, EmbeddedSplit, open_images
from sparsecbm.runs.measure import measure
from sparsecbm.runs.models import StoredModel, load_model, model_encoder
from sparsecbm.runs.pictures import picture_files
from sparsecbm.runs.reports import make_report
from sparsecbm.runs.results import ExplainResult, Prediction, PredictResult, ReportResult

if TYPE_CHECKING:
    from sparsecbm.data.base import EncodedImages
    from sparsecbm.encoders import Encoder


def predict_run(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    top: int = 3,
    encoder: str | None = None,
    on_error: str = "raise",
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
    encoder : str, optional
        Where the encoder lies now; its fingerprint must be that of training.
    on_error : {"raise", "skip"}
        What to do with a file that cannot be decoded.
    device : str
    """
    stored, pictures, vectors = _encode(model, images, encoder, on_error, device)
    probabilities = stored.classifier.predict_proba(vectors)
    active = (stored.classifier.transform(vectors) != 0).sum(axis=1)
    names = stored.class_names
    made = [
        Prediction(source, [(names[k], float(row[k])) for k in np.argsort(-row, kind="stable")[:top]], int(count))
        for source, row, count in zip(pictures.ids, probabilities, active)
    ]
    return PredictResult(stored.path, made, tuple(pictures.skipped))


def explain_run(
    model: str | Path,
    images: Sequence[str | Path],
    *,
    target: str | None = None,
    against: str | None = None,
    encoder: str | None = None,
    on_error: str = "raise",
    device: str = "auto",
) -> ExplainResult:
    """Account for the scores of picture files.

    Parameters
    ----------
    model, images, encoder, on_error, device
        See `predict_run`.
    target : str, optional
        Class to explain; None takes the predicted one of each picture.
    against : str, optional
        Explain the score difference to this class.
    """
    stored, pictures, vectors = _encode(model, images, encoder, on_error, device, check=(target, against))
    classifier = stored.classifier
    ledgers = explain(
        classifier.transform(vectors),
        classifier.head_weights_,
        classifier.head_intercept_,
        classifier.concept_names_,
        stored.class_names,
        sources=pictures.ids,
    )
    shown = [ledgers.ledger(i, target, against) for i in range(len(ledgers))]
    return ExplainResult(stored.path, ledgers, shown, pictures, tuple(pictures.skipped))


def plot_ledgers(result: ExplainResult, folder: str | Path, k: int = 10) -> list[Path]:
    """Draw each picture beside its ledger into ``FOLDER/NNN-name.png``; returns the files.

    Raises
    ------
    StoredFileError
        If the folder cannot be written.
    """
    from sparsecbm.explain.plots import plot_explained_prediction

    folder, written = Path(folder), []
    for i, ledger in enumerate(result.shown):
        path = folder / f"{i:03d}-{Path(ledger.source or 'picture').stem}.png"
        figure = plot_explained_prediction(result.images[i], ledger, k=k)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", dpi=150)
        written.append(path)
    if written:
        remove_leftovers(folder, [path.name for path in written])
    return written


def report_run(
    model: str | Path,
    *,
    output: str | Path | None = None,
    images: str | None = None,
    split: str = "test",
    max_images: int | None = None,
    embeddings: str | Path | None = None,
    examples: int = 12,
    training: bool = True,
    encoder: str | None = None,
    device: str = "auto",
) -> ReportResult:
    """Write the page of a saved model; by default ``report.html`` in the output folder of its run.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    output : str or Path, optional
        HTML file to write.
    images : str, optional
        Image spec; None takes the pictures (or vectors) of training.
    split : str
        Split to report on.
    max_images : int, optional
        A stratified subset.
    embeddings : str or Path, optional
        File of vectors made elsewhere, in place of pictures.
    examples : int
        Pictures explained.
    training : bool
        Whether to compare with the training pictures, which is how spurious cues show; they are embedded, or found
        embedded. Left out, with a note on the page, where they cannot be had.
    encoder : str, optional
        Where the encoder lies now.
    device : str
        See `load_encoder`.

    Raises
    ------
    InputError
        If the pictures have other classes than the model, or the encoder has changed.
    """
    stored = load_model(model)
    load = functools.partial(model_encoder, stored, encoder, device=device)
    held = open_split(stored, images, split, max_images, embeddings, load)
    metrics = measure(stored.classifier, held) if held.labels is not None else None
    title = str(stored.metadata.get("config") or stored.path.name)
    given = Path(model)
    folder = given if stored.path != given else given.parent
    train = _training(stored, load) if training and held.labels is not None and split != "train" else None
    own = images is None and embeddings is None
    controls = stored_controls(folder, split, len(held.vectors)) if own else []
    page, _ = make_report(stored, held, metrics, title=title, examples=examples, train=train, controls=controls)
    path = Path(output) if output is not None else folder / "report.html"
    write_text(path, page)
    remove_leftovers(path.parent, [path.name])
    return ReportResult(path, len(held.vectors), len(page.encode()))


def _training(stored: StoredModel, load: Callable[[], Encoder]) -> EmbeddedSplit | None:
    """The training split the model remembers; None where it cannot be had."""
    try:
        return open_split(stored, None, "train", None, None, load)
    except (InputError, OSError):
        return None


def stored_controls(folder: Path, split: str, n_images: int) -> list[dict[str, Any]]:
    """Controls that `sparsecbm evaluate`, or else training, has left in a run's folder for the same pictures."""
    for path, *keys in (
        (folder / "evaluation" / f"{split}.json", "controls", "rows"),
        (folder / "metrics.json", "test", "controls"),
    ):
        try:
            found = read_json(path)
        except StoredFileError:
            continue
        measured = (found.get("metrics") or found.get("test") or {}) if isinstance(found, dict) else {}
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, list) and found and measured.get("n_images") == n_images:
            return found
    return []


def _encode(
    model: str | Path,
    images: Sequence[str | Path],
    encoder: str | None,
    on_error: str,
    device: str,
    check: Sequence[str | None] = (),
) -> tuple[StoredModel, EncodedImages, np.ndarray]:
    # Cheap checks first: a misspelt file or class is said before an encoder is loaded.
    pictures = picture_files(images, on_error)  # type: ignore[arg-type]
    stored = load_model(model, inference=True)
    for name in check:
        if name is not None and name not in stored.class_names:
            from sparsecbm._errors import unknown

            raise unknown("class", name, stored.class_names)
    made = model_encoder(stored, encoder, device=device)
    return stored, pictures, made.encode_images(pictures)


def open_split(
    stored: StoredModel,
    images: str | None,
    split: str,
    max_images: int | None,
    embeddings: str | Path | None,
    load: Callable[[], Encoder],
) -> EmbeddedSplit:
    """Open and embed what a model is measured on: the given pictures or vectors, else those of its training.

    Parameters
    ----------
    stored : StoredModel
    images : str or None
        Image spec.
    split : str
    max_images : int or None
        A stratified subset.
    embeddings : str, Path or None
        File of vectors made elsewhere.
    load : callable
        Loads the model's encoder; called for pictures only.
    """
    start = time.perf_counter()
    if embeddings is not None:
        if images is not None:
            raise InputError("give either pictures (--images) or vectors (--embeddings), not both")
        return _vectors(stored, embeddings, split, max_images, start)
    config = stored.images
    if images is not None:
        config = ImagesConfig(spec=images)
    remembered = stored.embeddings
    if config is None and remembered is not None and Path(remembered.path).is_file():
        theirs = getattr(remembered, split, None) if split in SPLITS else None
        return _vectors(stored, remembered.path, theirs or split, max_images, start)
    if config is None:
        where = "" if remembered is None else f" ({remembered.path!r}, which is not there now)"
        raise InputError(
            f"model {str(stored.path)!r} was trained on embeddings made elsewhere{where}: "
            "give the pictures with --images, or vectors with --embeddings"
        )
    from sparsecbm.embeddings import embed_images

    if max_images is not None:
        config = config.model_copy(
            update={"max_train": max_images, "max_validation": max_images, "max_test": max_images}
        )
    source = open_images(config, split)
    same_classes(stored, source.class_names, config.spec)
    made = embed_images(load(), source, cache="disk-or-memory")
    seconds = time.perf_counter() - start
    return EmbeddedSplit(made.vectors, made.labels, list(made.ids), source, seconds, made.provenance)


def _vectors(stored: StoredModel, path: str | Path, split: str, max_images: int | None, start: float) -> EmbeddedSplit:
    from sparsecbm.embeddings import load_embeddings

    made = load_embeddings(path, split)
    d = stored.classifier.n_features_in_
    if made.dim != d:
        raise InputError(f"{str(path)!r} holds {made.dim}-d vectors; the model expects {d}-d ones")
    same_classes(stored, made.class_names, str(path))
    ids = list(made.ids) or [f"{split}/{i}" for i in range(len(made))]
    vectors, labels = made.vectors, made.labels
    if max_images is not None and max_images < len(made):
        from sparsecbm.data.splits import stratified_subset

        rows = stratified_subset(labels, len(made), max_images)
        vectors, labels, ids = vectors[rows], None if labels is None else labels[rows], [ids[i] for i in rows]
    return EmbeddedSplit(vectors, labels, ids, None, time.perf_counter() - start, made.provenance)


def same_classes(stored: StoredModel, names: Sequence[str], what: str) -> None:
    """Refuse data whose labels mean other classes: the accuracy would be nonsense (as a published 11% on Pets was)."""
    known: Any = stored.metadata.get("label_names")
    if not known or not names or list(names) == list(known):
        return
    for k, (theirs, ours) in enumerate(zip(names, known)):
        if theirs != ours:
            raise InputError(f"class {k} is {theirs!r} in {what!r} and {ours!r} in the model: the labels do not match")
    raise InputError(f"{what!r} has {len(names)} classes and the model {len(known)}: the labels do not match")
