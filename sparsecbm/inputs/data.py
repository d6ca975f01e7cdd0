"""From a configuration to what is trained on: embedded splits and an embedded concept bank."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import DataWarning, InputError, unknown
from sparsecbm._base.names import clean_name_array, match_names, name_list
from sparsecbm._base.rows import unit_rows
from sparsecbm._base.untrusted import open_npz
from sparsecbm.config.schema import ConceptsConfig, EmbeddingsConfig, ImagesConfig, RunConfig
from sparsecbm.inputs.class_texts import embed_class_texts, read_class_texts
from sparsecbm.inputs.models import StoredModel

if TYPE_CHECKING:
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.data import ImageSource
    from sparsecbm.encoders import Encoder


SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class EmbeddedSplit:
    """One split as vectors.

    Attributes
    ----------
    vectors : ndarray of float32, shape (n, d)
        Unit rows, possibly memory-mapped.
    labels : ndarray of int64, shape (n,), or None
        Class indices.
    ids : list of str
        Name of each picture.
    images : ImageSource or None
        The pictures, unless the vectors were made elsewhere.
    seconds : float
        Wall time of opening and embedding.
    provenance : dict
        Where the vectors come from, as JSON values.
    """

    vectors: NDArray[np.float32]
    labels: NDArray[np.int64] | None
    ids: list[str]
    images: ImageSource | None = None
    seconds: float = 0.0
    provenance: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class ConceptBank:
    """Named, embedded concepts.

    Attributes
    ----------
    names : tuple of str, length M
        What is shown.
    vectors : ndarray of float32, shape (M, d)
        Text embeddings, unit rows.
    record : dict
        How they came about (source, prompts, what cleaning and filters dropped), as JSON values.
    relevance : ndarray of float32, shape (K, M), or None
        Relevance of each concept for each class, where the concept file gives it.
    """

    names: tuple[str, ...]
    vectors: NDArray[np.float32]
    record: dict[str, Any] = field(default_factory=dict)
    relevance: NDArray[np.float32] | None = None


def open_images(config: ImagesConfig, split: str) -> ImageSource:
    """Open one split of the configured pictures."""
    from sparsecbm.data import load_images

    return load_images(
        config.spec,
        split,
        seed=config.seed,
        max_images=getattr(config, f"max_{split}", None),
        on_error=config.on_error,
        image_column=config.image_column,
        label_column=config.label_column,
        splits=config.splits,
    )


def open_encoder(config: RunConfig) -> Encoder:
    """Load the configured encoder."""
    from sparsecbm.encoders import load_encoder

    return load_encoder(config.encoder.spec, device=config.encoder.device, precision=config.encoder.precision)


def embed_split(config: RunConfig, encoder: Encoder, split: str) -> tuple[EmbeddedSplit, tuple[str, ...]]:
    """Embed one split of the configured pictures, or reopen it; returns it with the class names."""
    from sparsecbm.embeddings import embed_images

    start = time.perf_counter()
    images = open_images(config.images, split)
    embedded = embed_images(encoder, images, batch_size=config.encoder.batch_size, cache=config.encoder.cache)
    seconds = time.perf_counter() - start
    made = EmbeddedSplit(embedded.vectors, embedded.labels, list(embedded.ids), images, seconds, embedded.provenance)
    return made, tuple(images.class_names)


def read_split(config: EmbeddingsConfig, split: str) -> tuple[EmbeddedSplit, tuple[str, ...]] | None:
    """Read one split of vectors made elsewhere; None where the configuration names none."""
    from sparsecbm.embeddings import load_embeddings

    theirs = getattr(config, split)
    if theirs is None:
        return None
    start = time.perf_counter()
    embedded = load_embeddings(config.path, theirs)
    ids = list(embedded.ids) or [f"{theirs}/{i}" for i in range(len(embedded))]
    seconds = time.perf_counter() - start
    made = EmbeddedSplit(embedded.vectors, embedded.labels, ids, None, seconds, embedded.provenance)
    return made, embedded.class_names


def read_concepts(config: EmbeddingsConfig) -> ConceptBank:
    """Read concept texts embedded elsewhere: an .npz with an (M, d) array and M names.

    Raises
    ------
    StoredFileError
        If the file cannot be read.
    InputError
        If an array is missing or has the wrong shape.
    """
    path = Path(config.concepts)
    with open_npz(path, "concept embeddings") as stored:
        for key in (config.concept_vectors, config.concept_names):
            if key not in stored:
                raise unknown(f"array in {str(path)!r}", key, stored.files)
        vectors = np.asarray(stored[config.concept_vectors])
        names = clean_name_array(stored[config.concept_names], f"{str(path)!r}, {config.concept_names}")
    if vectors.ndim != 2 or len(vectors) != len(names):
        raise InputError(
            f"{str(path)!r}: {config.concept_vectors} has shape {vectors.shape} and there are {len(names)} names: "
            "expected (M, d) and M"
        )
    rows = unit_rows(vectors, f"{str(path)!r}, {config.concept_vectors}", names=names, dtype=np.float32)
    return ConceptBank(names, rows, {"source": str(path)})


def open_concepts(config: ConceptsConfig) -> tuple[ConceptSet, list[str] | None]:
    """Read the configured concepts, and for the built-in birds the prompt of each.

    Raises
    ------
    InputError
        If no concepts are configured, or their file is empty or not in its format.
    """
    from sparsecbm.concepts import ConceptSet

    if config.file is not None:
        return ConceptSet.from_file(config.file), None
    if config.names is not None:
        return ConceptSet.clean(config.names, provenance="named in the configuration"), None
    if config.builtin == "birds":
        from sparsecbm.data import birds

        groups = {group: list(names) for group, names in birds.ATTRIBUTES.items()}
        concepts = ConceptSet(birds.ATTRIBUTE_NAMES, groups=groups, provenance="attributes of the painted birds")
        return concepts, list(birds.concept_phrases())
    raise InputError("no concepts: expected one of concepts.file, concepts.names, concepts.builtin")


def embed_concepts(
    config: RunConfig, encoder: Encoder, class_names: Sequence[str], train: NDArray[np.float32] | None
) -> ConceptBank:
    """Embed the configured concepts with the encoder of the pictures, and filter them.

    Parameters
    ----------
    config : RunConfig
    encoder : Encoder
    class_names : sequence of str
        Concepts too similar to one of these are dropped, if the filter is on.
    train : ndarray of shape (n, d) or None
        Training embeddings, for the activation filter.
    """
    from sparsecbm.concepts import PromptTemplates
    from sparsecbm.embeddings import embed_texts

    concepts, prompts = open_concepts(config.concepts)
    templates = PromptTemplates.of(config.concepts.templates)
    if prompts is not None and config.concepts.templates is not None:
        raise InputError(
            "concepts.templates does not apply to concepts.builtin, whose prompts are fixed: set it to null"
        )

    def embed(texts: Sequence[str], patterns: Sequence[str]) -> NDArray[np.float32]:
        return np.array(embed_texts(encoder, texts, patterns, cache=config.encoder.cache).vectors, dtype=np.float32)

    vectors = embed(prompts, ("{}",)) if prompts is not None else embed(concepts.names, tuple(templates))
    record: dict[str, Any] = {
        "source": config.concepts.file or config.concepts.builtin or "configuration",
        "provenance": concepts.provenance,
        "templates": list(templates) if prompts is None else None,
        "prompts": prompts,
        "cleaning": list(concepts.report.lines),
    }
    filters = config.concepts.filters
    if filters is not None:
        class_vectors = (
            embed([name.replace("_", " ") for name in class_names], tuple(templates)) if class_names else None
        )
        concepts, report = concepts.filter(
            class_names=class_names or None,
            concept_embeddings=vectors,
            class_embeddings=class_vectors,
            image_embeddings=train,
            **filters.model_dump(),
        )
        kept = list(report.kept)
        vectors = vectors[kept]
        record["filters"] = list(report.lines)
        if report.dropped:
            names = name_list([drop.name for drop in report.dropped])
            warnings.warn(f"concepts: {report.lines[0]}: {names}", DataWarning, stacklevel=2)
        if prompts is not None:
            record["prompts"] = [prompts[j] for j in kept]
    return ConceptBank(concepts.names, vectors, record, _relevance(concepts, class_names))


def _relevance(concepts: ConceptSet, class_names: Sequence[str]) -> NDArray[np.float32] | None:
    """Rows of the file's relevance in the order of the data's classes; None unless it knows them all."""
    if concepts.relevance is None or concepts.class_names is None:
        return None
    match = match_names(class_names, concepts.class_names)
    if not match.complete:
        warnings.warn(f"the concept file's relevance is not used: {match.line('classes')}", DataWarning, stacklevel=2)
        return None
    return concepts.relevance[list(match.positions)]


def _training_data(
    stored: StoredModel, load: Callable[[], Encoder], embeddings: str | Path | None, train_split: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings and labels that the model was trained on, as it remembers them or as the caller says."""
    remembered = stored.embeddings
    if stored.images is None or (embeddings is not None and train_split is not None):
        from sparsecbm.embeddings import load_embeddings

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
        made = load_embeddings(path, name)
        names, vectors, labels = made.class_names, made.vectors, made.labels
    else:
        from sparsecbm.embeddings import embed_images

        source = open_images(stored.images, train_split or "train")
        embedded = embed_images(load(), source, cache="disk-or-memory")
        names, vectors, labels = tuple(source.class_names), embedded.vectors, embedded.labels
    if labels is None:
        raise InputError("it has no labels")
    if vectors.shape[1] != stored.classifier.n_features_in_:
        raise InputError(f"it has {vectors.shape[1]} dimensions, the model {stored.classifier.n_features_in_}")
    same_classes(stored, names, "the training data")
    labels = np.asarray(labels)
    if missing := len(np.setdiff1d(stored.classifier.classes_, labels)):
        raise InputError(f"{missing} of the model's classes have no image in it")
    known = np.isin(labels, stored.classifier.classes_)
    return (vectors, labels) if known.all() else (vectors[known], labels[known])


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything a fit needs."""

    splits: dict[str, EmbeddedSplit]
    class_names: tuple[str, ...]
    bank: ConceptBank
    encoder: dict[str, Any] | None
    seconds: float
    class_texts: NDArray[np.float32] | None = None


def prepare(config: RunConfig) -> Prepared:
    """Embed or read all splits and the concept bank."""
    start = time.perf_counter()
    if config.embeddings is not None:
        splits, class_names, bank, encoder, class_texts = _read(config)
    else:
        splits, class_names, bank, encoder, class_texts = _embed(config)
    train = splits["train"]
    if train.labels is None:
        raise InputError("the training pictures have no labels: give images.label_column, or class folders")
    if train.vectors.shape[1] != bank.vectors.shape[1]:
        raise InputError(
            f"images have {train.vectors.shape[1]} dimensions and concepts {bank.vectors.shape[1]}: "
            "embed both with the same encoder"
        )
    return Prepared(splits, class_names, bank, encoder, time.perf_counter() - start, class_texts)


_Parts = tuple[
    dict[str, EmbeddedSplit], tuple[str, ...], ConceptBank, dict[str, Any] | None, NDArray[np.float32] | None
]


def _embed(config: RunConfig) -> _Parts:
    encoder = open_encoder(config)
    splits: dict[str, EmbeddedSplit] = {}
    class_names: tuple[str, ...] = ()
    for name in SPLITS:
        splits[name], names = embed_split(config, encoder, name)
        class_names = class_names or names
    bank = embed_concepts(config, encoder, class_names, splits["train"].vectors)
    note = {"spec": encoder.spec, "fingerprint": encoder.fingerprint, "precision": encoder.precision}
    texts = None
    if class_names:
        texts = embed_class_texts(encoder, class_names, bank.record["templates"], config.encoder.cache)
    return splits, class_names, bank, note, texts


def _read(config: RunConfig) -> _Parts:
    assert config.embeddings is not None
    splits: dict[str, EmbeddedSplit] = {}
    class_names: tuple[str, ...] = ()
    for name in SPLITS:
        found = read_split(config.embeddings, name)
        if found is not None:
            splits[name], names = found
            class_names = class_names or names
    bank = read_concepts(config.embeddings)
    spec = config.embeddings.encoder
    texts = None
    if config.embeddings.classes is not None:
        texts = read_class_texts(config.embeddings, class_names, bank.vectors.shape[1])
    return splits, class_names, bank, None if spec is None else {"spec": spec, "fingerprint": None}, texts


def model_class_texts(
    stored: StoredModel, held: EmbeddedSplit, load: Callable[[], Encoder]
) -> NDArray[np.float32] | None:
    """Texts of a model's classes, as in its training; None where there were none, or they cannot be had now."""
    if held.images is not None:
        templates = (stored.metadata.get("concepts") or {}).get("templates")
        return embed_class_texts(load(), stored.class_names, templates, "disk-or-memory")
    config = stored.embeddings
    if config is None or config.classes is None or not Path(config.classes).is_file():
        return None
    known = stored.metadata.get("label_names") or stored.class_names
    rows = read_class_texts(config, known, stored.classifier.n_features_in_)
    return rows[[list(known).index(name) for name in stored.class_names]]


def open_split(
    stored: StoredModel,
    images: str | None,
    split: str,
    max_images: int | None,
    embeddings: str | Path | None,
    load: Callable[[], Encoder],
) -> EmbeddedSplit:
    """Open and embed what a model is measured on: the given pictures or vectors, else those of its training.

    Parameters
    ----------
    stored : StoredModel
    images : str or None
        Image spec.
    split : str
    max_images : int or None
        A stratified subset.
    embeddings : str, Path or None
        File of vectors made elsewhere.
    load : callable
        Loads the model's encoder; called for pictures only.
    """
    start = time.perf_counter()
    if embeddings is not None:
        if images is not None:
            raise InputError("give either pictures (--images) or vectors (--embeddings), not both")
        return _vectors(stored, embeddings, split, max_images, start)
    config = stored.images
    if images is not None:
        config = ImagesConfig(spec=images)
    remembered = stored.embeddings
    if config is None and remembered is not None and Path(remembered.path).is_file():
        theirs = getattr(remembered, split, None) if split in SPLITS else None
        return _vectors(stored, remembered.path, theirs or split, max_images, start)
    if config is None:
        where = "" if remembered is None else f" ({remembered.path!r}, which is not there now)"
        raise InputError(
            f"model {str(stored.path)!r} was trained on embeddings made elsewhere{where}: "
            "give the pictures with --images, or vectors with --embeddings"
        )
    from sparsecbm.embeddings import embed_images

    if max_images is not None:
        config = config.model_copy(
            update={"max_train": max_images, "max_validation": max_images, "max_test": max_images}
        )
    source = open_images(config, split)
    same_classes(stored, source.class_names, config.spec)
    made = embed_images(load(), source, cache="disk-or-memory")
    seconds = time.perf_counter() - start
    return EmbeddedSplit(made.vectors, made.labels, list(made.ids), source, seconds, made.provenance)


def _vectors(stored: StoredModel, path: str | Path, split: str, max_images: int | None, start: float) -> EmbeddedSplit:
    from sparsecbm.embeddings import load_embeddings

    made = load_embeddings(path, split)
    d = stored.classifier.n_features_in_
    if made.dim != d:
        raise InputError(f"{str(path)!r} holds {made.dim}-d vectors; the model expects {d}-d ones")
    same_classes(stored, made.class_names, str(path))
    ids = list(made.ids) or [f"{split}/{i}" for i in range(len(made))]
    vectors, labels = made.vectors, made.labels
    if max_images is not None and max_images < len(made):
        from sparsecbm.data.splits import stratified_subset

        rows = stratified_subset(labels, len(made), max_images)
        vectors, labels, ids = vectors[rows], None if labels is None else labels[rows], [ids[i] for i in rows]
    return EmbeddedSplit(vectors, labels, ids, None, time.perf_counter() - start, made.provenance)


def same_classes(stored: StoredModel, names: Sequence[str], what: str) -> None:
    """Refuse data whose labels mean other classes: the accuracy would be nonsense (as a published 11% on Pets was)."""
    known: Any = stored.metadata.get("label_names")
    if not known or not names or match_names(known, names).positions == tuple(range(len(names))):
        return
    for k, (theirs, ours) in enumerate(zip(names, known)):
        if theirs != ours:
            raise InputError(f"class {k} is {theirs!r} in {what!r} and {ours!r} in the model: the labels do not match")
    raise InputError(f"{what!r} has {len(names)} classes and the model {len(known)}: the labels do not match")
