"""Whole runs as plain functions: each takes a configuration or a model folder and returns a typed result.

Nothing here prints; the command line shows the results, and a notebook can use them as they are.
"""

from sparsecbm.runs.concept_sets import CheckResult, FilterResult, check_concepts, filter_concepts
from sparsecbm.runs.info import info_run
from sparsecbm.runs.measure import headline, measure
from sparsecbm.runs.models import StoredModel, load_model, model_encoder
from sparsecbm.runs.results import (
    EmbedResult,
    EvaluateResult,
    ExplainResult,
    InfoResult,
    Prediction,
    PredictResult,
    ReportResult,
    TrainResult,
)
from sparsecbm.runs.train import demo_run, embed_run, prepare, train_run
from sparsecbm.runs.use import evaluate_run, explain_run, plot_ledgers, predict_run, report_run

__all__ = [
    "CheckResult",
    "EmbedResult",
    "EvaluateResult",
    "ExplainResult",
    "FilterResult",
    "InfoResult",
    "PredictResult",
    "Prediction",
    "ReportResult",
    "StoredModel",
    "TrainResult",
    "check_concepts",
    "demo_run",
    "embed_run",
    "evaluate_run",
    "explain_run",
    "filter_concepts",
    "headline",
    "info_run",
    "load_model",
    "measure",
    "model_encoder",
    "plot_ledgers",
    "predict_run",
    "prepare",
    "report_run",
    "train_run",
]
