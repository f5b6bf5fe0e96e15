"""The parts that the results of several methods have in common."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from analyzer.analysis.result import Arrays, MethodResult

if TYPE_CHECKING:
    from analyzer.backends import Differentiable
    from analyzer.methods import SaliencyMap


def saliency_result(
    fn: Differentiable,
    method: str,
    label: str,
    found: SaliencyMap,
    settings: Mapping[str, Any],
    start: float,
    wrt: Sequence[str] | None = None,
) -> MethodResult:
    """The result of a method that gives a map and nothing that adds up. start: when it began."""
    explained = doubles(found.output)
    return MethodResult(
        method=method,
        label=label,
        attributions={},
        maps=named(fn, found.map, wrt),
        output=explained,
        explained=explained,
        total=None,
        error=None,
        passed=(None,) * len(explained),
        target=found.target,
        seconds=time.perf_counter() - start,
        settings=settings,
        signed=found.signed,
    )


def class_label(index: int, names: Sequence[str] | None) -> str:
    """How a class is called: its name, or "class 3"."""
    return names[index] if names is not None and 0 <= index < len(names) else f"class {index}"


def named(fn: Differentiable, value: Any, wrt: Sequence[str] | None = None) -> Arrays:
    """Attributions as {name: array}, also where one input, or one tensor of `wrt`, is attributed."""
    return dict(value) if isinstance(value, Mapping) else {fn.roots(wrt)[0]: value}


def tensors_of(fn: Differentiable, wrt: Sequence[str] | None) -> tuple[str, ...] | None:
    """The tensors that names mean, such as "embedding"; None for the inputs."""
    return None if wrt is None else fn.roots(wrt)


def doubles(numbers: np.ndarray) -> np.ndarray:
    """A number a sample, (N,), in double precision."""
    return np.atleast_1d(numbers).astype(np.float64)


def baseline_text(baseline: Any) -> str | float:
    """A baseline as settings tell it."""
    if isinstance(baseline, (list, tuple)):
        return ", ".join(str(baseline_text(one)) for one in baseline)
    return baseline if isinstance(baseline, (str, float, int)) else "array"
