"""What a saved model is used on: given pictures or vectors, else those of its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.hub import NOT_PUBLISHED
from sparsecbm._base.names import match_names
from sparsecbm.config.schema import ImagesConfig
from sparsecbm.inputs.class_texts import embed_class_texts, read_class_texts
from sparsecbm.inputs.data import SPLITS, embed_pictures, open_images, read_vectors
from sparsecbm.inputs.models import StoredModel

if TYPE_CHECKING:
    from sparsecbm.embeddings import Embeddings


class DataOptions(TypedDict, total=False):
    """Which pictures or vectors a model is used on: the options of `open_split`."""

    images: str | None
    split: str
    max_images: int | None
    embeddings: str | Path | None


def open_split(
    stored: StoredModel,
    images: str | None = None,
    split: str = "test",
    max_images: int | None = None,
    embeddings: str | Path | None = None,
) -> Embeddings:
    """Open and embed what a model is used on: the given pictures or vectors, else those of its training.

    Parameters
    ----------
    stored : StoredModel
        Its encoder is loaded for pictures only.
    images : str, optional
        Image spec.
    split : str
    max_images : int, optional
        A stratified subset.
    embeddings : str or Path, optional
        File of vectors made elsewhere, in place of pictures.

    Raises
    ------
    InputError
        If there are none, they have other classes or dimensions than the model, or the encoder has changed.
    """
    if embeddings is not None:
        if images is not None:
            raise InputError("give either pictures (--images) or vectors (--embeddings), not both")
        return _subset(_read(stored, embeddings, split), max_images)
    config = stored.images if images is None else ImagesConfig(spec=images)
    remembered = stored.embeddings
    if config is None and remembered is not None and Path(remembered.path).is_file():
        theirs = getattr(remembered, split, None) if split in SPLITS else None
        return _subset(_read(stored, remembered.path, theirs or split), max_images)
    if config is None:
        where = "" if remembered is None or NOT_PUBLISHED in remembered.path else f" ({remembered.path!r} is not there)"
        raise InputError(
            f"model {str(stored.path)!r} does not say where the pictures or vectors of its training lie now{where}: "
            "give pictures with --images, or vectors with --embeddings"
        )
    if max_images is not None:
        config = config.model_copy(update={f"max_{name}": max_images for name in SPLITS})
    return _embed(stored, config, split)


def training_split(
    stored: StoredModel, embeddings: str | Path | None = None, train_split: str | None = None
) -> Embeddings:
    """Open what a model was trained on, as it remembers or as the caller says; the model's classes only.

    Raises
    ------
    InputError
        If it cannot be had, has no labels, or lacks a class.
    """
    remembered = stored.embeddings
    if stored.images is not None and (embeddings is None or train_split is None):
        made = _embed(stored, stored.images, train_split or "train")
    else:
        path, name = embeddings, train_split
        if remembered is not None:
            name = name or remembered.train
            if path is None or (train_split is None and Path(remembered.path).is_file()):
                path = remembered.path
        if path is None or name is None:
            raise InputError(
                "the model does not say which vectors it was trained on: name them with --embeddings FILE and "
                "--train-split NAME"
            )
        made = _read(stored, path, name)
    if made.labels is None:
        raise InputError("it has no labels")
    if made.multilabel:
        return made
    if missing := len(np.setdiff1d(stored.classifier.classes_, made.labels)):
        raise InputError(f"{missing} of the model's classes have no image in it")
    known = np.isin(made.labels, stored.classifier.classes_)
    return made if known.all() else made.select(known)


def model_class_texts(stored: StoredModel, held: Embeddings) -> NDArray[np.float32] | None:
    """Texts of a model's classes, as in its training; None where there were none, or they cannot be had now."""
    if held.images is not None:
        templates = (stored.metadata.get("concepts") or {}).get("templates")
        return embed_class_texts(stored.encoder, stored.class_names, templates, "disk-or-memory")
    config = stored.embeddings
    if config is None or config.classes is None or not Path(config.classes).is_file():
        return None
    known = stored.metadata.get("label_names") or stored.class_names
    rows = read_class_texts(config, known, stored.classifier.n_features_in_)
    return rows[[list(known).index(name) for name in stored.class_names]]


def _embed(stored: StoredModel, config: ImagesConfig, split: str) -> Embeddings:
    source = open_images(config, split)
    _same_classes(stored, source.class_names, config.spec)
    return embed_pictures(stored.encoder, source)


def _read(stored: StoredModel, path: str | Path, split: str) -> Embeddings:
    held = stored.embeddings
    labels = None if held is None or Path(held.path) != Path(path) else held.concept_labels
    if labels is not None and not Path(labels).is_file():
        labels = None  # what is measured without them stands
    made, d = read_vectors(path, split, labels), stored.classifier.n_features_in_
    if made.dim != d:
        raise InputError(f"{str(path)!r} holds {made.dim}-d vectors; the model expects {d}-d ones")
    _same_classes(stored, made.class_names, str(path))
    return made


def _subset(made: Embeddings, limit: int | None) -> Embeddings:
    from sparsecbm.data.splits import stratified_subset

    return (
        made if limit is None or limit >= len(made) else made.select(stratified_subset(made.labels, len(made), limit))
    )


def _same_classes(stored: StoredModel, names: Sequence[str], what: str) -> None:
    """Refuse data whose labels mean other classes: the accuracy would be nonsense (as a published 11% on Pets was)."""
    known: Any = stored.metadata.get("label_names")
    if not known or not names or match_names(known, names).positions == tuple(range(len(names))):
        return
    for k, (theirs, ours) in enumerate(zip(names, known)):
        if theirs != ours:
            raise InputError(f"class {k} is {theirs!r} in {what!r} and {ours!r} in the model: the labels do not match")
    raise InputError(f"{what!r} has {len(names)} classes and the model {len(known)}: the labels do not match")
