"""The float64 referee: runs on torch that say on which side of a difference the rounding is, or that it is none.

One model has one truth, and each backend's distance to it counts: two that are within the tolerance of it agree, though
their roundings may add up to more. Two models have one each: where the two float64 runs agree the excess is rounding,
and the side that is further from its own run rounds more; where they do not, the models differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec

import numpy as np

from analyzer.backends import differentiate
from analyzer.backends.batching.arranging import arranged_like
from analyzer.checks.comparison import NEVER_EXCUSED, Comparison
from analyzer.checks.match.pairing import fed
from analyzer.checks.read.reading import Reader, Reading
from analyzer.checks.read.twin import Twin
from analyzer.errors import AnalysisError, MissingDependency
from analyzer.types import Row
from converters import Model
from converters.errors import one_line
from converters.system.extras import install

REFEREE = "torch, float64"
WITHIN = "either side is within the tolerance"


def unasked(referee: bool | None, rows: Sequence[Row]) -> str:
    """Return why no float64 run is made, or "". Raises MissingDependency where it was asked for without torch."""
    if referee is False:
        return "not asked"
    if referee is None and all(row["passed"] and not row["explanation"] for row in rows):
        return "not needed: nothing exceeds its tolerance"
    if find_spec("torch") is None:
        if referee:
            raise MissingDependency(f"the float64 referee needs torch. Fix: {install('torch')}")
        return f"torch is not installed: {install('torch')}"
    return ""


def judge_backends(
    comparison: Comparison,
    readings: Sequence[Reading],
    rows: Sequence[Row],
    model: Model,
    referee: bool | None,
) -> str:
    """Let one float64 run of the model judge the rows in excess; says what was run, or why nothing was."""
    if reason := unasked(referee, rows):
        return reason
    fn = differentiate(model, "torch", precision="float64")
    fn = arranged_like(fn, comparison.readers[0].fn, comparison.feeds)
    truth = Reader(fn, comparison.target, comparison.roots, REFEREE).read(comparison.feeds)
    comparison.judge(rows, readings, [truth] * len(readings))
    accept_two_roundings(rows)
    return REFEREE


def accept_two_roundings(rows: Sequence[Row]) -> None:
    """Mark, in place, gradients and maps that are within the tolerance of the truth on either side: only the sum of two
    roundings exceeds it. A side that computes something else is further away than that, whoever is the referee.
    """
    for row in rows:
        errors = [row.get("a_error", np.inf), row.get("b_error", np.inf)]
        if not row["passed"] and row["quantity"] not in NEVER_EXCUSED and max(errors) <= row["tolerance"]:
            told = f"{WITHIN} of float64, by {errors[0]:.0e} and {errors[1]:.0e}"
            row.update(passed=True, explanation=told)


def judge_models(
    comparison: Comparison, readings: Sequence[Reading], rows: Sequence[Row], referee: bool | None
) -> str:
    """Let a float64 run of either model judge the rows in excess; says what was found, or why nothing was run."""
    if reason := unasked(referee, rows):
        return reason
    try:
        truths = _exact(comparison)
    except AnalysisError as error:
        if referee:
            raise
        return f"{REFEREE} does not run: {one_line(error)}"
    comparison.judge(rows, readings, truths)
    judged = [row for row in rows if "float64" in row]
    differ = sum(row["float64"] > row["tolerance"] for row in judged)
    if not judged:
        return f"{REFEREE}: nothing in excess that it measures"
    if not differ:
        return f"{REFEREE}: the models agree there, what is in excess is rounding"
    return f"{REFEREE}: the models differ there as well, at {differ} of {len(judged)} tensors in excess"


def _exact(comparison: Comparison) -> list[Reading]:
    """Both models in float64, read at the tensors that are compared."""
    a, b = comparison.readers
    assert isinstance(a, Reader) and isinstance(b, Twin)
    fed_b = fed(b.inputs, comparison.feeds)
    exact_a, exact_b = (
        arranged_like(differentiate(one.fn.model, "torch", precision="float64"), one.fn, feeds)
        for one, feeds in ((a, comparison.feeds), (b, fed_b))
    )
    # The twin speaks of a's graph in the precision of its values.
    twin = replace(b, graph=exact_a.graph, fn=exact_b)
    return [replace(a, fn=exact_a).read(comparison.feeds), twin.read(comparison.feeds)]
