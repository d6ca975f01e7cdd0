"""What happens when a concept is changed: edits of images and of models, curves with the truth, counterfactuals."""

from sparsecbm.explain.interventions.counterfactual import ConceptEdit, Counterfactual, counterfactual
from sparsecbm.explain.interventions.curves import (
    ConceptTruth,
    InterventionCurve,
    concept_uncertainty,
    intervention_curve,
    plot_intervention_curves,
)
from sparsecbm.explain.interventions.model_edits import ModelEdits
from sparsecbm.explain.interventions.session import Interventions

__all__ = [
    "ConceptEdit",
    "ConceptTruth",
    "Counterfactual",
    "InterventionCurve",
    "Interventions",
    "ModelEdits",
    "concept_uncertainty",
    "counterfactual",
    "intervention_curve",
    "plot_intervention_curves",
]
