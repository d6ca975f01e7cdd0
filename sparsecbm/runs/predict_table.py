"""Predictions of any number of pictures as one table on disk, written as they are made.

Pictures are embedded through the cache, a shard at a time: memory does not grow with their number, and a run that was
killed goes on where it was. The table takes its place when it is whole.
"""

from __future__ import annotations

import contextlib
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecbm._base.errors import StoredFileError, unknown
from sparsecbm._base.files import atomic_path, check_free, remove_leftovers
from sparsecbm._base.progress import ProgressBar
from sparsecbm.data.files import picture_files
from sparsecbm.inputs.data import embed_pictures
from sparsecbm.inputs.models import load_model
from sparsecbm.runs.base import Result
from sparsecbm.runs.predict import Prediction, check_probability, predictions

if TYPE_CHECKING:
    from sparsecbm.data.base import OnError

_Rows = Iterable[Sequence[Any]]
_Write = Callable[[_Rows], None]


@dataclass(frozen=True)
class TableResult(Result):
    """What `predict_table` wrote.

    Attributes
    ----------
    model, path : Path
    n_images : int
        Rows of the table.
    classes : dict of str to int
        How many pictures got each class, the most frequent first.
    notes : dict of str to int
        How many got none, and why.
    skipped : sequence of (str, str)
        Name and reason of unreadable pictures; they are the last rows.
    """

    model: Path
    path: Path
    n_images: int
    classes: dict[str, int]
    notes: dict[str, int]
    skipped: Sequence[tuple[str, str]] = field(default=())


def predict_table(
    model: str | Path,
    images: Sequence[str | Path],
    output: str | Path,
    *,
    top: int = 3,
    min_probability: float = 0.0,
    force: bool = False,
    encoder: str | None = None,
    on_error: OnError = "raise",
    device: str = "auto",
) -> TableResult:
    """Classify picture files into a table, a row a picture.

    Parameters
    ----------
    model, images, top, min_probability, encoder, on_error, device
        See `predict_run`.
    output : str or Path
        ``.csv`` or ``.parquet``. Columns: ``picture``, ``class`` (empty where it is withheld), ``probability``,
        ``active_concepts``, ``note`` (why it is withheld), and ``class_2``, ``probability_2``, ... up to `top`; where
        classes do not exclude each other also ``classes``, all that are said, with semicolons between.
    force : bool
        Replace a file that is there.

    Raises
    ------
    InputError
        If the name has another ending, the file is there, or as `predict_run`.
    StoredFileError
        If it cannot be written.
    """
    path = Path(output)
    if path.suffix.lower() not in _WRITERS:
        raise unknown("ending of a table", path.suffix, tuple(_WRITERS))
    check_free(path, force)
    check_probability(min_probability)
    pictures = picture_files(images, on_error)
    stored = load_model(model, inference=True, encoder=encoder, device=device)
    with stored.within_domain() as made_by:
        vectors = embed_pictures(made_by, pictures).vectors
    runners = range(2, min(top, len(stored.class_names)) + 1)
    columns = {"picture": str, "class": str, "probability": float, "active_concepts": int, "note": str}
    several = {"classes": str} if stored.classifier.multilabel_ else {}
    columns |= several | {
        f"{name}_{k}": kind for k in runners for name, kind in (("class", str), ("probability", float))
    }
    classes: Counter[str] = Counter()
    notes: Counter[str] = Counter()

    def row(made: Prediction) -> list[Any]:
        (notes if made.note else classes).update([made.note] if made.note else made.said)
        first = [made.source, None if made.note else made.label, made.probability, made.n_active, made.note]
        first += ["; ".join(made.said)] * len(several)
        return [*first, *(value for pair in made.classes[1 : len(runners) + 1] for value in pair)]

    with atomic_path(path) as temporary, _WRITERS[path.suffix.lower()](temporary, columns) as write:
        with ProgressBar("Writing predictions", len(vectors)) as bar:
            for block in predictions(stored, pictures.ids, vectors, top, min_probability):
                write(map(row, block))
                bar.update(len(block))
        blank = [None] * (2 * len(runners) + len(several))
        write([[name, None, None, None, f"unreadable: {reason}", *blank] for name, reason in pictures.skipped])
    remove_leftovers(path.parent, [path.name])
    if pictures.skipped:
        notes["unreadable"] = len(pictures.skipped)
    n_images = len(vectors) + len(pictures.skipped)
    return TableResult(
        stored.path, path, n_images, dict(classes.most_common()), dict(notes.most_common()), tuple(pictures.skipped)
    )


@contextlib.contextmanager
def _csv(path: Path, columns: Mapping[str, type]) -> Iterator[_Write]:
    def shown(value: Any) -> Any:
        return f"{value:.6f}" if isinstance(value, float) else value

    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(columns)
        yield lambda rows: writer.writerows([shown(value) for value in row] for row in rows)


@contextlib.contextmanager
def _parquet(path: Path, columns: Mapping[str, type]) -> Iterator[_Write]:
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    types = {str: pa.string(), float: pa.float64(), int: pa.int32()}
    schema = pa.schema([(name, types[kind]) for name, kind in columns.items()])

    def write(rows: _Rows) -> None:
        if held := list(rows):
            writer.write_table(pa.table([pa.array(part, kind) for part, kind in zip(zip(*held), schema.types)], schema))

    try:
        with ParquetWriter(path, schema) as writer:
            yield write
    except pa.ArrowException as error:  # a picture's name that is no UTF-8
        raise StoredFileError(f"cannot write the table: {error}") from error


_WRITERS: dict[str, Callable[[Path, Mapping[str, type]], contextlib.AbstractContextManager[_Write]]] = {
    ".csv": _csv,
    ".parquet": _parquet,
}
