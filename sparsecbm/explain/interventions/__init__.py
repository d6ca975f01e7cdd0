"""What happens when a concept is changed: edits of images and of models, curves with the truth, counterfactuals."""

from sparsecbm.explain.interventions.counterfactual import ConceptEdit, Counterfactual, counterfactual, plausible
from sparsecbm.explain.interventions.curves import InterventionCurve, curves_svg, intervention_curve
from sparsecbm.explain.interventions.model_edits import ModelEdits
from sparsecbm.explain.interventions.session import Interventions
from sparsecbm.explain.interventions.truth import ConceptTruth, concept_uncertainty

__all__ = [
    "ConceptEdit",
    "ConceptTruth",
    "Counterfactual",
    "InterventionCurve",
    "Interventions",
    "ModelEdits",
    "concept_uncertainty",
    "counterfactual",
    "curves_svg",
    "intervention_curve",
    "plausible",
]
