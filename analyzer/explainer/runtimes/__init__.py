"""Rewrite an explainer for a runtime: its opset, weights in float16, ops that have kernels."""

from analyzer.explainer.runtimes.fitting import fit, missing
from analyzer.explainer.runtimes.halves import to_float16
from analyzer.explainer.runtimes.kernels import RUNTIMES, Missing, Runtime, runtime_of
from analyzer.explainer.runtimes.mutable import opset_of
from analyzer.explainer.runtimes.opset import at_opset

__all__ = [
    "RUNTIMES",
    "Missing",
    "Runtime",
    "at_opset",
    "fit",
    "missing",
    "opset_of",
    "runtime_of",
    "to_float16",
]
