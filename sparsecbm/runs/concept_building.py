"""Building a concept set for a task: from a language model, a ConceptNet dump or a plain vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import check_free, plain
from sparsecbm.config.schema import FiltersConfig
from sparsecbm.inputs.comparison import Comparison, ComparisonOptions
from sparsecbm.runs.base import Result

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparsecbm.concepts import ConceptSet, FilterReport

_SUFFIXES = (".json", ".yaml", ".yml")


@dataclass(frozen=True, eq=False)
class BuildResult(Result):
    """What `build_concepts` made.

    Attributes
    ----------
    concepts : ConceptSet
        As written.
    output : Path
        Where.
    found : int
        Names the source gave, before filters and selection.
    asked : int or None
        How many were wanted.
    not_run : tuple of str
        Filters that lacked what they need.
    classes : tuple of str
        The classes it is for.
    """

    concepts: ConceptSet
    output: Path
    found: int
    asked: int | None
    not_run: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def without(self) -> tuple[str, ...]:
        """Classes that no concept was found for."""
        known, names = self.concepts.relevance, self.concepts.class_names
        return () if known is None or names is None else tuple(n for n, row in zip(names, known) if not row.any())

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(
            {
                "output": self.output,
                "count": len(self.concepts),
                "found": self.found,
                "asked": self.asked,
                "dropped": self.concepts.provenance.get("dropped", {}),
                "classes_without_concepts": self.without,
                "not_run": self.not_run,
                "provenance": self.concepts.provenance,
                "names": self.concepts.names,
            }
        )


def build_concepts(
    output: str | Path,
    *,
    model: str | None = None,
    conceptnet: str | Path | None = None,
    vocabulary: str | Path | None = None,
    filters: FiltersConfig | None = None,
    select: int | None = None,
    times: int = 1,
    per_class: int = 30,
    max_new_tokens: int = 160,
    temperature: float = 0.0,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
    **compared: Unpack[ComparisonOptions],
) -> BuildResult:
    """Build a concept set and write it, with where it comes from.

    Parameters
    ----------
    output : path
        .json or .yaml, which hold which concept belongs to which class.
    model, conceptnet, vocabulary : exactly one of
        A transformers text model (folder or hub) that is asked three questions a class; a ConceptNet dump; a file of
        words, ranked by classes or pictures.
    filters : FiltersConfig, optional
        Thresholds; None leaves all filters out but the one for names of classes.
    select : int, optional
        Keep this many, those that cover the classes best (`select_covering`).
    times : int
        How many selected concepts each class should have.
    per_class : int
        At most so many names a class from ConceptNet or a vocabulary.
    max_new_tokens, temperature : int, float
        Of the language model's answers.
    seed : int
        Of sampling, with a temperature above 0.
    device : str
        Of the language model and of the encoder.
    force : bool
        Replace a file that is there.
    **compared
        See `Comparison`; at most 2,000 pictures unless it says otherwise. Classes are needed by `model` and
        `conceptnet`; an encoder by a vocabulary, the similarity filters, and selection by meaning.

    Raises
    ------
    InputError
        If sources do not fit together or a file is not as expected; found out before the work begins where it can be.
    StoredFileError
        If a file cannot be read or written. The answers of a language model so far stay beside `output`.
    """
    output = Path(output)
    if output.suffix.lower() not in _SUFFIXES:
        raise InputError(f"output {str(output)!r}: expected a .json or .yaml file, which holds concepts by class")
    check_free(output, force)
    sources = {"model": model, "conceptnet": conceptnet, "vocabulary": vocabulary}
    given = [what for what, value in sources.items() if value is not None]
    if len(given) != 1:
        raise InputError(f"give one source, --model, --conceptnet or --vocabulary; got {' and '.join(given) or 'none'}")
    classes, images = compared.get("classes"), compared.get("images")
    if vocabulary is None and classes is None:
        raise InputError(f"--{given[0]} needs --classes: a file of class names, or an image spec such as birds")
    if vocabulary is not None and compared.get("encoder") is None:
        raise InputError("--vocabulary needs --encoder: words are ranked by their similarity to classes or pictures")
    if vocabulary is not None and classes is None and images is None:
        raise InputError("--vocabulary needs --classes or --images, to rank its words by")
    compared.setdefault("max_images", 2000)
    comparison = Comparison(**compared, device=device)
    names = comparison.class_names
    journal = output.with_name(f".{output.name}.answers.jsonl")
    if model is not None:
        concepts = _ask(model, names, journal, max_new_tokens, temperature, seed, device)
    elif conceptnet is not None:
        from sparsecbm.concepts.conceptnet import conceptnet_concepts

        concepts = conceptnet_concepts(conceptnet, names, per_class=per_class)
    else:
        assert vocabulary is not None
        concepts = _rank(vocabulary, comparison, per_class)
    found = len(concepts)
    not_run: tuple[str, ...] = ()
    if filters is not None or names:
        concepts, report = _filter(concepts, comparison, filters)
        # What was not asked for need not be said to be missing.
        not_run = () if filters is None else report.not_run
    if select is not None:
        concepts = select_concepts(concepts, select, comparison, times=times)
    concepts.save(output)
    journal.unlink(missing_ok=True)
    return BuildResult(concepts, output, found, select, not_run, names)


def _ask(
    model: str,
    names: tuple[str, ...],
    journal: Path,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    device: str,
) -> ConceptSet:
    from sparsecbm.concepts.questions import ask_for_concepts
    from sparsecbm.encoders.text_generation import load_text_generator

    writer = load_text_generator(model, device=device)
    return ask_for_concepts(
        names,
        lambda prompts, own: writer.generate(prompts, own, max_new_tokens=max_new_tokens, temperature=temperature),
        model=model,
        journal=journal,
        seed=seed,
        options={"max_new_tokens": max_new_tokens, "temperature": temperature},
    )


def _rank(vocabulary: str | Path, comparison: Comparison, per_class: int) -> ConceptSet:
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.concepts.vocabulary import vocabulary_concepts

    words, names, pictures = ConceptSet.from_file(vocabulary), comparison.class_names, comparison.pictures
    made = vocabulary_concepts(
        words.names,
        comparison.texts(words.names),
        class_names=names or None,
        class_embeddings=comparison.texts(names) if names else None,
        image_embeddings=None if pictures is None else pictures.vectors,
        per_class=per_class,
        provenance={
            "source": "vocabulary",
            "file": Path(vocabulary).name,
            "words": len(words),
            "encoder": comparison.encoder.spec,
            "ranked by": [what for what, used in (("classes", names), ("images", pictures is not None)) if used],
            **({"vocabulary": words.provenance} if words.provenance else {}),
        },
    )
    return made.noted(words.report.reasons)


def _filter(
    concepts: ConceptSet, comparison: Comparison, filters: FiltersConfig | None
) -> tuple[ConceptSet, FilterReport]:
    # Without thresholds only names of classes go: they explain nothing.
    thresholds = {key: None for key in FiltersConfig.model_fields if key != "top_images"} | {
        "max_class_similarity": 1.0
    }
    if filters is not None:
        thresholds = filters.model_dump()
    vectors = {} if filters is None else comparison.vectors(concepts)
    kept, report = concepts.filter(class_names=comparison.class_names or None, **vectors, **thresholds)
    noted = {"thresholds": thresholds, "kept": len(kept), "of": len(concepts)}
    return kept.noted(report.reasons, filters=noted), report


def select_concepts(concepts: ConceptSet, size: int, comparison: Comparison, *, times: int = 1) -> ConceptSet:
    """Keep the `size` concepts that cover the classes best, by the set's relevance, an encoder's, or both.

    Raises
    ------
    InputError
        If neither the set nor an encoder says which concept belongs to which class.
    """
    from sparsecbm.concepts.selection import select_covering
    from sparsecbm.concepts.vocabulary import relevance_to_classes

    relevance = None if concepts.relevance is None else np.asarray(concepts.relevance, dtype=np.float64)
    rule = "relevance of the source"
    class_names = comparison.class_names
    if comparison.spec is not None and class_names:
        similarity = relevance_to_classes(comparison.texts(concepts.names), comparison.texts(class_names))
        if relevance is None or list(concepts.class_names or ()) != list(class_names):
            relevance, rule = similarity, "similarity of texts"
        else:
            relevance, rule = similarity * (relevance > 0), "similarity of texts, where the source sees relevance"
    if relevance is None:
        raise InputError(
            "--select needs to know which concept belongs to which class: give --classes and --encoder, or a file with "
            "relevance"
        )
    # Each class counts the same, however much the source has to say about it.
    most = relevance.max(axis=1, keepdims=True)
    relevance = np.divide(relevance, most, out=np.zeros_like(relevance), where=most > 0)
    chosen = select_covering(relevance, min(int(size), len(concepts)), times=times)
    kept = concepts.select(sorted(chosen.indices))
    why = f"the {len(kept)} selected cover the classes better"
    return kept.noted(
        [(name, why) for name in concepts if name not in kept],
        selection={
            "size": len(kept),
            "of": len(concepts),
            "times": times,
            "by": rule,
            "coverage": chosen.value,
            "at least this share of the best": chosen.guarantee,
        },
    )
