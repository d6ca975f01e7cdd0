"""Runs on a saved model: evaluate, predict, explain, report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._errors import InputError
from sparsecbm._files import atomic_path, write_text
from sparsecbm.config import ImagesConfig
from sparsecbm.explain import explain
from sparsecbm.runs.data import EmbeddedSplit, open_images
from sparsecbm.runs.measure import measure
from sparsecbm.runs.models import StoredModel, load_model, model_encoder
from sparsecbm.runs.pictures import picture_files
from sparsecbm.runs.reports import make_report
from sparsecbm.runs.results import EvaluateResult, ExplainResult, Prediction, PredictResult, ReportResult

if TYPE_CHECKING:
    from sparsecbm.data.base import EncodedImages


def evaluate_run(
    model: str | Path,
    *,
    images: str | None = None,
    split: str = "test",
    max_images: int | None = None,
    embeddings: str | Path | None = None,
    encoder: str | None = None,
    device: str = "auto",
) -> EvaluateResult:
    """Measure a saved model on a split.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    images : str, optional
        Image spec; None takes the pictures of training.
    split : str
    max_images : int, optional
        A stratified subset.
    embeddings : str or Path, optional
        File of vectors made elsewhere, in place of pictures.
    encoder : str, optional
        Where the encoder lies now.
    device : str

    Raises
    ------
    InputError
        If the pictures have no labels or other classes than the model, or the encoder has changed.
    """
    stored = load_model(model)
    held = _open_split(stored, images, split, max_images, embeddings, encoder, device)
    source = str(embeddings) if embeddings is not None else str(getattr(held.images, "spec", images))
    return EvaluateResult(stored.path, source, split, measure(stored.classifier, held))


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
    return written


def report_run(
    model: str | Path,
    *,
    output: str | Path | None = None,
    images: str | None = None,
    split: str = "test",
    max_images: int | None = None,
    examples: int = 12,
    encoder: str | None = None,
    device: str = "auto",
) -> ReportResult:
    """Write the page of a saved model; by default ``report.html`` in the output folder of its run."""
    stored = load_model(model)
    held = _open_split(stored, images, split, max_images, None, encoder, device)
    metrics = measure(stored.classifier, held) if held.labels is not None else None
    title = str(stored.metadata.get("config") or stored.path.name)
    page, _ = make_report(stored, held, metrics, title=title, examples=examples)
    given = Path(model)
    path = Path(output) if output is not None else (given if stored.path != given else given.parent) / "report.html"
    write_text(path, page)
    return ReportResult(path, len(held.vectors), len(page.encode()))


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
    stored = load_model(model)
    for name in check:
        if name is not None and name not in stored.class_names:
            from sparsecbm._errors import unknown

            raise unknown("class", name, stored.class_names)
    made = model_encoder(stored, encoder, device=device)
    return stored, pictures, made.encode_images(pictures)


def _open_split(
    stored: StoredModel,
    images: str | None,
    split: str,
    max_images: int | None,
    embeddings: str | Path | None,
    encoder: str | None,
    device: str,
) -> EmbeddedSplit:
    start = time.perf_counter()
    if embeddings is not None:
        if images is not None:
            raise InputError("give either pictures (--images) or vectors (--embeddings), not both")
        return _vectors(stored, embeddings, split, start)
    config = stored.images
    if images is not None:
        config = ImagesConfig(spec=images)
    if config is None:
        raise InputError(
            f"model {str(stored.path)!r} was trained on embeddings made elsewhere: "
            "give the pictures with --images, or vectors with --embeddings"
        )
    from sparsecbm.embeddings import embed_images

    if max_images is not None:
        config = config.model_copy(
            update={"max_train": max_images, "max_validation": max_images, "max_test": max_images}
        )
    source = open_images(config, split)
    _same_classes(stored, source.class_names, config.spec)
    made = embed_images(model_encoder(stored, encoder, device=device), source, cache="disk-or-memory")
    seconds = time.perf_counter() - start
    return EmbeddedSplit(made.vectors, made.labels, list(made.ids), source, seconds, made.provenance)


def _vectors(stored: StoredModel, path: str | Path, split: str, start: float) -> EmbeddedSplit:
    from sparsecbm.embeddings import load_embeddings

    made = load_embeddings(path, split)
    d = stored.classifier.n_features_in_
    if made.dim != d:
        raise InputError(f"{str(path)!r} holds {made.dim}-d vectors; the model expects {d}-d ones")
    _same_classes(stored, made.class_names, str(path))
    ids = list(made.ids) or [f"{split}/{i}" for i in range(len(made))]
    return EmbeddedSplit(made.vectors, made.labels, ids, None, time.perf_counter() - start, made.provenance)


def _same_classes(stored: StoredModel, names: Sequence[str], what: str) -> None:
    """Refuse data whose labels mean other classes: the accuracy would be nonsense (as a published 11% on Pets was)."""
    known: Any = stored.metadata.get("label_names")
    if not known or not names or list(names) == list(known):
        return
    for k, (theirs, ours) in enumerate(zip(names, known)):
        if theirs != ours:
            raise InputError(f"class {k} is {theirs!r} in {what!r} and {ours!r} in the model: the labels do not match")
    raise InputError(f"{what!r} has {len(names)} classes and the model {len(known)}: the labels do not match")
