"""The run of `sparsecbm edit`: suppress concepts in a saved model, see what it does, undo it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import remove_leftovers, replace_folder
from sparsecbm.estimators.storage import run_config
from sparsecbm.explain.interventions import ModelEdits
from sparsecbm.inputs.data import one_class
from sparsecbm.inputs.model_data import DataOptions, open_split
from sparsecbm.inputs.models import load_model
from sparsecbm.runs.base import Result
from sparsecbm.runs.folders import default_output, model_checksum, remove_evaluations

if TYPE_CHECKING:
    from typing_extensions import Unpack


@dataclass(frozen=True)
class EditResult(Result):
    """What `edit_run` did.

    Attributes
    ----------
    model : Path
        Folder the edited model lies in.
    undone : int
        Steps taken back.
    lines : list of str
        The edits that stand now and what they were measured to do, in words.
    measured : dict or None
        Accuracy before and after, this time.
    notes : list of str
        What a reader should know.
    """

    model: Path
    undone: int
    lines: list[str]
    measured: dict[str, Any] | None = None
    notes: Sequence[str] = ()


def edit_run(
    model: str | Path,
    *,
    suppress: Sequence[str] = (),
    classes: Sequence[str] = (),
    undo: int = 0,
    output: str | Path | None = None,
    measure: bool = True,
    encoder: str | None = None,
    device: str = "auto",
    **data: Unpack[DataOptions],
) -> EditResult:
    """Edit a saved model; the edit is saved with it and can be undone later, bit for bit.

    Parameters
    ----------
    model : str or Path
        Model folder, or the output folder of a run.
    suppress : sequence of str
        Concepts whose head weights become 0, in one step.
    classes : sequence of str
        For these classes only; by default for all.
    undo : int
        Steps to take back first.
    output : str or Path, optional
        Folder for the edited model; None changes the model in place.
    measure : bool
        Whether to measure the accuracy before and after.
    encoder, device : str
        See `load_model`.
    **data
        Labelled pictures or vectors to measure on; see `open_split`.

    Raises
    ------
    InputError
        If a concept or class is unknown, or there is nothing to undo.
    """
    stored = load_model(model, encoder=encoder, device=device)
    loaded = model_checksum(stored.path)
    edits = ModelEdits(stored.classifier)
    undone = edits.undo(undo) if undo else 0
    if undone < undo:
        raise InputError(f"undo={undo}: the model carries {undone} edits; nothing was changed")
    if suppress:
        edits.suppress(list(suppress), list(classes) or None)
    elif classes:
        raise InputError("classes without a concept to suppress: expected both")
    found, notes = None, []
    if measure and len(edits) and (suppress or undo):
        try:
            held = open_split(stored, **data)
            one_class(held)
        except InputError as error:
            if data.get("images") or data.get("embeddings"):
                raise
            notes.append(f"Not measured: {' '.join(str(error).split())}.")
        else:
            if held.labels is None:
                notes.append("Not measured: these pictures have no labels.")
            else:
                what = data.get("embeddings") or getattr(held.images, "spec", None) or "vectors"
                on = f"{what} {data.get('split', 'test')}"
                found = edits.measure(np.asarray(held.vectors), held.labels, on=on)
    folder = stored.path if output is None else Path(output)
    if suppress or undo or output is not None:

        def write(new: Path) -> None:
            if model_checksum(stored.path) != loaded:
                raise InputError(f"model {str(stored.path)!r} was changed meanwhile: edit it again")
            stored.classifier.save(new)
            if output is not None and (config := run_config(stored.path)) is not None:
                shutil.copyfile(config, new / config.name)  # where its pictures lie
            if output is None:
                remove_evaluations(default_output(folder), keep=model_checksum(new))

        # Whatever else lies in the folder stays.
        replace_folder(folder, write, keep=True)
        remove_leftovers(folder.parent, [folder.name])
    return EditResult(folder, undone, edits.to_text().splitlines(), found, notes)
