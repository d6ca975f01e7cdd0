"""Concept sets, their files, prompt templates and label-free filters."""

from sparsecbm.concepts.cleaning import CleaningReport
from sparsecbm.concepts.concept_set import ConceptSet
from sparsecbm.concepts.filters import FilterReport
from sparsecbm.concepts.prompts import TEMPLATE_SETS, PromptTemplates

__all__ = ["TEMPLATE_SETS", "CleaningReport", "ConceptSet", "FilterReport", "PromptTemplates"]
