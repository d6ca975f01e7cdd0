"""The rules of Concept Matrix Search, one file each, by name."""

from __future__ import annotations

from sparsecbm._base.errors import unknown
from sparsecbm.estimators.matrix_search.base import SearchOptions, SearchProblem, SearchRule
from sparsecbm.estimators.matrix_search.column_normalised import ColumnNormalisedRule
from sparsecbm.estimators.matrix_search.contrast import ContrastRule
from sparsecbm.estimators.matrix_search.cosine import CosineRule
from sparsecbm.estimators.matrix_search.cubed import CubedRule
from sparsecbm.estimators.matrix_search.max_score import MaxScoreRule
from sparsecbm.estimators.matrix_search.separating import SeparatingRule
from sparsecbm.estimators.matrix_search.sparse import SparseRule
from sparsecbm.estimators.matrix_search.whitened import WhitenedRule

RULES: dict[str, type[SearchRule]] = {
    rule.name: rule
    for rule in (
        CosineRule,
        CubedRule,
        MaxScoreRule,
        ColumnNormalisedRule,
        SeparatingRule,
        WhitenedRule,
        SparseRule,
        ContrastRule,
    )
}
"""Name of a similarity -> its rule."""


def make_rule(name: str, options: SearchOptions) -> SearchRule:
    """Build a rule by its name.

    Raises
    ------
    InputError
        If the name is unknown.
    """
    if name not in RULES:
        raise unknown("similarity", name, RULES)
    return RULES[name](options)


__all__ = ["RULES", "SearchOptions", "SearchProblem", "SearchRule", "make_rule"]
