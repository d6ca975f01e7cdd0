"""`train_run` and `embed_run`: the main job, from a configuration to a folder of results."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import atomic_write, plain, write_json, write_text
from sparsecbm._base.launch import is_main_process, is_one_of_several
from sparsecbm.config.reading import dump_config, load_config
from sparsecbm.config.schema import RunConfig
from sparsecbm.explain import Ledger
from sparsecbm.inputs.data import Inputs, prepare
from sparsecbm.inputs.models import StoredModel, is_model_folder
from sparsecbm.runs.base import Result
from sparsecbm.runs.compare_data import USAGE, noted_usage, usage_of
from sparsecbm.runs.folders import model_checksum, output_folder, publish, remove_evaluations
from sparsecbm.runs.measure import meaningless_map, measure
from sparsecbm.runs.report import make_report

if TYPE_CHECKING:
    from sparsecbm.estimators import SparseCBMClassifier


_FILES = ("model", "config.yaml", "report.html", "metrics.json")
DEMO_PICTURE = "bird.png"


@dataclass(frozen=True)
class EmbedResult(Result):
    """What `embed_run` embedded.

    Attributes
    ----------
    encoder, fingerprint : str
        Which encoder.
    dim : int
        Length of an embedding.
    splits : dict
        Per split: number of pictures, seconds, pictures skipped, cache entry.
    concepts : int
        Number of embedded concepts, after filters.
    seconds : float
        Wall time in all.
    """

    encoder: str
    fingerprint: str
    dim: int
    splits: dict[str, dict[str, Any]]
    concepts: int
    seconds: float


@dataclass(frozen=True)
class TrainResult(Result):
    """What `train_run` made.

    Attributes
    ----------
    output : Path
        Folder with ``model/``, ``metrics.json``, ``config.yaml`` and ``report.html``.
    metrics : dict
        The content of ``metrics.json``.
    example : Ledger or None
        One test picture, explained.
    """

    output: Path
    metrics: dict[str, Any]
    example: Ledger | None = None

    @property
    def model(self) -> Path:
        """Folder of the saved model."""
        return self.output / "model"

    @property
    def report(self) -> Path:
        """The HTML page."""
        return self.output / "report.html"

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain({"output": self.output, "model": self.model, "report": self.report, "metrics": self.metrics})


def embed_run(config: RunConfig) -> EmbedResult:
    """Embed the pictures of every split and the concepts, or find them embedded already.

    Raises
    ------
    InputError
        If the configuration names vectors made elsewhere, or anything in it cannot be had; see `RunConfig`.
    """
    if config.embeddings is not None:
        raise InputError("this configuration reads embeddings made elsewhere: there is nothing to embed")
    prepared = prepare(config, many=True)
    encoder = prepared.encoder or {}
    splits = {
        name: {
            "images": len(split.vectors),
            "skipped": len(split.images.skipped) if split.images is not None else 0,
            "notes": list(getattr(split.images, "notes", ())),
            "seconds": prepared.opened[name],
            "cache": split.provenance.get("cache"),
        }
        for name, split in prepared.splits.items()
    }
    return EmbedResult(
        encoder=str(encoder.get("spec")),
        fingerprint=str(encoder.get("fingerprint")),
        dim=int(prepared.bank.vectors.shape[1]),
        splits=plain(splits),
        concepts=len(prepared.bank.names),
        seconds=prepared.seconds,
    )


def train_run(config: RunConfig) -> TrainResult:
    """Train a classifier and write everything about it.

    Writes ``model/``, ``config.yaml`` (as run), ``report.html`` and ``metrics.json`` into the output folder, which
    take their places together; an ``evaluation/`` of an older model goes. While training, ``checkpoint/`` holds what
    the same call resumes from. In an ``accelerate launch`` of several processes every process must call this; the
    first one writes.

    Parameters
    ----------
    config : RunConfig

    Returns
    -------
    TrainResult
        In processes other than the first, without metrics.

    Raises
    ------
    InputError
        If the configuration asks for something that is not there or does not fit.
    StoredFileError
        If the output folder cannot be written, holds files of these names that are not of an earlier run, or another
        run is at work there; found out before the work begins.
    """
    output = Path(config.output or Path("runs") / config.name)
    with output_folder(output, _FILES, lambda folder: is_model_folder(folder / "model")) as checkpoint:
        prepared = prepare(config, many=True)
        start = time.perf_counter()
        classifier, said = _fit(config, prepared, checkpoint)
        prepared = replace(prepared, notes=(*prepared.notes, *said))
        seconds = {"embedding": prepared.seconds, "training": time.perf_counter() - start}
        if not is_main_process():
            return TrainResult(output, {})
        return _publish(config, prepared, classifier, seconds, output)


def demo_run(output: str | Path = "sparsecbm-demo", overrides: Sequence[str] = ()) -> TrainResult:
    """Train ``birds_gumbel`` into a folder of the current one: no network, no data, and no cache needed.

    One painted bird is left there, to try the other commands on.
    """
    # The cache helps a second run, but a read-only home must not stop a first look.
    base = [f"output={json.dumps(str(output))}", "encoder.cache=disk-or-memory"]
    made = train_run(load_config("birds_gumbel", [*base, *overrides]))
    if is_main_process():
        from sparsecbm.data import load_images

        picture = load_images("birds", "test", max_images=20)[0]
        atomic_write(made.output / DEMO_PICTURE, lambda handle: picture.save(handle, "PNG"))
    return made


def make_recipe(config: RunConfig, prepared: Inputs) -> tuple[SparseCBMClassifier, np.ndarray]:
    """Return the unfitted classifier of a configuration, and the labels that have training pictures."""
    from sparsecbm.estimators import SparseCBMClassifier

    bank, known = prepared.bank, _trained_classes(prepared)
    classifier = SparseCBMClassifier(
        bank.vectors,
        list(bank.names),
        concept_relevance=None if bank.relevance is None else bank.relevance[known],
        random_state=config.seed,
        **config.model.model_dump(),
    )
    return classifier, known


def _fit(config: RunConfig, prepared: Inputs, checkpoint: Path) -> tuple[SparseCBMClassifier, list[str]]:
    """Fitted classifier, and what it warned of its concepts."""
    from sparsecbm.estimators.concept_labels import ConceptWarning

    train, validation = prepared.splits["train"], prepared.splits.get("validation")
    classifier, known = make_recipe(config, prepared)
    more: dict[str, Any] = {}
    if validation is not None and validation.labels is not None:
        more = {"X_val": validation.vectors, "y_val": validation.labels}
    if prepared.concept_labels is not None:
        more["concept_labels"] = prepared.concept_labels
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConceptWarning)
        classifier.fit(train.vectors, np.asarray(train.labels), **more, checkpoint_dir=checkpoint)
    for warning in caught:
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    classifier.metadata_ = _metadata(config, prepared, known.tolist())
    return classifier, [str(warning.message) for warning in caught if warning.category is ConceptWarning]


def _metadata(config: RunConfig, prepared: Inputs, known: Sequence[int]) -> dict[str, Any]:
    from sparsecbm import __version__

    names = prepared.class_names
    return plain(
        {
            "config": config.name,
            # A class may have no training picture: the model's classes are some of the data's labels.
            "class_names": [names[k] for k in known] if names else list(map(str, known)),
            "label_names": names,
            "encoder": prepared.encoder,
            "images": None if config.embeddings is not None else config.images.model_dump(mode="json"),
            "embeddings": None if config.embeddings is None else config.embeddings.model_dump(mode="json"),
            "concepts": prepared.bank.record,
            "sparsecbm": __version__,
        }
    )


def _publish(
    config: RunConfig, prepared: Inputs, classifier: SparseCBMClassifier, seconds: dict[str, float], output: Path
) -> TrainResult:
    start = time.perf_counter()
    test = prepared.splits.get("test")
    metrics: dict[str, Any] = {
        "config": config.name,
        "seed": config.seed,
        "classes": len(prepared.class_names) or len(classifier.classes_),
        "concepts": len(prepared.bank.names),
        "encoder": prepared.encoder,
        "images": {name: len(split.vectors) for name, split in prepared.splits.items()},
        **prepared.said(),
    }
    shown = test if test is not None else prepared.splits["train"]
    metrics["test"] = None
    if test is not None and test.labels is not None:
        metrics["test"] = measure(classifier, test, _class_texts(prepared))
        metrics["test"].update(_controls(config, classifier, prepared))
        classifier.metadata_["test"] = _noted(metrics["test"])
    classifier.metadata_[USAGE] = noted_usage(usage_of(classifier, shown.vectors))
    model = StoredModel(output / "model", classifier)
    page, ledgers = make_report(
        model,
        shown,
        metrics["test"],
        title=config.name,
        examples=config.evaluation.examples,
        seed=config.seed,
        train=prepared.splits["train"] if shown is test else None,
        folder=output,
        notes=prepared.notes,
    )
    seconds["evaluation"] = time.perf_counter() - start
    metrics["seconds"] = seconds

    def write(folder: Path) -> None:
        classifier.save(folder / "model")
        write_text(folder / "config.yaml", dump_config(config))
        write_text(folder / "report.html", page)
        write_json(folder / "metrics.json", plain(metrics))
        remove_evaluations(output / "evaluation", keep=model_checksum(folder / "model"))

    publish(output, _FILES, write)
    example = next((ledger for ledger in ledgers if ledger.truth == ledger.target), None)
    return TrainResult(output, plain(metrics), example)


def _noted(test: dict[str, Any]) -> dict[str, Any]:
    """What goes with the model wherever it goes: its accuracy beside the controls, for its card."""
    kept = {
        key: test[key]
        for key in ("n_images", "accuracy", "map", "meaningless", "nec", "survival", "ece", "verdict")
        if key in test
    }
    return plain({**kept, "active": test["active_concepts"]["mean"], "controls": test.get("controls", [])[1:]})


def _class_texts(prepared: Inputs) -> np.ndarray | None:
    """Texts of the classes that have training pictures."""
    texts = prepared.class_texts
    return None if texts is None else texts[_trained_classes(prepared)]


def _trained_classes(prepared: Inputs) -> np.ndarray:
    """Numbers of the classes that have training pictures."""
    labels = np.asarray(prepared.splits["train"].labels)
    return np.arange(labels.shape[1]) if labels.ndim == 2 else np.unique(labels)


def _controls(config: RunConfig, classifier: SparseCBMClassifier, prepared: Inputs) -> dict[str, Any]:
    """What meaningless directions reach by the same recipe, and what needs no concepts at all reaches."""
    from sparsecbm.embeddings import cache_dir
    from sparsecbm.evaluation import ProbeInDisguiseWarning, control_table, run_controls, unfitted

    names: list[str] = []
    # Other processes of a launch are done by now: a fit here would wait for them.
    if config.evaluation.control and not is_one_of_several():
        names += ["matched_directions", "equal_freedom"]
    if config.evaluation.baseline:
        names += ["linear_probe", "nearest_mean"]
    train, test = prepared.splits["train"], prepared.splits["test"]
    if not names:
        return {}
    if train.multilabel:
        return meaningless_map(classifier, train, test) if "matched_directions" in names else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProbeInDisguiseWarning)  # `measure` says it
        report = run_controls(
            unfitted(classifier),
            np.asarray(train.vectors),
            np.asarray(train.labels),
            np.asarray(test.vectors),
            np.asarray(test.labels),
            classifier.concept_embeddings_,
            fitted=classifier,
            controls=names,
            cache_dir=cache_dir() / "controls",
            verbose=None,
        )
    found: dict[str, Any] = {"controls": control_table(report)}
    if report.advantage:
        found |= {"advantage": report.advantage, "verdict": report.verdict()}
    if "linear_probe" in report.accuracy:
        found["linear_probe"] = report.accuracy["linear_probe"][0]
    return found
