"""Runs on concept files: check and filter."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsecbm._base.errors import InputError
from sparsecbm._base.files import check_free, plain
from sparsecbm.config.schema import FiltersConfig
from sparsecbm.inputs.comparison import Comparison, ComparisonOptions
from sparsecbm.runs.base import Result
from sparsecbm.runs.concept_building import select_concepts

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from sparsecbm.concepts import ConceptSet, FilterReport
    from sparsecbm.concepts.problems import Problem
    from sparsecbm.embeddings import Embeddings
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
    """What filtering kept and dropped.

    Attributes
    ----------
    concepts : ConceptSet
    report : FilterReport
    repeated : list of (str, str)
        Names of the file that say what another one says, and the reason.
    asked : int or None
        How many were wanted.
    output : Path or None
        Where they were written.
    """

    concepts: ConceptSet
    report: FilterReport
    repeated: list[tuple[str, str]]
    asked: int | None
    output: Path | None

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return plain(
            {
                "kept": self.concepts.names,
                "asked": self.asked,
                "dropped": [vars(drop) for drop in self.report.dropped],
                "provenance": self.concepts.provenance,
                "not_run": self.report.not_run,
                "output": self.output,
            }
        )


def check_concepts(
    path: str | Path,
    max_length: int = 30,
    *,
    filters: FiltersConfig | None = None,
    **compared: Unpack[ComparisonOptions],
) -> CheckResult:
    """Read a concept file and say what is odd about it; nothing is changed.

    Parameters
    ----------
    path : str or Path
        Concept file.
    max_length : int
        Longer names are odd, in characters.
    filters : FiltersConfig, optional
        Thresholds; what the filters would drop is reported.
    **compared
        See `Comparison`. Where the pictures have labels, it is reported what the set's scores hold of their classes
        (`sparsecbm.evaluation.judge_concept_set`).

    Raises
    ------
    InputError
        If a file is missing, empty or not in its format.
    """
    from sparsecbm.concepts import ConceptSet
    from sparsecbm.concepts.problems import name_problems

    concepts, comparison = ConceptSet.from_file(path), Comparison(**compared)
    groups: dict[str, int] = {}
    for group in concepts.groups or ():
        groups[str(group or "(none)")] = groups.get(str(group or "(none)"), 0) + 1
    long = [name for name in concepts if len(name) > max_length]
    problems = name_problems(concepts, comparison.class_names or None, max_length=None)
    seen = judged = None
    if comparison.spec is not None:
        vectors = comparison.vectors(concepts)
        # Every name is asked about, whatever its length and though it names a class: that has been said already.
        options = (filters or FiltersConfig()).model_dump() | {"max_length": None}
        _, seen = concepts.filter(**vectors, **options)
        judged = _judge(vectors["concept_embeddings"], comparison.pictures)
    return CheckResult(str(path), concepts, list(concepts.report.lines), long, groups, problems, seen, judged)


def _judge(vectors: NDArray[np.float32], pictures: Embeddings | None) -> ConceptSetReport | None:
    """What the concepts hold of the classes; None where no pictures have labels, or too few to tell."""
    from sparsecbm.data.splits import stratified_subset
    from sparsecbm.evaluation.concept_sets import judge_concept_set

    if pictures is None or pictures.labels is None or not pictures.class_names:
        return None
    if len(pictures) > MAX_JUDGED:
        pictures = pictures.select(stratified_subset(pictures.labels, len(pictures), MAX_JUDGED))
    try:
        names = np.asarray(pictures.class_names)[pictures.labels]
        return judge_concept_set(vectors, pictures.vectors, names, verbose=None)
    except InputError:
        return None


def filter_concepts(
    path: str | Path,
    output: str | Path | None = None,
    *,
    filters: FiltersConfig | None = None,
    select: int | None = None,
    times: int = 1,
    force: bool = False,
    **compared: Unpack[ComparisonOptions],
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
    select, times : int
        After the filters, keep the `select` concepts that cover the classes best, each class `times` times.
    force : bool
        Replace a file that is there.
    **compared
        See `Comparison`; the similarity filters do not run without an encoder.

    Raises
    ------
    InputError
        If a file cannot be read or is there already, or nothing would be left.
    """
    from sparsecbm.concepts import ConceptSet

    check_free(output, force)
    concepts, comparison = ConceptSet.from_file(path), Comparison(**compared)
    options = (filters or FiltersConfig()).model_dump()
    names = comparison.class_names or None
    kept, report = concepts.filter(class_names=names, **comparison.vectors(concepts), **options)
    kept = kept.noted([*concepts.report.reasons, *report.reasons])
    if select is not None:
        kept = select_concepts(kept, select, comparison, times=times)
    if output is not None:
        _in_lines(kept, Path(output)).save(output)
    return FilterResult(kept, report, concepts.report.reasons, select, None if output is None else Path(output))


def _in_lines(concepts: ConceptSet, path: Path) -> ConceptSet:
    """The same set; for a .txt file its provenance as short texts, which are comments there."""
    if path.suffix.lower() != ".txt":
        return concepts
    notes = concepts.provenance.items()
    return concepts.noted(**{k: v if isinstance(v, str) else json.dumps(v, ensure_ascii=False) for k, v in notes})
