"""Tell gradients that differ by rounding alone from gradients that disagree.

Where a gradient is zero in exact arithmetic, such as that of a scale which a later normalization takes away, both sides
hold rounding errors, which no relative distance can compare. Reads rows in excess and the two sides, marks rows.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from analyzer.checks.explain.kinks import Side
from analyzer.graph.precision import epsilon
from analyzer.types import Row
from converters.verification.norms import norm

ROUNDING = "zero but for rounding"


def excuse_rounding(rows: Iterable[Row], a: Side, b: Side) -> None:
    """Mark, in place, gradients whose difference cannot move the explained output by its last digit."""
    alike = rounded_alike(a, b)
    for row in rows:
        if not row["passed"] and row["tensor"] in alike:
            row.update(passed=True, explanation=ROUNDING)


def rounded_alike(a: Side, b: Side) -> frozenset[str]:
    """The tensors whose gradients differ, but by too little to move the explained output by its last digit.

    A tensor moves the output by at most ‖value‖ · ‖gradient‖. The last digit is that of the tensor that moves it
    most: the dtype's ε times its share.
    """
    sizes = {name: _norm(a.values[name]) for name in a.gradients if name in a.values}
    most = max((size * _norm(a.gradients[name]) for name, size in sizes.items()), default=0.0)
    found = []
    for name in sizes.keys() & b.gradients.keys():
        left, right = a.gradients[name], b.gradients[name]
        moved = sizes[name] * _norm(left.astype(np.float64) - right.astype(np.float64))
        if 0 < moved <= epsilon(left.dtype) * most:
            found.append(name)
    return frozenset(found)


def _norm(array: np.ndarray) -> float:
    # The −∞ of an attention mask carries no gradient.
    return norm(np.where(np.isinf(array), 0, array).astype(np.float64))
