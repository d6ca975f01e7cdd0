"""Runs on concept files: check and filter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsecbm._errors import InputError
from sparsecbm.config import FiltersConfig, ImagesConfig
from sparsecbm.runs.results import plain

if TYPE_CHECKING:
    from sparsecbm.concepts import ConceptSet, FilterReport


@dataclass(frozen=True, eq=False)
class CheckResult:
    """What reading a concept file found.

    Attributes
    ----------
    path : str
    concepts : ConceptSet
        As read: normalised, without blanks and repetitions.
    changes : list of str
        What reading changed, a line each.
    long : list of str
        Names longer than the limit.
    groups : dict of str to int
        Number of concepts of each group.
    """

    path: str
    concepts: ConceptSet
    changes: list[str]
    long: list[str]
    groups: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(
            {
                "path": self.path,
                "count": len(self.concepts),
                "changes": self.changes,
                "long": self.long,
                "groups": self.groups,
                "classes": self.concepts.class_names,
                "provenance": self.concepts.provenance,
                "names": self.concepts.names,
            }
        )


@dataclass(frozen=True, eq=False)
class FilterResult:
    """What filtering kept and dropped; `output` is where the kept concepts were written, if anywhere."""

    concepts: ConceptSet
    report: FilterReport
    output: Path | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        dropped = [vars(drop) for drop in self.report.dropped]
        return plain(
            {
                "kept": self.concepts.names,
                "dropped": dropped,
                "not_run": self.report.not_run,
                "output": self.output,
            }
        )


def check_concepts(path: str | Path, max_length: int = 30) -> CheckResult:
    """Read a concept file and say what is odd about it.

    Raises
    ------
    InputError
        If it is missing, empty or not in its format.
    """
    from sparsecbm.concepts import ConceptSet

    concepts = ConceptSet.from_file(path)
    groups: dict[str, int] = {}
    for group in concepts.groups or ():
        groups[str(group or "(none)")] = groups.get(str(group or "(none)"), 0) + 1
    long = [name for name in concepts if len(name) > max_length]
    return CheckResult(str(path), concepts, list(concepts.report.lines), long, groups)


def filter_concepts(
    path: str | Path,
    output: str | Path | None = None,
    *,
    filters: FiltersConfig | None = None,
    classes: str | Path | None = None,
    encoder: str | None = None,
    images: str | None = None,
    max_images: int | None = None,
    templates: str | None = None,
) -> FilterResult:
    """Apply the label-free filters to a concept file.

    Parameters
    ----------
    path : str or Path
        Concept file.
    output : str or Path, optional
        Where to write what is kept.
    filters : FiltersConfig, optional
        Thresholds.
    classes : str or Path, optional
        File of class names, a name a line.
    encoder : str, optional
        Spec of the encoder for the similarity filters, which do not run without it.
    images : str, optional
        Image spec whose training split the activation filter looks at.
    max_images : int, optional
        At most so many of them.
    templates : str, optional
        Template, or name of a template set, for concepts and class names.

    Raises
    ------
    InputError
        If a file cannot be read, or nothing would be left.
    """
    from sparsecbm.concepts import ConceptSet, PromptTemplates

    concepts = ConceptSet.from_file(path)
    class_names = list(ConceptSet.from_file(classes)) if classes is not None else None
    patterns = tuple(PromptTemplates.of(templates))
    if images is not None and encoder is None:
        raise InputError("--images needs --encoder: the activation filter compares pictures with concept texts")
    vectors: dict[str, Any] = {}
    if encoder is not None:
        from sparsecbm.embeddings import embed_images, embed_texts
        from sparsecbm.encoders import load_encoder
        from sparsecbm.runs.data import open_images

        made = load_encoder(encoder)
        vectors["concept_embeddings"] = embed_texts(made, concepts.names, patterns, cache="disk-or-memory").vectors
        if class_names is not None:
            vectors["class_embeddings"] = embed_texts(made, class_names, patterns, cache="disk-or-memory").vectors
        if images is not None:
            source = open_images(ImagesConfig(spec=images, max_train=max_images), "train")
            vectors["image_embeddings"] = embed_images(made, source, cache="disk-or-memory").vectors
    options = (filters or FiltersConfig()).model_dump()
    kept, report = concepts.filter(class_names=class_names, **vectors, **options)
    if output is not None:
        kept.save(output)
    return FilterResult(kept, report, None if output is None else Path(output))
