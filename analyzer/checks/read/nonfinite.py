"""Name the NaN and infinite results of a check: the first tensor of a side, or the node whose derivative is not finite.

Reads a side, its inputs, its target and the completeness of FullGrad. Returns a phrase, empty where all is finite.
"""

from __future__ import annotations

import numpy as np

from analyzer.autodiff.request import OUTPUT
from analyzer.backends import Differentiable
from analyzer.backends.undefined import cause
from analyzer.methods.completeness import Completeness
from analyzer.target.target import Target
from analyzer.types import Arrays


def not_finite(fn: Differentiable, feeds: Arrays, target: Target, completeness: Completeness) -> str:
    """Return what makes the output or its gradient NaN or infinite, with the first node; empty for finite ones."""
    output_is_finite = bool(np.isfinite(completeness.output).all())
    if output_is_finite and np.isfinite(completeness.error).all():
        return ""
    return cause(fn.bind(feeds, target), ["the gradient"] if output_is_finite else [OUTPUT])
