"""Draw the graphs of one pass, evaluate each before and after, and count.

Returns a Count: graphs drawn, graphs that the pass changed or refused, values compared, and the graphs that differ,
each with its text. A difference is then shrunk by hypothesis to the smallest graph that still shows it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import onnx
from hypothesis import HealthCheck, Phase, given, seed, settings, strategies
from onnx import printer

from converters.errors import ConversionError
from tools.audit.comparison import TOLERANCE, bitwise, stays_finite, tolerance_of, within
from tools.audit.evaluation import Evaluation, Runtime, Stacked, in_float64, widened
from tools.audit.passes import Pass
from tools.audit.sketch import Drawn, Sketch
from tools.audit.values import SAMPLES, feeds


class Difference(Exception):
    """A pass changed what a graph computes. The message is the reproducer."""


@dataclass
class Count:
    """What came of one pass."""

    name: str
    graphs: int = 0
    changed: int = 0
    refused: int = 0
    invalid: int = 0
    values: int = 0
    differences: int = 0
    reproducers: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether the pass changed some graphs, and no value."""
        return not self.differences and self.changed > 0


def audit(one: Pass, graphs: int, start: int, progress: Callable[[Count], None] | None = None) -> Count:
    """Try a pass on that many graphs."""
    count = Count(one.name)

    def trial(data: Any) -> None:
        try:
            examine(one, Sketch(data.draw, one.dtypes, one.opset), count)
        except Difference as difference:
            count.differences += 1
            count.reproducers.append(str(difference))
        if progress is not None:
            progress(count)

    _run(trial, graphs, start, (Phase.generate,))
    if count.differences:
        count.reproducers = [_smallest(one, graphs, start) or min(count.reproducers, key=len)]
    return count


def _smallest(one: Pass, graphs: int, start: int) -> str | None:
    """Return the reproducer that hypothesis shrinks a difference to."""

    def trial(data: Any) -> None:
        examine(one, Sketch(data.draw, one.dtypes, one.opset), Count(one.name))

    try:
        _run(trial, graphs, start, (Phase.generate, Phase.shrink))
    except Difference as difference:
        return str(difference)
    except BaseExceptionGroup as several:
        return min((str(error) for error in several.exceptions), key=len)
    return None


def _run(trial: Callable[[Any], None], graphs: int, start: int, phases: tuple[Phase, ...]) -> None:
    options = settings(
        max_examples=graphs,
        database=None,
        deadline=None,
        derandomize=False,
        phases=phases,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    seed(start)(options(given(strategies.data())(trial)))()


def examine(one: Pass, sketch: Sketch, count: Count) -> None:
    """Draw one graph and compare it before and after a pass. Raises Difference."""
    one.draw(sketch)
    drawn = sketch.drawn()
    count.graphs += 1
    try:
        before = Evaluations(one, drawn)
    except (
        Exception
    ) as error:  # the evaluator documents no exceptions; a graph that does not run is not counted
        count.invalid += 1
        count.unexpected.append(f"{type(error).__name__}: {error}\n{printer.to_text(drawn.model.graph)}")
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = one.apply(drawn.model)
        except ConversionError:
            count.refused += 1
            return
        except Exception as error:
            raise Difference(_text(one, drawn, None, f"the pass fails: {error!r}")) from error
    if _shows(model) == _shows(drawn.model):
        return
    count.changed += 1
    try:
        found = before.compare(model, count)
    except Exception as error:
        raise Difference(
            _text(one, drawn, model, f"the graph does not run after the pass: {error!r}")
        ) from error
    if found:
        raise Difference(_text(one, drawn, model, found))


def _shows(model: onnx.ModelProto) -> list[bytes]:
    """Return the nodes without their names, and the inputs with their shapes."""
    nodes = [info.SerializeToString() for info in model.graph.input]
    for node in model.graph.node:
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.ClearField("name")
        nodes.append(plain.SerializeToString())
    return nodes


def _text(one: Pass, drawn: Drawn, after: onnx.ModelProto | None, found: str) -> str:
    parts = [f"{one.name}: {found}", f"seed of the numbers: {drawn.seed}", printer.to_text(drawn.model.graph)]
    return "\n".join(parts if after is None else [*parts, "after:", printer.to_text(after.graph)])


class Evaluations:
    """A graph before a pass, evaluated at every kind of values."""

    def __init__(self, one: Pass, drawn: Drawn) -> None:
        self._pass, self._dtype = one, drawn.dtype
        self._wide = not (one.bitwise or one.runtime) and drawn.dtype != np.float64
        self._make = Runtime if one.runtime else Evaluation
        self._native = self._stacked(self._make(drawn.model), drawn)
        self._double = (
            self._stacked(self._make(in_float64(drawn.model)), drawn) if self._wide else self._native
        )
        self._feeds = list(feeds(drawn))
        self._before = [self._double(self._given(arrays)) for _, arrays in self._feeds]

    @staticmethod
    def _stacked(evaluation: Any, drawn: Drawn) -> Any:
        return Stacked(evaluation, drawn.notes[SAMPLES]) if SAMPLES in drawn.notes else evaluation

    def _given(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return widened(arrays) if self._wide else arrays

    def compare(self, model: onnx.ModelProto, count: Count) -> str | None:
        """Return the first difference of the graph after the pass, None where there is none."""
        after = self._make(in_float64(model) if self._wide else model)
        native = self._make(model) if self._wide else None
        if after.outputs != self._double.outputs:
            return f"the outputs are {self._double.outputs} before and {after.outputs} after"
        tolerance = tolerance_of(self._dtype) if self._pass.rounds else TOLERANCE
        for (kind, arrays), expected in zip(self._feeds, self._before, strict=True):
            given = self._given(arrays)
            values = after(given)
            count.values += sum(int(np.size(value)) for value in values)
            noisy = partial(self._double, given)
            found = bitwise(expected, values) if self._pass.bitwise else None
            if not self._pass.bitwise:
                found = within(expected, values, noisy, tolerance)
            if native is not None and not found:
                found = stays_finite(self._native(arrays), native(arrays), expected, noisy)
            if found:
                return f"{found}, at {kind} values {_listed(arrays)}"
        return None


def _listed(arrays: dict[str, np.ndarray]) -> str:
    return ", ".join(
        f"{name}={np.array2string(a.ravel()[:12], separator=', ')}" for name, a in arrays.items()
    )
