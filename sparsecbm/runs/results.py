"""What each run returns: typed, printable as JSON, free of torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sparsecbm.explain import Ledger, Ledgers


def plain(value: Any) -> Any:
    """Turn numpy values, paths and tuples into JSON values; NaN and infinity, which JSON lacks, become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(held) for key, held in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, (list, tuple, set)):
        return [plain(held) for held in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True)
class EmbedResult:
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

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))


@dataclass(frozen=True)
class TrainResult:
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


@dataclass(frozen=True)
class EvaluateResult:
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
    files: Mapping[str, Path] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one picture, best first, and how many concepts carried them."""

    source: str
    classes: Sequence[tuple[str, float]]
    n_active: int

    @property
    def label(self) -> str:
        """The predicted class."""
        return self.classes[0][0]

    @property
    def probability(self) -> float:
        """Its softmax probability, in [0, 1]."""
        return self.classes[0][1]


@dataclass(frozen=True)
class PredictResult:
    """What `predict_run` saw; `skipped` holds name and reason of unreadable pictures."""

    model: Path
    predictions: Sequence[Prediction]
    skipped: Sequence[tuple[str, str]] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        rows = [
            {
                "image": made.source,
                "class": made.label,
                "probability": made.probability,
                "active_concepts": made.n_active,
                "top": [{"class": name, "probability": p} for name, p in made.classes],
            }
            for made in self.predictions
        ]
        return plain({"model": self.model, "predictions": rows, "skipped": self.skipped})


@dataclass(frozen=True, eq=False)
class ExplainResult:
    """The ledgers of `explain_run`, and the pictures they explain."""

    model: Path
    ledgers: Ledgers
    shown: Sequence[Ledger]
    images: Sequence[Any] = field(default=(), repr=False)
    skipped: Sequence[tuple[str, str]] = ()

    def to_json(self, k: int = 10) -> dict[str, Any]:
        """As JSON values; `k` lines a picture, the rest summed."""
        rows = []
        for ledger in self.shown:
            count, remainder = ledger.rest(k)
            rows.append(
                {
                    "image": ledger.source,
                    "class": ledger.target,
                    "against": ledger.against,
                    "probability": ledger.probability,
                    "score": ledger.score,
                    "bias": ledger.bias,
                    "active_concepts": ledger.n_active,
                    "contributions": [entry._asdict() for entry in ledger.top(k)],
                    "others": {"count": count, "contribution": remainder},
                }
            )
        return plain({"model": self.model, "explanations": rows, "skipped": self.skipped})


@dataclass(frozen=True)
class ReportResult:
    """The page that `report_run` wrote."""

    path: Path
    n_images: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))


@dataclass(frozen=True)
class InfoResult:
    """Versions, devices, folders, and what can be chosen by name."""

    versions: dict[str, str]
    devices: list[str]
    cache: str
    cache_bytes: int
    configs: list[str]
    choices: dict[str, list[str]]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))


@dataclass(frozen=True)
class VaeResult:
    """What `vae_run` made: the output folder, and the content of its ``metrics.json``."""

    output: Path
    metrics: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(vars(self))
