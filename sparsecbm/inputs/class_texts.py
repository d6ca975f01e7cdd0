"""Texts that stand for the classes, embedded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import DomainWarning, InputError, unknown
from sparsecbm._base.names import clean_name_array, match_names
from sparsecbm._base.rows import unit_rows
from sparsecbm.config.schema import ClassesConfig, EmbeddingsConfig

if TYPE_CHECKING:
    from sparsecbm.embeddings.embed import Cache
    from sparsecbm.encoders import Encoder


def embed_class_texts(
    encoder: Encoder, class_names: Sequence[str], templates: Sequence[str] | None, cache: Cache
) -> NDArray[np.float32]:
    """Embed what the classes are called, in the concepts' templates; painted birds by what they look like.

    The painted species bear invented names, which no encoder has read.

    Returns
    -------
    ndarray of float32, shape (K, d)
    """
    from sparsecbm.embeddings import embed_texts

    described = bird_descriptions()
    if class_names and set(class_names) <= set(described):
        texts = [described[name] for name in class_names]
        flat = embed_texts(encoder, [line for lines in texts for line in lines], None, cache=cache).vectors
        parts = np.split(np.asarray(flat, dtype=np.float32), np.cumsum([len(lines) for lines in texts])[:-1])
        return np.stack([part.mean(axis=0) for part in parts])
    return embed_names(encoder, class_names, templates, cache)


def embed_names(
    encoder: Encoder, names: Sequence[str], templates: str | Sequence[str] | None, cache: Cache
) -> NDArray[np.float32]:
    """Embed names in templates, underscores as blanks; that an encoder knows no such words is said of the concepts."""
    from sparsecbm.embeddings import embed_texts

    shown = [name.replace("_", " ") for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DomainWarning)
        return np.array(embed_texts(encoder, shown, templates, cache=cache).vectors, dtype=np.float32)


def describe_classes(
    config: ClassesConfig, encoder: Encoder, class_names: Sequence[str], cache: Cache
) -> list[NDArray[np.float32]] | None:
    """Embed the configured descriptions of each class; None where there are none."""
    from sparsecbm.embeddings import embed_texts

    described = _descriptions(config, class_names)
    if described is None:
        return None
    flat = embed_texts(encoder, [text for texts in described for text in texts], None, cache=cache).vectors
    ends = np.cumsum([len(texts) for texts in described])
    return np.split(np.array(flat, dtype=np.float32), ends[:-1])


def bird_descriptions() -> dict[str, list[str]]:
    """What each painted species looks like, in words."""
    from sparsecbm.data import birds

    phrases, truth = birds.concept_phrases(), birds.species_attributes()
    return {name: [phrases[j] for j in np.flatnonzero(truth[k])] for k, name in enumerate(birds.SPECIES)}


def read_class_texts(held: EmbeddingsConfig, class_names: Sequence[str], dim: int) -> NDArray[np.float32]:
    """Rows of the class texts in the order of the images' class names, matched by name wherever names are given."""
    from sparsecbm._base.untrusted import open_npz

    path = Path(held.classes or "")
    with open_npz(path, "class embeddings") as stored:
        for key in filter(None, (held.class_vectors, held.class_names)):
            if key not in stored:
                raise unknown(f"array in {str(path)!r}", key, stored.files)
        rows, names = np.asarray(stored[held.class_vectors]), class_names
        if held.class_names is not None:
            names = clean_name_array(stored[held.class_names], f"{str(path)!r}, {held.class_names}")
    if rows.ndim != 2 or len(rows) != len(names) or rows.shape[1] != dim:
        raise InputError(f"{str(path)!r}: {held.class_vectors} has shape {rows.shape}; expected ({len(names)}, {dim})")
    match = match_names(class_names, names)
    if not match.complete:
        raise InputError(f"{str(path)!r} has no text for all classes: {match.line('classes')}")
    rows = unit_rows(rows, f"{str(path)!r}, {held.class_vectors}", names=names, dtype=np.float32)
    return rows[[k for k in match.positions if k is not None]]


def _descriptions(config: ClassesConfig, class_names: Sequence[str]) -> list[list[str]] | None:
    """Descriptions of each class, in the order of the classes of the pictures."""
    if config.builtin == "birds":
        held = bird_descriptions()
    elif config.descriptions is not None:
        from sparsecbm.concepts import ConceptSet

        path = config.descriptions
        read = ConceptSet.from_file(path)
        if read.relevance is None or read.class_names is None:
            raise InputError(f"{path!r} holds no descriptions by class: expected class name: [descriptions]")
        held = {
            name: [read.names[j] for j in np.flatnonzero(read.relevance[k])] for k, name in enumerate(read.class_names)
        }
    else:
        return None
    match = match_names(class_names, [name for name, texts in held.items() if texts])
    if not match.complete:
        raise InputError(f"classes.descriptions do not describe all classes: {match.line('classes')}")
    return [held[match.known[k]] for k in match.positions if k is not None]
