"""Tell from the outputs of noisy copies whether their gradients have missed what matters.

A function that is steep in a narrow region has no gradient at most copies, and copies that all miss the region agree on
a wrong mean. Their outputs show it. Let ḡ be the mean gradient of the copies and r = f − ⟨ḡ, noise⟩ their outputs less
what it explains. For Gaussian noise of standard deviation σ the true mean gradient G obeys

    σ² ‖G − ḡ‖² ≤ Var r ≤ σ² E ‖∇f − ḡ‖².

The right side is the Gaussian Poincaré inequality: where the copies' gradients vary less than their outputs do, some
variation was missed. The left side then bounds the error of each element. From outputs and gradients to that bound.
Copies whose outputs agree as well show nothing: n copies miss a region of probability p with the chance (1 − p)ⁿ.
Sources: Stein 1981, "Estimation of the Mean of a Multivariate Normal Distribution", lemma 2; Chernoff 1981, "A Note on
an Inequality Involving the Normal Distribution".
"""

from __future__ import annotations

import numpy as np

from analyzer.graph.precision import epsilon

LEAST_COPIES = 5
"""Copies from which a standard error is stated. Five Gaussian numbers show less than a tenth of it in 2 of 10,000
cases, two of them in 8 of 100."""
_MARGIN = 2.0
"""Sample variances of few copies are off by as much. Of a function without a linear part the right side is at least
twice Var r."""
_ROUNDING = 8.0


def missed_variance(outputs: np.ndarray, explained: np.ndarray, varied: float) -> float:
    """Return the part of Var r that the gradients do not account for, in squared units of the output; 0 within chance.

    outputs (n,): of the copies. explained (n,): ⟨ḡ, noise⟩ of each. varied: Σ σ² · Var ∂f over all elements.
    """
    left = outputs.astype(np.float64) - explained
    variance = float(np.var(left, ddof=1))
    rounding = _ROUNDING * epsilon(outputs.dtype) * float(np.abs(outputs).max())
    if variance <= rounding**2:
        return 0.0
    return max(variance - _MARGIN * varied, 0.0)
