"""Bring a finished explainer to what a runtime takes: its opset, weights in float16, ops with kernels."""

from analyzer.explainer.runtimes.draft import opset_of
from analyzer.explainer.runtimes.fitting import fit, missing
from analyzer.explainer.runtimes.halves import to_float16
from analyzer.explainer.runtimes.kernels import RUNTIMES, Missing, Runtime
from analyzer.explainer.runtimes.opset import at_opset

__all__ = ["RUNTIMES", "Missing", "Runtime", "at_opset", "fit", "missing", "opset_of", "to_float16"]
