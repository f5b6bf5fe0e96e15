"""Integrated Gradients and conductance over a batch."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from analyzer.analysis.common import baseline_text, class_label, doubles, named
from analyzer.analysis.result import Inputs, MethodResult, Progress
from analyzer.errors import AnalysisError
from analyzer.methods.completeness import sample_sums

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods import Conductance, IntegratedGradients
    from analyzer.target.target import TargetLike

Found = TypeVar("Found", "IntegratedGradients", "Conductance")

INTEGRATED_GRADIENTS, CONDUCTANCE = "integrated-gradients", "conductance"
INTEGRATED_GRADIENTS_TOLERANCE = 0.01


def run_integrated_gradients(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    baseline: Any = 0.0,
    at: str | Sequence[str] | None = None,
    baseline_inputs: Inputs | None = None,
    steps: int = 50,
    rule: str = "gauss-legendre",
    tolerance: float | None = None,
    map_tolerance: float | None = None,
    max_evaluations: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[MethodResult]:
    """Integrated Gradients of every sample; of several classes of each, a result for each.

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
        wrt=at,
        baseline_inputs=baseline_inputs,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
        map_tolerance=map_tolerance,
        max_evaluations=max_evaluations,
        rng=np.random.default_rng(seed),
        progress=progress,
    )
    settings = {
        "baseline": baseline_text(baseline) if baseline_inputs is None else "inputs",
        "at": at,
        "tolerance": tolerance,
    }
    label = f"Integrated Gradients, {found.evaluations} gradients"
    results = [
        _result(fn, INTEGRATED_GRADIENTS, label, one, at, settings, max_evaluations, start)
        for one in _by_class(found)
    ]
    return _told_apart(fn, results, _note(found, max_evaluations)) if found.output.ndim == 2 else results


def run_conductance(
    fn: Differentiable,
    inputs: Inputs,
    target: TargetLike = None,
    *,
    at: str | Sequence[str] | None = None,
    along: str | Sequence[str] | None = None,
    baseline: Any = 0.0,
    baseline_inputs: Inputs | None = None,
    steps: int = 50,
    rule: str = "trapezoid",
    tolerance: float | None = None,
    map_tolerance: float | None = None,
    max_evaluations: int = 1024,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[MethodResult]:
    """Conductance of every sample, with completeness as of Integrated Gradients; of several classes a result for each.

    Raises AnalysisError where no tensor within the network is named.
    """
    from analyzer.methods import conductance

    if at is None:
        raise AnalysisError(
            "conductance is that of units within the network. Fix: name a module or a tensor, as in wrt='layer1' "
            "(--at layer1)"
        )
    start = time.perf_counter()
    found = conductance(
        fn,
        inputs,
        target,
        wrt=at,
        along=along,
        baseline=baseline,
        baseline_inputs=baseline_inputs,
        steps=steps,
        rule=rule,
        tolerance=tolerance,
        map_tolerance=map_tolerance,
        max_evaluations=max_evaluations,
        rng=np.random.default_rng(seed),
        progress=progress,
    )
    settings = {
        "baseline": baseline_text(baseline) if baseline_inputs is None else "inputs",
        "at": at,
        "along": along,
        "tolerance": tolerance,
    }
    label = f"Conductance, {found.evaluations} gradients"
    results = []
    for one in _by_class(found):
        beside = {name: sample_sums(array).tolist() for name, array in one.beside.items()}
        own = {**settings, "beside": beside}
        results.append(_result(fn, CONDUCTANCE, label, one, at, own, max_evaluations, start))
    return _told_apart(fn, results, _note(found, max_evaluations)) if found.output.ndim == 2 else results


def _by_class(found: Found) -> list[Found]:
    """The result of each of several classes of a sample; itself where one scalar is explained."""
    return [found] if found.output.ndim == 1 else [found.rank(k) for k in range(found.output.shape[1])]


def _told_apart(fn: Differentiable, results: Sequence[MethodResult], note: str) -> list[MethodResult]:
    """Results of several classes, each with those of its samples by the first of their names. note: of all together."""
    told = []
    for result in results:
        assert result.target is not None
        labels = (class_label(int(one), fn.model.class_names) for one in result.target)
        classes = tuple(label.partition(",")[0] for label in labels)
        told.append(replace(result, classes=classes, note=note))
    return told


def _result(
    fn: Differentiable,
    method: str,
    label: str,
    found: IntegratedGradients | Conductance,
    at: str | Sequence[str] | None,
    settings: dict[str, Any],
    most: int,
    start: float,
) -> MethodResult:
    """What is held to 1 % without a tolerance, and to the tolerance with one. most: the gradients allowed."""
    unmet = None if found.map_error is None and not found.interrupted else False
    return MethodResult(
        method=method,
        label=label,
        attributions=_by_tensor(fn, found, at),
        maps={},
        channel_axes=found.channel_axes,
        output=doubles(found.output),
        explained=found.completeness.output,
        total=found.completeness.total,
        error=found.completeness.error,
        passed=tuple(True if fine else unmet for fine in _met(found)),
        target=found.target,
        seconds=time.perf_counter() - start,
        note=_note(found, most),
        settings={
            "steps": found.steps,
            "rule": found.rule,
            "evaluations": found.evaluations,
            **settings,
            **_stated(found),
        },
    )


def _by_tensor(
    fn: Differentiable, found: IntegratedGradients | Conductance, at: str | Sequence[str] | None
) -> dict[str, np.ndarray]:
    """{name of what is attributed: its attributions}."""
    if at is None:
        return named(fn, found.attributions)
    return {name: found.attributions_at(name) for name in found.channel_axes}


def _met(found: IntegratedGradients | Conductance) -> np.ndarray:
    """(N,), or (N, k) of several classes: whether the sum is as near as it must be."""
    scale = np.maximum(np.abs(found.completeness.output), np.finfo(np.float32).eps)
    near: np.ndarray = np.abs(found.delta) <= INTEGRATED_GRADIENTS_TOLERANCE * scale
    return found.converged if found.map_error is not None else near


def _note(found: IntegratedGradients | Conductance, most: int) -> str:
    """What the numbers do not tell by themselves."""
    close = bool(_met(found).all())
    if found.interrupted:
        return f"interrupted after {found.evaluations} gradients: the error is that of what was computed"
    if found.map_error is not None:
        map_error = (
            f"the map is within {100 * float(found.map_error.max()):.1g} %, by the change it still makes"
        )
        return map_error if close else f"{map_error}; {most} gradients did not reach the tolerance"
    return "" if close else "more steps, or a tolerance, bring the sum closer"


def _stated(found: IntegratedGradients | Conductance) -> dict[str, Any]:
    """The errors of a refinement, a number a sample."""
    numbers = {
        "spent": found.spent,
        "map_error": found.map_error,
        "interval_error": found.interval_error,
        "scatter": found.scatter,
        "map_change": found.map_change,
    }
    stated = {name: array.tolist() for name, array in numbers.items() if array is not None}
    return {"interrupted": found.interrupted, **stated}
