"""`compare_data_run`: have a model's concepts moved since it was trained?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.extras import require
from sparsecbm._base.files import atomic_path, plain
from sparsecbm.config.schema import ImagesConfig
from sparsecbm.inputs.data import embed_pictures, open_images, read_vectors
from sparsecbm.inputs.models import load_model
from sparsecbm.runs.base import Result

if TYPE_CHECKING:
    from sparsecbm.data.base import OnError
    from sparsecbm.evaluation.drift import ConceptDrift, ConceptStatistics

USAGE = "usage"
"""Where the statistics of the pictures that a model was measured on stand in its ``metadata_``."""
_ROWS = 4096


@dataclass(frozen=True)
class CompareDataResult(Result):
    """What `compare_data_run` found.

    Attributes
    ----------
    model : Path
    n_before, n_now : int
        Pictures.
    active_before, active_now : float
        Active concepts of a picture, on average.
    concepts : sequence of ConceptDrift
        The largest effect first.
    plot : Path or None
        The picture drawn.
    skipped : sequence of (str, str)
        Unreadable pictures.
    """

    model: Path
    n_before: int
    n_now: int
    active_before: float
    active_now: float
    concepts: Sequence[ConceptDrift]
    plot: Path | None = None
    skipped: Sequence[tuple[str, str]] = ()

    @property
    def drifted(self) -> list[ConceptDrift]:
        """Concepts that moved by more than a small effect, and by more than chance among so many."""
        from sparsecbm.evaluation.drift import SMALL  # takes seconds to import

        return [row for row in self.concepts if row.p < 0.05 and row.size >= SMALL]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        drifted = {row.concept for row in self.drifted}
        rows = [{**vars(row), "drifted": row.concept in drifted} for row in self.concepts]
        return plain({**vars(self), "concepts": rows})


def usage_of(model: Any, vectors: np.ndarray) -> ConceptStatistics:
    """Measure the concepts of a fitted model on embeddings (n, d), some rows at a time."""
    from sparsecbm.evaluation.drift import ConceptStatistics

    made: ConceptStatistics | None = None
    for start in range(0, len(vectors), _ROWS):
        rows = np.asarray(vectors[start : start + _ROWS])
        part = ConceptStatistics.of(model.transform(rows), model.concept_scores(rows))
        made = part if made is None else made.with_more(part)
    if made is None:
        raise InputError("there are no pictures: expected at least two")
    return made


def noted_usage(statistics: ConceptStatistics) -> dict[str, Any]:
    """Statistics as JSON values, for ``metadata_``."""
    rounded = {name: np.round(getattr(statistics, name), 5) for name in ("mean", "variance")}
    return plain({"n": statistics.n, "active": statistics.active, **rounded})


def compare_data_run(
    model: str | Path,
    *,
    images: str | None = None,
    split: str = "test",
    embeddings: str | Path | None = None,
    plot: str | Path | None = None,
    encoder: str | None = None,
    on_error: OnError = "raise",
    device: str = "auto",
) -> CompareDataResult:
    """Compare new pictures with those that a model was measured on when it was trained; no labels are needed.

    Parameters
    ----------
    model : str or Path
    images : str, optional
        A folder or file of pictures, or an image spec.
    split : str
        Of a spec, or of the vectors.
    embeddings : str or Path, optional
        File of vectors made elsewhere, in place of pictures.
    plot : str or Path, optional
        Picture to draw: ``.png``, ``.svg`` or ``.pdf``.
    encoder, on_error, device
        See `predict_run`.

    Raises
    ------
    InputError
        If there are no pictures, or the model does not hold what to compare them with.
    """
    from sparsecbm.evaluation.drift import concept_drift

    if (images is None) == (embeddings is None):
        raise InputError("give either pictures (--images) or vectors (--embeddings)")
    stored = load_model(model, inference=True, encoder=encoder, device=device)
    before = _before(stored.metadata.get(USAGE), len(stored.classifier.concept_names_), stored.path)
    skipped: Sequence[tuple[str, str]] = ()
    if embeddings is not None:
        vectors = read_vectors(embeddings, split).vectors
    else:
        from sparsecbm.data.files import picture_files

        assert images is not None
        here = Path(images).exists()
        source = picture_files([images], on_error) if here else open_images(_config(images, on_error), split)
        with stored.within_domain() as made_by:
            vectors, skipped = embed_pictures(made_by, source).vectors, tuple(source.skipped)
    if vectors.shape[1] != stored.classifier.n_features_in_:
        raise InputError(f"{vectors.shape[1]}-d vectors; the model expects {stored.classifier.n_features_in_}-d ones")
    now = usage_of(stored.classifier, vectors)
    rows = concept_drift(stored.classifier.concept_names_, before, now)
    result = CompareDataResult(
        stored.path,
        before.n,
        now.n,
        float(before.active.sum() / before.n),
        float(now.active.sum() / now.n),
        rows,
        None if plot is None else Path(plot),
        skipped,
    )
    if plot is not None:
        _draw(result, Path(plot))
    return result


def _config(spec: str, on_error: str) -> ImagesConfig:
    return ImagesConfig.model_validate({"spec": spec, "on_error": on_error})


def _before(noted: Mapping[str, Any] | None, n_concepts: int, path: Path) -> ConceptStatistics:
    from sparsecbm.evaluation.drift import ConceptStatistics

    try:
        parts: Iterable[np.ndarray] = [np.asarray((noted or {})[key]) for key in ("active", "mean", "variance")]
        made = ConceptStatistics(int((noted or {})["n"]), *parts)
        if all(part.shape == (n_concepts,) and np.isfinite(part).all() for part in parts):
            return made
    except (KeyError, TypeError, ValueError):
        pass
    raise InputError(
        f"model {str(path)!r} does not hold the statistics of its concepts: it is older than they are; "
        "train it again with `sparsecbm train`"
    )


def _draw(result: CompareDataResult, path: Path, most: int = 20) -> None:
    require("matplotlib", "plots", "a plot")
    import matplotlib.pyplot as plt

    rows = result.concepts[:most][::-1]
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.3 * len(rows)), layout="constrained")
    for offset, effect, label in ((0.2, "score", "mean score, in sd"), (-0.2, "usage", "share active, Cohen's h")):
        values = [getattr(row, effect) for row in rows]
        bars = axes.barh(np.arange(len(rows)) + offset, values, 0.38, label=label)
        for bar, row in zip(bars, rows):
            bar.set_alpha(1.0 if row.p < 0.05 else 0.35)
    axes.set_yticks(range(len(rows)), [row.concept for row in rows])
    axes.axvline(0, color="black", lw=0.8)
    axes.set_title(f"{len(result.drifted)} of {len(result.concepts)} concepts moved (pale: within chance)")
    axes.legend(loc="lower right", fontsize="small")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix.removeprefix(".") or "png", dpi=150)
    plt.close(figure)
