"""The run of `sparsecbm evaluate`: a saved model's metrics, its controls, and accuracy against NEC."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError, StoredFileError
from sparsecbm._base.extras import has
from sparsecbm._base.files import atomic_path, plain, read_json, write_json, write_text
from sparsecbm.explain.html import svg_file
from sparsecbm.inputs.model_data import DataOptions, model_class_texts, open_split, training_split
from sparsecbm.inputs.models import StoredModel, load_model
from sparsecbm.inputs.words import word_vectors
from sparsecbm.runs.base import Result
from sparsecbm.runs.folders import evaluation_files, model_checksum, output_folder, publish, remove_evaluations
from sparsecbm.runs.measure import concept_truth, meaningless_map, measure

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparsecbm.embeddings import Embeddings
    from sparsecbm.evaluation import ControlReport


MAX_CONTROL_TRAIN = 20_000
"""Training images of the controls; of more, a stratified subset, and the model's own recipe is trained on it too."""

MAX_PATH_WORK = (5e8, 2e9)
"""Training images x concepts x classes up to which accuracy against NEC is followed without being asked for: at all
points (up to half a minute for each of three curves, on one core), and at NEC = 5 and 30 alone."""


@dataclass(frozen=True)
class EvaluateResult(Result):
    """What `evaluate_run` measured.

    Attributes
    ----------
    model : Path
        Folder of the model.
    images, split : str
        What it was measured on.
    metrics : dict
        See `measure`.
    controls : dict or None
        `ControlReport.to_json` (``table``, ``rows`` in words, ``paths`` of accuracy against NEC, ``skipped``,
        ``warnings``, ``verdict``) and the ``labels`` of its names.
    confused : list of dict
        Up to five pairs of ``class`` and ``predicted`` that were confused most often, and the ``count``.
    notes : list of str
        What a reader should know.
    seconds : float
        Wall time.
    checksum : str
        SHA-256 of the model's description: what an evaluation beside a model is told by from that of an older one.
    files : dict of str to Path
        What was written.
    """

    model: Path
    images: str
    split: str
    metrics: dict[str, Any]
    controls: dict[str, Any] | None = None
    confused: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()
    seconds: float = 0.0
    checksum: str = ""
    files: Mapping[str, Path] = field(default_factory=dict)


def evaluate_run(
    model: str | Path,
    *,
    controls: bool = True,
    train_split: str | None = None,
    words: str | Path | None = None,
    seeds: int = 1,
    nec: Sequence[int] | None = None,
    output: str | Path | None = None,
    encoder: str | None = None,
    device: str = "auto",
    **data: Unpack[DataOptions],
) -> EvaluateResult:
    """Measure a saved model on a split, beside its controls.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    controls : bool
        Whether to train the controls (see `sparsecbm.evaluation.run_controls`) on the model's training data.
    train_split : str, optional
        Split that holds the training data (of the `embeddings` file, if that is given); None takes what the model
        remembers.
    words : str or Path, optional
        Other words for the control of random concepts: a text file with a word a line, embedded by the model's
        encoder, or an .npz with their ``embeddings`` and ``names``. None draws everyday abstract words.
    seeds : int
        Repetitions of the random controls; with more than one, the model's own recipe is repeated as well.
    nec : sequence of int, optional
        Concepts per class of the accuracy-against-NEC path. None: 5, 10, ..., 30 (and 1, 2, 3 for few concepts), fewer
        where that would take many minutes; an empty sequence leaves the path out.
    output : str or Path, optional
        Folder to write ``SPLIT.json``, ``SPLIT-confusion.csv``, ``SPLIT-nec.png`` and ``SPLIT-reliability.svg`` (where
        pictures know concepts) to, in the place of those of any
        other model, and to keep in ``checkpoint/``, while it works, what the same call resumes from; None writes
        nothing.
    encoder, device : str
        See `load_model`.
    **data
        What to measure on; see `open_split`.

    Returns
    -------
    EvaluateResult

    Raises
    ------
    InputError
        If the pictures have no labels or other classes than the model, or the encoder has changed.
    StoredFileError
        If the output folder cannot be written, or another run is at work there; found out before the work begins.
    """
    if seeds < 1:
        raise InputError(f"seeds={seeds!r}: expected at least 1")
    if nec is not None and any(k < 1 for k in nec):
        raise InputError(f"nec={tuple(nec)!r}: expected concepts per class, each at least 1")
    if words is not None and not Path(words).is_file():
        raise StoredFileError(f"there is no file of words {str(words)!r}: expected a word a line, or an .npz")
    start = time.perf_counter()
    stored = load_model(model, encoder=encoder, device=device)
    checksum = model_checksum(stored.path)
    images, split, embeddings = data.get("images"), data.get("split", "test"), data.get("embeddings")
    with contextlib.nullcontext() if output is None else output_folder(Path(output)) as checkpoint:
        held = open_split(stored, **data)
        if embeddings is not None:
            source = str(embeddings)
        elif held.images is None and stored.embeddings is not None:
            source = stored.embeddings.path
        else:
            source = str(getattr(held.images, "spec", images))
        metrics = measure(stored.classifier, held, model_class_texts(stored, held))
        found, confused = _confusion(stored, held)
        notes: list[str] = []
        if images is None and _is_training(stored, split, train_split):
            notes.append("These are the pictures the model was trained on: measure on others to know how good it is.")
        tried = None
        if controls:
            try:
                training = training_split(stored, embeddings, train_split)
            except (InputError, OSError) as error:
                notes.append(f"No controls: the training data cannot be had: {' '.join(str(error).split())}.")
            else:
                if held.multilabel:
                    notes.append("No controls where classes do not exclude each other, beyond meaningless directions.")
                    metrics |= meaningless_map(stored.classifier, training, held)
                else:
                    bank = word_vectors(stored, held, words, seeds)
                    tried = _controls(stored, held, training, bank, seeds, nec, notes, checkpoint)
        result = EvaluateResult(
            stored.path,
            source,
            split,
            metrics,
            controls=None if tried is None else _in_words(tried, words),
            confused=confused,
            notes=notes,
            seconds=time.perf_counter() - start,
            checksum=checksum,
        )
        return result if output is None else _save(result, Path(output), found, stored)


def _in_words(report: ControlReport, words: str | Path | None) -> dict[str, Any]:
    """JSON values of a report; words that the user gave are not called random."""
    from sparsecbm.evaluation.controls import ROWS

    found = plain(report.to_json())
    found["labels"] = {name: label for name, (label, _) in ROWS.items()}
    if words is not None:
        label = "Given words"
        found["labels"]["random_words"] = label
        for row in found["rows"]:
            if row["name"] == ROWS["random_words"][0]:
                row.update(name=label, note=f"the same recipe on the words of {Path(words).name}")

        def renamed(line: str) -> str:
            return line.replace("Random words", label).replace("random words", label.lower())

        found["verdict"] = found["verdict"] and renamed(found["verdict"])
        found["warnings"] = [renamed(line) for line in found["warnings"]]
    return found


def _controls(
    stored: StoredModel,
    held: Embeddings,
    training: Embeddings,
    bank: tuple[np.ndarray | None, str | None],
    seeds: int,
    nec: Sequence[int] | None,
    notes: list[str],
    checkpoint_dir: Path | None,
) -> ControlReport:
    from sparsecbm.data.splits import stratified_subset
    from sparsecbm.embeddings import cache_dir
    from sparsecbm.evaluation import ProbeInDisguiseWarning, nec_grid, run_controls, unfitted

    classifier = stored.classifier
    whole = len(training)
    if whole > MAX_CONTROL_TRAIN:
        training = training.select(stratified_subset(training.labels, whole, MAX_CONTROL_TRAIN))
        notes.append(
            f"The controls are trained on {len(training):,} of {whole:,} images: compare them with the model's own "
            "recipe, trained again on these."
        )
    n_concepts, n_classes = len(classifier.concept_names_), len(classifier.classes_)
    sizes = nec_grid(n_concepts) if nec is None else tuple(sorted({k for k in nec if k <= n_concepts}))
    work = len(training) * n_concepts * n_classes
    if nec is None and work > MAX_PATH_WORK[0]:
        sizes = (5, 30) if work <= MAX_PATH_WORK[1] else ()
        notes.append(
            f"Accuracy against NEC is {'followed at 5 and 30 only' if sizes else 'left out'}: {len(training):,} images "
            f"x {n_concepts:,} concepts x {n_classes:,} classes take minutes; ask for more with --nec 5,10,30."
        )
    vectors, why = bank
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeInDisguiseWarning)  # `measure` says it
        report = run_controls(
            unfitted(classifier),
            np.asarray(training.vectors),
            np.asarray(training.labels),
            np.asarray(held.vectors),
            np.asarray(held.labels),
            classifier.concept_embeddings_,
            fitted=classifier,
            retrain=seeds > 1 or len(training) < whole,
            random_word_embeddings=vectors,
            n_seeds=seeds,
            nec=sizes,
            truth=concept_truth(classifier.concept_names_, held),
            checkpoint_dir=checkpoint_dir,
            cache_dir=cache_dir() / "controls",
            verbose=None,
        )
    if why is not None:
        report.skipped["random_words"] = why
    return report


def _is_training(stored: StoredModel, split: str, train_split: str | None) -> bool:
    remembered = stored.embeddings
    return split in {"train", train_split, None if remembered is None else remembered.train}


def _confusion(stored: StoredModel, held: Embeddings) -> tuple[list[list[Any]], list[dict[str, Any]]]:
    """Table of the confusions of the model's classes, a row a class under headings, and the pairs most often confused.

    Of classes that do not exclude each other: in how many pictures each is there, is said, and both.
    """
    from sklearn.metrics import confusion_matrix

    classifier, names = stored.classifier, stored.class_names
    X = held.vectors
    predicted = np.concatenate([classifier.predict(X[i : i + 8192]) for i in range(0, len(X), 8192)])
    if held.multilabel:
        truth = np.asarray(held.labels)
        counts = np.stack([truth.sum(axis=0), predicted.sum(axis=0), (truth & predicted).sum(axis=0)], axis=1)
        return [["class", "there", "said", "both"], *([name, *row] for name, row in zip(names, counts.tolist()))], []
    matrix = confusion_matrix(np.asarray(held.labels), predicted, labels=classifier.classes_)
    errors = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-errors, axis=None, kind="stable")[:5]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, errors.shape)) if errors[i, j]]
    table = [["true \\ predicted", *names], *([name, *row] for name, row in zip(names, matrix.tolist()))]
    return table, [{"class": names[i], "predicted": names[j], "count": int(errors[i, j])} for i, j in pairs]


def _save(result: EvaluateResult, folder: Path, rows: list[list[Any]], stored: StoredModel) -> EvaluateResult:
    names = evaluation_files(re.sub(r"[^\w.-]+", "_", result.split))
    confusion, drawn, reliability, metrics = (folder / name for name in names)

    def saved(plotted: bool) -> EvaluateResult:
        plot = {"plot": drawn} if plotted else {}
        plot |= {"reliability": reliability} if "concepts" in result.metrics else {}
        return dataclasses.replace(result, files={"metrics": metrics, "confusion": confusion, **plot})

    if result.controls is None and _same_numbers(metrics, result):
        # A quick look at the same numbers leaves the controls of the thorough one where they are.
        return saved(drawn.is_file())
    done = saved(bool((result.controls or {}).get("paths")) and has("matplotlib"))

    def write(new: Path) -> None:
        if model_checksum(stored.path) != result.checksum:
            raise InputError(f"model {str(stored.path)!r} was changed while it was evaluated: evaluate it again")
        remove_evaluations(folder, keep=result.checksum)
        table = io.StringIO()
        csv.writer(table, lineterminator="\n").writerows(rows)
        write_text(new / confusion.name, table.getvalue())
        if "plot" in done.files:
            with atomic_path(new / drawn.name) as temporary:
                nec_figure(result).savefig(temporary, format="png", dpi=150)
        if "reliability" in done.files:
            label = "Probabilities of concepts against their truth"
            write_text(new / reliability.name, svg_file("reliability", result.metrics["concepts"], label))
        write_json(new / metrics.name, done.to_json())

    publish(folder, names, write)
    return done


def _same_numbers(path: Path, result: EvaluateResult) -> bool:
    try:
        found = read_json(path)
    except StoredFileError:
        return False
    new = result.to_json()
    same = ("model", "checksum", "images", "metrics")
    return isinstance(found, dict) and all(found.get(key) == new[key] for key in same)


def nec_figure(result: EvaluateResult) -> Any:
    """Draw accuracy against NEC, with the controls in it.

    Raises
    ------
    InputError
        If the evaluation followed no path.
    """
    from sparsecbm.explain.nec_plot import plot_nec

    controls = result.controls or {}
    if not controls.get("paths"):
        raise InputError("this evaluation holds no accuracy against NEC: evaluate with controls")
    labels = controls["labels"]
    rows = {row["name"]: row for row in controls["table"]}
    lines = {name: [(point["nec"], point["accuracy"]) for point in path] for name, path in controls["paths"].items()}
    levels = {name: rows[name]["accuracy"] for name in ("linear_probe", "nearest_mean") if name in rows}
    n = result.metrics["n_images"]
    return plot_nec(
        {"The model's concepts" if name == "concepts" else labels[name]: points for name, points in lines.items()},
        levels={labels[name]: level for name, level in levels.items()},
        model=(result.metrics["nec"], result.metrics["accuracy"]),
        title=f"Accuracy against concepts per class: {Path(result.images).name}, {result.split}, {n:,} pictures",
    )
