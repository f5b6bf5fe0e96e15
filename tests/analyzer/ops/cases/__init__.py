"""The table of cases that drives the forward, gradient and residual tests: ops by shapes, attributes, active inputs.

Each file has the cases of the family of ops in the module of its name, and what hypothesis draws of them.
"""

from tests.analyzer.ops.cases import (
    activation,
    contraction,
    elementwise,
    indexing,
    layout,
    linear,
    normalization,
    recurrent,
    reduction,
    resampling,
    scatter,
    selection,
    shape,
    softmax,
    spectral,
    transcendental,
    windowed,
)

FAMILIES = (
    activation,
    elementwise,
    transcendental,
    softmax,
    linear,
    windowed,
    normalization,
    reduction,
    shape,
    layout,
    indexing,
    scatter,
    selection,
    resampling,
    contraction,
    spectral,
    recurrent,
)
CASES = [case for family in FAMILIES for case in family.CASES]
