"""Run methods over a batch and keep what tables and pictures need: arrays, completeness, contributions, time."""

from analyzer.analysis.full_grads import (
    FULL_GRAD,
    SIMPLE_FULL_GRAD,
    SMOOTH_FULL_GRAD,
    run_full_grad,
    run_simple_full_grad,
    run_smooth_full_grad,
)
from analyzer.analysis.integrated import INTEGRATED_GRADIENTS, run_integrated_gradients
from analyzer.analysis.result import MethodResult, Progress
from analyzer.analysis.table import METHODS, Entry

__all__ = [
    "FULL_GRAD",
    "INTEGRATED_GRADIENTS",
    "METHODS",
    "SIMPLE_FULL_GRAD",
    "SMOOTH_FULL_GRAD",
    "Entry",
    "MethodResult",
    "Progress",
    "run_full_grad",
    "run_integrated_gradients",
    "run_simple_full_grad",
    "run_smooth_full_grad",
]
