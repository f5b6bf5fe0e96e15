"""Gradients and attributions of canonical ONNX graphs, on several backends, checked against each other.

Importing this package loads no framework; a backend imports its own when it is made.
"""

from analyzer.backends import Differentiable, Gradients, differentiate
from analyzer.checks import Report, check, compare
from analyzer.errors import AnalysisError
from analyzer.methods import (
    FullGrad,
    IntegratedGradients,
    SaliencyMap,
    full_grad,
    integrated_gradients,
    simple_full_grad,
    smooth_full_grad,
)
from analyzer.target import Target

__all__ = [
    "AnalysisError",
    "Differentiable",
    "FullGrad",
    "Gradients",
    "IntegratedGradients",
    "Report",
    "SaliencyMap",
    "Target",
    "check",
    "compare",
    "differentiate",
    "full_grad",
    "integrated_gradients",
    "simple_full_grad",
    "smooth_full_grad",
]
