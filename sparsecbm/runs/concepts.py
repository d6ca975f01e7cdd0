"""Runs on concept files: check and filter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import plain
from sparsecbm.config.schema import FiltersConfig
from sparsecbm.runs.base import Result

if TYPE_CHECKING:
    from sparsecbm.concepts import ConceptSet, FilterReport
    from sparsecbm.concepts.problems import Problem
    from sparsecbm.evaluation import ConceptSetReport

MAX_JUDGED = 4000
"""Pictures on which a concept set is judged; of more, a stratified subset."""


@dataclass(frozen=True, eq=False)
class CheckResult(Result):
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
    problems : list of Problem
        Names that repeat each other but for an article or a plural, or that give a class away.
    seen : FilterReport or None
        What an encoder says: concepts near a class or each other, and such as no picture shows.
    judged : ConceptSetReport or None
        What the set's scores hold of the classes of labelled pictures, before anything is trained.
    """

    path: str
    concepts: ConceptSet
    changes: list[str]
    long: list[str]
    groups: dict[str, int]
    problems: list[Problem] = field(default_factory=list)
    seen: FilterReport | None = None
    judged: ConceptSetReport | None = None

    @property
    def odd(self) -> bool:
        """Whether anything was found."""
        return bool(self.changes or self.long or self.problems or (self.seen is not None and self.seen.dropped))

    def _judged(self) -> dict[str, Any] | None:
        if self.judged is None:
            return None
        made, names = self.judged, self.concepts.names
        return {
            **vars(made),
            "information": made.information,
            "beyond_chance": made.beyond_chance,
            "redundant": [(names[a], names[b], alike) for a, b, alike in made.redundant],
        }

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(
            {
                "path": self.path,
                "count": len(self.concepts),
                "changes": self.changes,
                "long": self.long,
                "groups": self.groups,
                "problems": [vars(problem) for problem in self.problems],
                "seen": None if self.seen is None else [vars(drop) for drop in self.seen.dropped],
                "judged": self._judged(),
                "classes": self.concepts.class_names,
                "provenance": self.concepts.provenance,
                "names": self.concepts.names,
            }
        )


@dataclass(frozen=True, eq=False)
class FilterResult(Result):
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


def check_concepts(
    path: str | Path,
    max_length: int = 30,
    *,
    classes: str | Path | None = None,
    encoder: str | None = None,
    images: str | None = None,
    max_images: int | None = None,
    templates: str | None = None,
    filters: FiltersConfig | None = None,
) -> CheckResult:
    """Read a concept file and say what is odd about it; nothing is changed.

    Parameters
    ----------
    path : str or Path
        Concept file.
    max_length : int
        Longer names are odd, in characters.
    classes, encoder, images, max_images, templates, filters
        As for `filter_concepts`; what the filters would drop is reported, and, where the pictures have labels, what
        the set's scores hold of their classes (`sparsecbm.evaluation.judge_concept_set`).

    Raises
    ------
    InputError
        If a file is missing, empty or not in its format.
    """
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.concepts.problems import name_problems
    from sparsecbm.runs.concept_building import read_class_names

    concepts = ConceptSet.from_file(path)
    groups: dict[str, int] = {}
    for group in concepts.groups or ():
        groups[str(group or "(none)")] = groups.get(str(group or "(none)"), 0) + 1
    long = [name for name in concepts if len(name) > max_length]
    class_names = None if classes is None else read_class_names(classes)
    problems = name_problems(concepts, class_names, max_length=None)
    seen = judged = None
    if encoder is not None or images is not None:
        vectors, labels = _vectors(concepts, class_names, encoder, images, max_images, templates)
        # Every name is asked about, whatever its length and though it names a class: that has been said already.
        options = (filters or FiltersConfig()).model_dump() | {"max_length": None}
        _, seen = concepts.filter(**vectors, **options)
        judged = None if labels is None else _judge(vectors, labels)
    return CheckResult(str(path), concepts, list(concepts.report.lines), long, groups, problems, seen, judged)


def _judge(vectors: dict[str, Any], labels: tuple[NDArray[np.int64], tuple[str, ...]]) -> ConceptSetReport | None:
    """What the concepts hold of the classes; None where the pictures are too few to tell."""
    from sparsecbm.data.splits import stratified_subset
    from sparsecbm.evaluation.concept_sets import judge_concept_set

    X, (y, names) = vectors["image_embeddings"], labels
    if len(y) > MAX_JUDGED:
        rows = stratified_subset(y, len(y), MAX_JUDGED)
        X, y = X[rows], y[rows]
    try:
        return judge_concept_set(vectors["concept_embeddings"], X, np.asarray(names)[y], verbose=None)
    except InputError:
        return None


def _vectors(
    concepts: ConceptSet,
    class_names: Sequence[str] | None,
    encoder: str | None,
    images: str | None,
    max_images: int | None,
    templates: str | None,
) -> tuple[dict[str, Any], tuple[NDArray[np.int64], tuple[str, ...]] | None]:
    """Embed what the similarity filters compare; with it the pictures' labels and class names, where they have some."""
    from sparsecbm.runs.concept_building import Embedder

    if images is not None and encoder is None:
        raise InputError("--images needs --encoder: the activation filter compares pictures with concept texts")
    if encoder is None:
        return {}, None
    embedder = Embedder(encoder, templates)
    vectors: dict[str, Any] = {"concept_embeddings": embedder.texts(concepts.names)}
    if class_names is not None:
        vectors["class_embeddings"] = embedder.texts(class_names)
    labels = None
    if images is not None:
        pictures = embedder.pictures(images, max_images)
        vectors["image_embeddings"] = pictures.vectors
        if pictures.labels is not None and pictures.class_names:
            labels = np.asarray(pictures.labels), tuple(pictures.class_names)
    return vectors, labels


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
    select: int | None = None,
    times: int = 1,
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
        File of class names, a name a line; or an image spec, such as birds.
    encoder : str, optional
        Spec of the encoder for the similarity filters, which do not run without it.
    images : str, optional
        Image spec whose training split the activation filter looks at.
    max_images : int, optional
        At most so many of them.
    templates : str, optional
        Template, or name of a template set, for concepts and class names.
    select, times : int
        After the filters, keep the `select` concepts that cover the classes best, each class `times` times.

    Raises
    ------
    InputError
        If a file cannot be read, or nothing would be left.
    """
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.runs.concept_building import Embedder, read_class_names, select_concepts

    concepts = ConceptSet.from_file(path)
    class_names = None if classes is None else read_class_names(classes)
    vectors, _ = _vectors(concepts, class_names, encoder, images, max_images, templates)
    options = (filters or FiltersConfig()).model_dump()
    kept, report = concepts.filter(class_names=class_names, **vectors, **options)
    if select is not None:
        embedder = None if encoder is None else Embedder(encoder, templates)
        kept = select_concepts(kept, select, times=times, class_names=class_names or (), embedder=embedder)
    if output is not None:
        kept.save(output)
    return FilterResult(kept, report, None if output is None else Path(output))
