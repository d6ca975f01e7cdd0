"""Metrics, what the units mean, controls and leakage tests."""

from __future__ import annotations

from sparsecbm._base.directions import matched_directions, random_directions
from sparsecbm.evaluation.concept_sets import ConceptSetReport, judge_concept_set
from sparsecbm.evaluation.controls import (
    ALL_CONTROLS,
    CONTROLS,
    ControlReport,
    advantage_in_words,
    control_table,
    estimator_factory,
    run_controls,
)
from sparsecbm.evaluation.encoder_fit import EncoderFit, encoder_fit
from sparsecbm.evaluation.leakage import LeakageReport, leakage
from sparsecbm.evaluation.meaning import (
    Decisions,
    UnitScores,
    clarity,
    concept_auc,
    name_alignment,
    plausibility,
    survival,
    used_in_decision,
)
from sparsecbm.evaluation.metrics import (
    active_concepts,
    classification_metrics,
    concept_reliability,
    expected_calibration_error,
    multilabel_metrics,
    paired_bootstrap,
    paired_difference,
)
from sparsecbm.evaluation.probes import ProbeInDisguiseWarning, disguise, linear_probe, nec_grid
from sparsecbm.evaluation.refits import refit, unfitted
from sparsecbm.evaluation.words import WORDS, random_words

__all__ = [
    "ALL_CONTROLS",
    "CONTROLS",
    "WORDS",
    "ConceptSetReport",
    "ControlReport",
    "Decisions",
    "EncoderFit",
    "LeakageReport",
    "ProbeInDisguiseWarning",
    "UnitScores",
    "active_concepts",
    "advantage_in_words",
    "clarity",
    "classification_metrics",
    "concept_auc",
    "concept_reliability",
    "control_table",
    "disguise",
    "encoder_fit",
    "estimator_factory",
    "expected_calibration_error",
    "judge_concept_set",
    "leakage",
    "linear_probe",
    "matched_directions",
    "multilabel_metrics",
    "name_alignment",
    "nec_grid",
    "paired_bootstrap",
    "paired_difference",
    "plausibility",
    "random_directions",
    "random_words",
    "refit",
    "run_controls",
    "survival",
    "unfitted",
    "used_in_decision",
]
