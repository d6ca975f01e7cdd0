"""The concept bank of a run: named concepts, embedded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import DataWarning, InputError, unknown
from sparsecbm._base.names import clean_name_array, match_names
from sparsecbm._base.rows import unit_rows
from sparsecbm._base.untrusted import open_npz
from sparsecbm.config.schema import ConceptsConfig, EmbeddingsConfig, RunConfig, SearchConfig

if TYPE_CHECKING:
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.encoders import Encoder


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


def read_concepts(config: EmbeddingsConfig) -> ConceptBank:
    """Read concepts embedded elsewhere: an .npz with an (M, d) array and M names, or what `concepts discover` wrote.

    Raises
    ------
    StoredFileError
        If the file cannot be read.
    InputError
        If an array is missing or has the wrong shape.
    """
    path = Path(config.concepts)
    if path.suffix == ".safetensors":
        from sparsecbm.concepts import ConceptSet

        concepts = ConceptSet.from_file(path)
        if concepts.vectors is None:
            raise InputError(f"{str(path)!r} holds names and no vectors: expected what `concepts discover` wrote")
        return ConceptBank(concepts.names, np.array(concepts.vectors), {"source": str(path)})
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
    return ConceptBank(names, rows, {"source": path.name})


def concept_vectors(concepts: ConceptSet, encoder: Encoder) -> NDArray[np.float32]:
    """The vectors that a set brings, once they are of this encoder.

    Raises
    ------
    InputError
        If they were found with another.
    """
    assert concepts.vectors is not None
    made_by = concepts.provenance.get("encoder")
    made_by = made_by if isinstance(made_by, dict) else {}
    known = made_by.get("fingerprint")
    if concepts.vectors.shape[1] != encoder.embed_dim or (known and known != encoder.fingerprint):
        theirs, mine = (f", fingerprint {str(digest)[:12]}" if known else "" for digest in (known, encoder.fingerprint))
        raise InputError(
            f"the concepts are {concepts.vectors.shape[1]}-d vectors of the encoder {made_by.get('spec')}{theirs}, and "
            f"this one is {encoder.spec} with {encoder.embed_dim} dimensions{mine}: find them again, or use theirs"
        )
    return np.array(concepts.vectors)


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
    config: RunConfig | SearchConfig, encoder: Encoder, class_names: Sequence[str], train: NDArray[np.float32] | None
) -> ConceptBank:
    """Embed the configured concepts with the encoder of the pictures, and filter them.

    Parameters
    ----------
    config : RunConfig or SearchConfig
    encoder : Encoder
    class_names : sequence of str
        Concepts too similar to one of these are dropped, if the filter is on.
    train : ndarray of shape (n, d) or None
        Training embeddings, for the activation filter.
    """
    from sparsecbm.concepts import PromptTemplates
    from sparsecbm.concepts.cleaning import by_reason
    from sparsecbm.embeddings import embed_texts

    concepts, prompts = open_concepts(config.concepts)
    templates = PromptTemplates.of(config.concepts.templates)
    if prompts is not None and config.concepts.templates is not None:
        raise InputError(
            "concepts.templates does not apply to concepts.builtin, whose prompts are fixed: set it to null"
        )

    def embed(texts: Sequence[str], patterns: Sequence[str]) -> NDArray[np.float32]:
        return np.array(embed_texts(encoder, texts, patterns, cache=config.encoder.cache).vectors, dtype=np.float32)

    if concepts.vectors is not None:
        vectors = concept_vectors(concepts, encoder)
    else:
        vectors = embed(prompts, ("{}",)) if prompts is not None else embed(concepts.names, tuple(templates))
    record: dict[str, Any] = {
        "source": Path(config.concepts.file or "").name or config.concepts.builtin or "configuration",
        "provenance": concepts.provenance,
        "templates": list(templates) if prompts is None else None,
        "prompts": prompts,
        "cleaning": list(concepts.report.lines),
    }
    dropped = list(concepts.report.reasons)
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
        record["filters"] = [report.lines[0], *report.not_run]
        dropped += report.reasons
        if prompts is not None:
            record["prompts"] = [prompts[j] for j in kept]
    record["dropped"] = by_reason(dropped)
    return ConceptBank(concepts.names, vectors, record, _relevance(concepts, class_names))


def _relevance(concepts: ConceptSet, class_names: Sequence[str]) -> NDArray[np.float32] | None:
    """Rows of the file's relevance in the order of the data's classes; None unless it knows them all."""
    if concepts.relevance is None or concepts.class_names is None:
        return None
    match = match_names(class_names, concepts.class_names)
    if not match.complete:
        warnings.warn(f"the concept file's relevance is not used: {match.line('classes')}", DataWarning, stacklevel=2)
        return None
    return concepts.relevance[[k for k in match.positions if k is not None]]
