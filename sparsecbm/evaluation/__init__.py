"""Metrics, controls and leakage tests."""

from __future__ import annotations

from sparsecbm.evaluation.controls import (
    CONTROLS,
    ControlReport,
    ProbeInDisguiseWarning,
    control_table,
    disguise,
    estimator_factory,
    linear_probe,
    nec_grid,
    random_directions,
    run_controls,
)
from sparsecbm.evaluation.leakage import LeakageReport, leakage
from sparsecbm.evaluation.metrics import (
    UnitScores,
    active_concepts,
    classification_metrics,
    concept_auc,
    confusion,
    expected_calibration_error,
    mean_sd,
    name_alignment,
    paired_bootstrap,
)
from sparsecbm.evaluation.words import WORDS, random_words

__all__ = [
    "CONTROLS",
    "WORDS",
    "ControlReport",
    "LeakageReport",
    "ProbeInDisguiseWarning",
    "UnitScores",
    "active_concepts",
    "classification_metrics",
    "concept_auc",
    "confusion",
    "control_table",
    "disguise",
    "estimator_factory",
    "expected_calibration_error",
    "leakage",
    "linear_probe",
    "mean_sd",
    "name_alignment",
    "nec_grid",
    "paired_bootstrap",
    "random_directions",
    "random_words",
    "run_controls",
]
