"""Refits of a recipe on other concepts, kept by data and recipe, so that no control is trained twice."""

from __future__ import annotations

import contextlib
import inspect
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from sparsecbm._base.checkpoint import fingerprint
from sparsecbm._base.errors import StoredFileError
from sparsecbm._base.files import replace_folder

KEPT = 16
"""Fitted controls in a cache folder; of more, the least recently used go."""
_NO_RECIPE = ("concept_names", "device", "log_dir", "log_with", "verbose")
"""Parameters that do not change what is fitted."""


def unfitted(classifier: Any) -> Any:
    """Return the recipe of a fitted classifier, to be trained again without a progress bar of its own.

    Directions that mean nothing have no labels: where the head of the classifier learnt on these, theirs learns on what
    they say.
    """
    made = clone(classifier)
    if getattr(classifier, "label_counts_", None) is not None and made.training != "joint":
        made.set_params(training="sequential", **({"gate": "auto"} if made.gate == "presence" else {}))
    return made.set_params(verbose=False) if "verbose" in made.get_params(deep=False) else made


def refit(
    model: Any,
    X: np.ndarray,
    y: np.ndarray,
    *,
    cache_dir: str | Path | None = None,
    checkpoint_dir: str | Path | None = None,
) -> Any:
    """Fit `model`, or find the same fit in `cache_dir`.

    Parameters
    ----------
    model : estimator
        Unfitted. Only models with ``save`` and ``load`` are kept.
    X, y : ndarray
        Training data.
    cache_dir : path, optional
        Where fitted models lie, a folder each, named by data and recipe. One that cannot be written keeps nothing.
    checkpoint_dir : path, optional
        Handed to ``fit`` where that takes it.

    Returns
    -------
    estimator
        Fitted.
    """
    options = {}
    if checkpoint_dir is not None and "checkpoint_dir" in inspect.signature(model.fit).parameters:
        options["checkpoint_dir"] = checkpoint_dir
    key = None if cache_dir is None or not hasattr(model, "save") else _key(model, X, y)
    if key is None:
        return model.fit(X, y, **options)
    assert cache_dir is not None
    folder = Path(cache_dir) / key
    if folder.is_dir():
        with contextlib.suppress(StoredFileError, OSError):
            found = type(model).load(folder)
            folder.touch()
            return found
    model.fit(X, y, **options)
    with contextlib.suppress(StoredFileError, OSError):
        folder.parent.mkdir(parents=True, exist_ok=True)
        replace_folder(folder, model.save)
        held = sorted(
            (path for path in folder.parent.iterdir() if path.name[0] != "."), key=lambda path: path.stat().st_mtime
        )
        for path in held[:-KEPT]:
            shutil.rmtree(path, ignore_errors=True)
    return model


def _key(model: Any, X: np.ndarray, y: np.ndarray) -> str | None:
    from sparsecbm import __version__

    settings = {name: value for name, value in model.get_params(deep=False).items() if name not in _NO_RECIPE}
    arrays = {name: settings.pop(name) for name in list(settings) if isinstance(settings[name], np.ndarray)}
    classes, codes = np.unique(y, return_inverse=True)
    recipe = [type(model).__qualname__, __version__, settings, list(arrays), classes.tolist()]
    try:
        return fingerprint(recipe, *arrays.values(), X, codes)
    except TypeError:  # a parameter that is no JSON value, such as a RandomState: nothing to name the fit by
        return None
