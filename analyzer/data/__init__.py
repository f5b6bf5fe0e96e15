"""Data sets: explain many samples in parts, on one machine or on many, and read the results again."""

from analyzer.data.batch_explainer import BatchExplainer
from analyzer.data.dataset import explain_dataset
from analyzer.data.interruption import Interrupted
from analyzer.data.results import Results, open_results
from analyzer.data.set_report import SetReport, report_results

__all__ = [
    "BatchExplainer",
    "Interrupted",
    "Results",
    "SetReport",
    "explain_dataset",
    "open_results",
    "report_results",
]
