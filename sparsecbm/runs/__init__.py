"""Whole runs as plain functions: each takes a configuration or a model folder and returns a typed result.

Nothing here prints; the command line shows the results, and a notebook can use them as they are.
"""

from sparsecbm.inputs.data import prepare
from sparsecbm.inputs.models import StoredModel, load_model, model_encoder
from sparsecbm.runs.adapt import AdaptResult, adapt_run
from sparsecbm.runs.app import app_run
from sparsecbm.runs.cache import CacheResult, PruneResult, cache_run, prune_run
from sparsecbm.runs.compare import CompareResult, compare_run
from sparsecbm.runs.compare_data import CompareDataResult, compare_data_run
from sparsecbm.runs.concept_building import BuildResult, build_concepts
from sparsecbm.runs.concepts import CheckResult, FilterResult, check_concepts, filter_concepts
from sparsecbm.runs.discover import DiscoverResult, discover_concepts
from sparsecbm.runs.edit import EditResult, edit_run
from sparsecbm.runs.evaluate import EvaluateResult, evaluate_run, nec_figure
from sparsecbm.runs.export import ExportResult, export_run
from sparsecbm.runs.folders import default_output
from sparsecbm.runs.frontier import FrontierResult, frontier_run
from sparsecbm.runs.info import GlossaryResult, InfoResult, KeysResult, glossary_run, info_run, keys_run
from sparsecbm.runs.init import InitResult, init_run
from sparsecbm.runs.measure import headline, measure
from sparsecbm.runs.predict import ExplainResult, Prediction, PredictResult, explain_run, plot_ledgers, predict_run
from sparsecbm.runs.predict_table import TableResult, predict_table
from sparsecbm.runs.report import ReportResult, report_run
from sparsecbm.runs.search import SearchResult, search_run
from sparsecbm.runs.train import EmbedResult, TrainResult, demo_run, embed_run, train_run
from sparsecbm.runs.vae import VaeResult, vae_run

__all__ = [
    "AdaptResult",
    "BuildResult",
    "CacheResult",
    "CheckResult",
    "CompareDataResult",
    "CompareResult",
    "DiscoverResult",
    "EditResult",
    "EmbedResult",
    "EvaluateResult",
    "ExplainResult",
    "ExportResult",
    "FilterResult",
    "FrontierResult",
    "GlossaryResult",
    "InfoResult",
    "InitResult",
    "KeysResult",
    "PredictResult",
    "Prediction",
    "PruneResult",
    "ReportResult",
    "SearchResult",
    "StoredModel",
    "TableResult",
    "TrainResult",
    "VaeResult",
    "adapt_run",
    "app_run",
    "build_concepts",
    "cache_run",
    "check_concepts",
    "compare_data_run",
    "compare_run",
    "default_output",
    "demo_run",
    "discover_concepts",
    "edit_run",
    "embed_run",
    "evaluate_run",
    "explain_run",
    "export_run",
    "filter_concepts",
    "frontier_run",
    "glossary_run",
    "headline",
    "info_run",
    "init_run",
    "keys_run",
    "load_model",
    "measure",
    "model_encoder",
    "nec_figure",
    "plot_ledgers",
    "predict_run",
    "predict_table",
    "prepare",
    "prune_run",
    "report_run",
    "search_run",
    "train_run",
    "vae_run",
]
