"""Integrated Gradients over a batch."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis.pieces import named
from analyzer.analysis.result import Inputs, MethodResult, Progress

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.target import TargetLike

INTEGRATED_GRADIENTS = "integrated-gradients"
INTEGRATED_GRADIENTS_TOLERANCE = 0.01


def run_integrated_gradients(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Any = 0.0,
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> MethodResult:
    """Integrated Gradients of every sample.

    Completeness fails where a `tolerance` was asked for and not met. Without one it holds to 1 %, and
    beyond that is stated and not judged: it is a matter of steps.
    """
    from analyzer.methods import integrated_gradients

    start = time.perf_counter()
    found = integrated_gradients(
        fn,
        inputs,
        target,
        baseline=baseline,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
        rng=np.random.default_rng(seed),
        progress=progress,
    )
    scale = np.maximum(np.abs(found.completeness.output), np.finfo(np.float32).eps)
    close = np.abs(found.delta) <= (tolerance or INTEGRATED_GRADIENTS_TOLERANCE) * scale
    unmet = None if tolerance is None else False
    return MethodResult(
        method=INTEGRATED_GRADIENTS,
        label=f"Integrated Gradients, {found.evaluations} gradients",
        attributions=named(fn, found.attributions),
        maps={},
        explained=found.completeness.output,
        total=found.completeness.total,
        error=found.completeness.error,
        passed=tuple(True if fine else unmet for fine in close),
        target=found.target,
        seconds=time.perf_counter() - start,
        note="" if close.all() else "more steps, or a tolerance, bring the sum closer",
        settings={
            "steps": found.steps,
            "rule": rule,
            "baseline": baseline if isinstance(baseline, (str, float, int)) else "array",
            "evaluations": found.evaluations,
            "tolerance": tolerance,
        },
    )
