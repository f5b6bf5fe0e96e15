"""The settings and the target of a data set, read once for all samples.

From keyword arguments to the settings of a method and the options of a backend, and from a target and the class of each
sample to the target of a call. Refuses values that hold a row for each sample: they are columns of the data set.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.backends import Differentiable, differentiate
from analyzer.errors import AnalysisError, TargetError
from analyzer.graph.graph import Graph
from analyzer.methods import METHODS
from analyzer.target.target import HIGHEST, Target, as_target
from converters.system.arguments import refuse_unknown

_GIVEN = frozenset({"model", "backend", "threads", "max_memory", "samples", "example"})
_FIX = 'Fix: give the batch a column "target"'


def settings_of(method: str, settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Divide keyword arguments into settings of a method and options of `differentiate`.

    Raises TypeError for an unknown one, AnalysisError for a generator of random numbers.
    """
    run = inspect.signature(METHODS[method].run)
    taken = {*run.parameters} - {"model", "inputs", "target", "progress", "verify"}
    options = {*inspect.signature(differentiate).parameters} - _GIVEN - taken
    known = [one for one in run.parameters.values() if one.name in taken]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in sorted(options)]
    signature = inspect.Signature(
        [*(one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in known), *more]
    )
    refuse_unknown(f"BatchExplainer of {method}", signature, settings)
    for name, value in settings.items():
        if isinstance(value, (np.random.Generator, np.random.RandomState)):
            raise AnalysisError(
                f"{name} is a generator of random numbers, whose state differs from worker to worker. Fix: give a "
                "seed, rng=0"
            )
    return (
        {name: value for name, value in settings.items() if name in taken},
        {name: value for name, value in settings.items() if name in options},
    )


def refuse_rows(target: Any) -> None:
    """Raise AnalysisError for a target with an entry for each sample, or of several classes of a sample."""
    if isinstance(target, (list, np.ndarray)) and np.ndim(target):
        raise AnalysisError(f"expected one target for all samples, got {len(target)}. {_FIX}")
    if not isinstance(target, Target):
        return
    for _, part in target.parts or ((1.0, target),):
        if part.top is not None or part.each is not None:
            raise AnalysisError(
                "expected one class of each sample, got a target of several. Fix: explain the data set once for each "
                "class, target=0"
            )
        given: dict[str, Any] = {"index": part.index, "position": part.position}
        for name, value in given.items():
            if isinstance(value, (list, np.ndarray)) and np.ndim(value):
                raise AnalysisError(f"expected one target for all samples, got an array as {name}. {_FIX}")


def refuse_rows_of_settings(settings: Mapping[str, Any], target: Any, graph: Graph) -> None:
    """Raise AnalysisError where a baseline, or weights of a target, hold a row for each sample."""
    baseline = settings.get("baseline")
    parts = (
        baseline.items() if isinstance(baseline, Mapping) else [(name, baseline) for name in graph.inputs[:1]]
    )
    weights = target.weights if isinstance(target, Target) else None
    outputs = weights.items() if isinstance(weights, Mapping) else [(_output_of(target, graph), weights)]
    for what, named in (("baseline", parts), ("target weights", outputs)):
        for name, array in named:
            shape = graph.tensors[name].shape if name in graph.tensors else None
            if not isinstance(array, np.ndarray) or shape is None or not array.ndim:
                continue
            if array.ndim == len(shape) and array.shape[0] != 1:
                raise AnalysisError(
                    f"expected the {what} of one sample, got {array.shape[0]} rows for {name!r}. Fix: give an array "
                    f"without the batch axis, such as {array.shape[1:]}"
                )


def _output_of(target: Any, graph: Graph) -> str:
    return (target.output if isinstance(target, Target) else None) or graph.default_output


def says_nothing(target: Any) -> bool:
    """Return whether a target leaves the class open, which a column of the batch may then state."""
    return target is None or (isinstance(target, Target) and target.highest)


def with_class(fn: Differentiable, target: Any, classes: Sequence[Any]) -> Any:
    """Return the target of samples that state their class each: all of them, or none. Raises TargetError."""
    if not is_class(classes[0]):
        return target
    indices = []
    for one in classes:
        found: Any = fn.indexed(one) if isinstance(one, str) else one
        if isinstance(found, Target):
            raise TargetError(
                f"expected an index of a class, got {one!r}, which names a class along axis {found.axis}. Fix: give "
                "indices in the column 'target', and target=Target(axis=…)"
            )
        if isinstance(found, bool) or int(found) != found:
            raise TargetError(
                f"expected a class as a whole number or a name, got {one!r}. Fix: give an index"
            )
        indices.append(int(found))
    index = np.asarray(indices, np.int64)
    stated = as_target(target)
    return replace(stated, index=index) if isinstance(target, Target) else index


def is_class(value: Any) -> bool:
    """Return whether the column `target` names a class of a sample; −1 and missing values explain the highest."""
    return value is not None and not (not isinstance(value, str) and value == HIGHEST)
