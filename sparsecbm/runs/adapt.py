"""The run of `sparsecbm adapt`: an encoder whose image tower has learned to see the concepts of one data set."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import plain, write_json
from sparsecbm._base.launch import is_main_process
from sparsecbm.config.schema import RunConfig
from sparsecbm.inputs.data import Inputs, embed_pictures, open_encoder, open_images, prepare
from sparsecbm.runs.base import Result
from sparsecbm.runs.folders import output_folder, publish

RESULTS = ("encoder", "adapt.json")


@dataclass(frozen=True)
class AdaptResult(Result):
    """What `adapt_run` made.

    Attributes
    ----------
    encoder : str
        Spec of the adapted encoder, for ``encoder.spec`` of any configuration.
    fingerprint : str
        Its own; empty, as are the measures, in processes other than the first.
    before, after : dict
        ``accuracy`` on test pictures of a linear read-out of the concept scores, and, where the truth of concepts is
        known, ``concept_auc``.
    drift : dict
        How far concept scores agree with the frozen encoder's on other pictures (of `other`, else the test pictures):
        ``alignment``, the mean correlation, and ``survival``, each 1 where nothing moved; and ``pictures``.
    concept_loss : str
        What held the concepts: "labels", "class concepts" or "frozen scores".
    seconds : float
        Of training.
    """

    encoder: str
    fingerprint: str
    before: dict[str, float]
    after: dict[str, float]
    drift: dict[str, Any]
    concept_loss: str
    seconds: float


def adapt_run(config: RunConfig, *, other: str | None = None) -> AdaptResult:
    """Train low-rank adapters through the concepts of a configuration, and write the encoder with them.

    Parameters
    ----------
    config : RunConfig
        `config.adapt` has the options. In an ``accelerate launch`` every process must call this; the first one writes.
    other : str, optional
        Image spec whose test pictures the drift is measured on.

    Raises
    ------
    InputError
        If the configuration reads vectors, peft is missing, or there is nothing to adapt.
    """
    from sparsecbm.encoders.adapting import AdaptOptions, adapt, save_encoder

    if config.embeddings is not None:
        raise InputError("an encoder is adapted on pictures: this configuration reads embeddings made elsewhere")
    output = Path(config.output or Path("runs") / f"{config.name}-adapted")
    with output_folder(output, RESULTS, lambda folder: (folder / "adapt.json").is_file()) as checkpoint:
        inputs = prepare(config)
        train, test = inputs.splits["train"], inputs.splits.get("test")
        encoder = open_encoder(config.encoder)
        images = config.images if other is None else config.images.model_copy(update={"spec": other, "splits": None})
        elsewhere: Any = open_images(images, "test")
        then = encoder.encode_images(elsewhere)
        known = _concept_labels(inputs)
        labels = np.unique(np.asarray(train.labels), return_inverse=True)[1]
        start = time.perf_counter()
        adapt(
            encoder, train.images, labels, inputs.bank.vectors, np.asarray(train.vectors),  # type: ignore[arg-type]
            concept_labels=known, options=AdaptOptions(**config.adapt.model_dump()), seed=config.seed,
            device=config.encoder.device, checkpoint_dir=checkpoint,
        )  # fmt: skip
        seconds = time.perf_counter() - start
        if not is_main_process():
            return AdaptResult(str(output / "encoder"), "", {}, {}, {}, "", seconds)
        held = "frozen scores" if known is None else "labels" if _truth(train, inputs) is not None else "class concepts"
        before, after = {}, {}
        if test is not None and test.labels is not None:
            before = _measure(inputs, train, test)
            new = [embed_pictures(encoder, part.images, cache="memory") for part in (train, test)]  # type: ignore[arg-type]
            after = _measure(inputs, *new)
        drift = _drift(inputs.bank.vectors, then, encoder.encode_images(elsewhere))
        kind: list[str] = []

        def write(folder: Path) -> None:
            kind.append(save_encoder(encoder, folder / "encoder") + str((output / "encoder").absolute()))
            write_json(folder / "adapt.json", plain({**result(kind[0]).to_json(), "config": config.model_dump()}))

        def result(spec: str) -> AdaptResult:
            return AdaptResult(spec, encoder.fingerprint, before, after, drift, held, seconds)

        publish(output, RESULTS, write)
    return result(kind[0])


def _truth(part: Any, inputs: Inputs) -> np.ndarray | None:
    """Truth of the concepts of each picture, where the source has it (painted birds)."""
    from sparsecbm.data.birds import ATTRIBUTE_NAMES

    found = getattr(part.images, "attributes", None)
    if found is None or not set(inputs.bank.names) <= set(ATTRIBUTE_NAMES):
        return None
    return np.asarray(found)[:, [ATTRIBUTE_NAMES.index(name) for name in inputs.bank.names]]


def _concept_labels(inputs: Inputs) -> np.ndarray | None:
    """Labels of concepts of the training pictures: their truth, or what a concept file says of their classes."""
    train, relevance = inputs.splits["train"], inputs.bank.relevance
    found = _truth(train, inputs)
    if found is None and relevance is not None:
        found = relevance[np.asarray(train.labels)] > 0
    return None if found is None else found.astype(np.float32)


def _measure(inputs: Inputs, train: Any, test: Any) -> dict[str, float]:
    from sparsecbm.estimators import LinearProbe
    from sparsecbm.evaluation import concept_auc

    scores, held = (np.asarray(part.vectors) @ inputs.bank.vectors.T for part in (train, test))
    labels = np.asarray(train.labels)
    found = {"accuracy": float(LinearProbe().fit(scores, labels).score(held, np.asarray(test.labels)))}
    truth = _truth(test, inputs)
    return found if truth is None else {**found, "concept_auc": concept_auc(held, truth).mean}


def _drift(concepts: np.ndarray, then: np.ndarray, now: np.ndarray) -> dict[str, Any]:
    from sparsecbm.evaluation import name_alignment, survival

    scores = now @ concepts.T, then @ concepts.T
    return {"alignment": name_alignment(*scores).mean, "survival": survival(*scores).mean, "pictures": len(then)}
