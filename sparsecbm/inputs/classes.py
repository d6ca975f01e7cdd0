"""What a search needs, embedded: pictures, reference pictures, concepts, and texts of the classes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.names import match_names
from sparsecbm.config.schema import SearchConfig, SearchEmbeddingsConfig
from sparsecbm.inputs.class_texts import bird_descriptions, read_class_texts
from sparsecbm.inputs.data import (
    ConceptBank,
    EmbeddedSplit,
    embed_concepts,
    embed_split,
    open_encoder,
    read_concepts,
    read_split,
)

if TYPE_CHECKING:
    from sparsecbm.encoders import Encoder


@dataclass(frozen=True, eq=False)
class Task:
    """Everything a search needs, embedded.

    Attributes
    ----------
    pictures : EmbeddedSplit
        What is searched.
    reference : EmbeddedSplit or None
        Training pictures: where statistics and the few labelled pictures come from, never the pictures searched.
    class_names : tuple of str
    bank : ConceptBank
    names : ndarray of shape (K, d) or None
        Texts of the class names.
    descriptions : list of ndarray of shape (p_k, d), or None
        Descriptions of each class, in the order of `class_names`.
    encoder : str
    seconds : float
        Wall time of embedding or reading.
    """

    pictures: EmbeddedSplit
    reference: EmbeddedSplit | None
    class_names: tuple[str, ...]
    bank: ConceptBank
    names: NDArray[np.float32] | None
    descriptions: list[NDArray[np.float32]] | None
    encoder: str
    seconds: float

    @property
    def truth(self) -> NDArray[np.int64] | None:
        """True class of each picture."""
        return None if self.pictures.labels is None else np.asarray(self.pictures.labels)


def open_task(config: SearchConfig) -> Task:
    """Embed or read the pictures, concepts and class texts of a search."""
    start = time.perf_counter()
    if config.embeddings is not None:
        return _read_task(config, config.embeddings, start)
    encoder = open_encoder(config)  # type: ignore[arg-type]
    pictures, class_names = embed_split(config, encoder, config.split)  # type: ignore[arg-type]
    if not class_names:
        raise InputError("the pictures have no class names: give class folders, or a label column with names")
    reference = None
    if config.split == "train" and _needs_reference(config):
        raise InputError(
            "split: train is where references come from; search another split, or set reference=false, few_shot=null "
            "and drop the baselines and filters that need them"
        )
    if _needs_reference(config):
        reference, _ = embed_split(config, encoder, "train")  # type: ignore[arg-type]
    bank = embed_concepts(
        config,  # type: ignore[arg-type]
        encoder,
        class_names,
        None if reference is None else reference.vectors,
    )
    names = _embed(config, encoder, [name.replace("_", " ") for name in class_names], config.classes.templates)
    described = _descriptions(config, class_names)
    descriptions = None
    if described is not None:
        flat = _embed(config, encoder, [text for texts in described for text in texts], None)
        ends = np.cumsum([len(texts) for texts in described])
        descriptions = np.split(flat, ends[:-1])
    seconds = time.perf_counter() - start
    return Task(pictures, reference, _distinct(class_names), bank, names, descriptions, encoder.spec, seconds)


def _needs_reference(config: SearchConfig) -> bool:
    filters = config.concepts.filters
    return bool(
        config.reference
        or config.few_shot
        or {"decomposer", "linear_probe"} & set(config.baselines)
        or (filters is not None and filters.min_activation is not None)
    )


def _embed(config: SearchConfig, encoder: Encoder, texts: Sequence[str], templates: Any) -> NDArray[np.float32]:
    from sparsecbm.embeddings import embed_texts

    made = embed_texts(encoder, list(texts), templates, cache=config.encoder.cache)
    return np.array(made.vectors, dtype=np.float32)


def _read_task(config: SearchConfig, held: SearchEmbeddingsConfig, start: float) -> Task:
    found = read_split(held, config.split)
    if found is None:
        raise InputError(f"embeddings.{config.split} is null: name the split of {held.path!r} to search")
    pictures, class_names = found
    if not class_names:
        raise InputError(f"{held.path!r} has no class_names: a search needs them")
    reference = None
    if held.train is not None and config.split != "train":
        read = read_split(held, "train")
        reference = None if read is None else read[0]
    bank = read_concepts(held)
    if bank.vectors.shape[1] != pictures.vectors.shape[1]:
        raise InputError(
            f"images have {pictures.vectors.shape[1]} dimensions and concepts {bank.vectors.shape[1]}: "
            "embed both with the same encoder"
        )
    names = None if held.classes is None else read_class_texts(held, class_names, pictures.vectors.shape[1])
    spec = held.encoder or "elsewhere"
    seconds = time.perf_counter() - start
    return Task(pictures, reference, _distinct(class_names), bank, names, None, spec, seconds)


def _distinct(names: Sequence[str]) -> tuple[str, ...]:
    """Tell classes of one name apart: ImageNet has two called "missile"."""
    return tuple(name if names.index(name) == k else f"{name} (class {k})" for k, name in enumerate(names))


def _descriptions(config: SearchConfig, class_names: Sequence[str]) -> list[list[str]] | None:
    """Descriptions of each class, in the order of the classes of the pictures."""
    if config.classes.builtin == "birds":
        held = bird_descriptions()
    elif config.classes.descriptions is not None:
        from sparsecbm.concepts import ConceptSet

        path = config.classes.descriptions
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
