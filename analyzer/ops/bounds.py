"""Steps at constant bounds, read off the output of a Clip, as HardSigmoids: one pass that keeps ONNX Runtime's layout.

From the bounds to attributes of HardSigmoid, max(0, min(1, alpha · y + beta)), which are exact for every number of
float32 on or next to a bound. Gives None for bounds that are not constant, or for which there is no such step.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import frexp

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.support import CutOff, Scaled, is_zero

STEEPEST = 3e38


def bound_where_met(op: Builder, y: Tensor, bound: float, step: dict[str, float]) -> Tensor:
    """A bound where y lies on it, and 0 elsewhere."""
    met = op.HardSigmoid(y, **step)
    return op.note(op.Mul(met, bound), Scaled(met, bound))


def met_bounds(low: Tensor | None, high: Tensor | None) -> list[tuple[float, dict[str, float]]] | None:
    """The bounds off 0, each with a HardSigmoid that is 1 on it and 0 for every number within; None for other bounds.

    y = x within the bounds, so that y less its own product with the derivative is the bound where it is met.
    """
    if steps_of(low, high) is None:
        return None
    found = []
    for tensor, within in ((low, 1.0), (high, -1.0)):
        value = np.float32(0.0 if tensor is None or tensor.constant is None else tensor.constant.item())
        if not value:
            continue
        # The inverse of the distance to the next number is a power of two, and its product with the bound is exact.
        slope = float(1 / abs(np.nextafter(value, within * np.float32(np.inf)) - value))
        if not slope <= 2.0**126:
            return None
        found.append((float(value), {"alpha": -within * slope, "beta": 1 + within * slope * float(value)}))
    return found


def steps_of(low: Tensor | None, high: Tensor | None) -> list[dict[str, float]] | None:
    """HardSigmoids that are 0 on a finite constant bound and 1 for every number off it; None for other bounds."""
    bounds = [(t, sign) for t, sign in ((low, 1.0), (high, -1.0)) if t is not None]
    values = [None if t.constant is None or t.constant.size != 1 else t.constant.item() for t, _ in bounds]
    known = [value for value in values if value is not None and _steppable(value)]
    if len(known) < len(bounds) or sorted(set(known)) != known:
        return None
    steps = []
    for value, (_, sign) in zip(known, bounds, strict=True):
        # A power of two, so that the bound is met exactly; the next number is off it by more than its inverse.
        slope = sign * (2.0 ** min(126, 126 - frexp(value)[1]) if value else STEEPEST)
        steps.append({"alpha": slope, "beta": -slope * value})
    return steps


def _steppable(bound: float) -> bool:
    """Whether float32 holds the slope that tells a bound from the next number."""
    return bound == 0 or 2.0**-100 < abs(bound) < STEEPEST


def cut_off(
    op: Builder, g: Tensor, y: Tensor, steps: Sequence[dict[str, float]], low: Tensor | None
) -> Tensor:
    """g where y lies within its bounds, else 0."""
    kept = list(accumulate((op.HardSigmoid(y, **step) for step in steps), op.Mul, initial=g))
    if len(steps) == 2 and not op.masked and low is not None and is_zero(low):
        op.note(y, CutOff(g, *kept[1:]))
    return kept[-1]
