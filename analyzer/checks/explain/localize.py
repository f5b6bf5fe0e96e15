"""Find where two readings part: the node that computes something else, not merely the first tensor that shows it.

Every tensor is computed anew, by the graph's own node, from the *same side's* values of what it reads; every gradient
likewise by our rule from the same side's gradients behind it. Rounding that has piled up before a node is in its inputs
on both counts, so what is left is the node's own error: at the defect it is the whole difference, elsewhere rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.autodiff.request import observe, remainder_program
from analyzer.backends.onnxruntime import make_session
from analyzer.checks.explain.kinks import Side
from analyzer.checks.metrics import relative_distance
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, is_float
from analyzer.graph.layer_names import in_layer
from analyzer.graph.precision import FLOAT64, in_precision
from analyzer.graph.program import Program, assemble
from analyzer.types import Arrays
from converters.graph.runtime import ReferenceSession, RuntimeFailure

# At the node where two sides part, its own error is about the whole difference.
OWN = 0.3


@dataclass(frozen=True)
class Origin:
    """Where two sides part. nodes: what computes `tensor`, or its gradient, from tensors that the side knows; more than
    one where a framework keeps no value between. side: whose value is not what the nodes give; error: by what relative
    L2.
    """

    tensor: str
    nodes: tuple[Node, ...]
    side: str
    error: float
    backward: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the nodes."""
        return tuple(node.name for node in self.nodes)

    def __str__(self) -> str:
        names = ", ".join(f"{node.op_type} {node.name!r}{in_layer(node)}" for node in self.nodes[-3:])
        more = f" and {len(self.nodes) - 3} more before" if len(self.nodes) > 3 else ""
        what = f"the gradient at {self.tensor!r}" if self.backward else f"{self.tensor!r}"
        where = "what follows it" if self.backward else "its own inputs"
        return f"{names}{more}: {what} of {self.side} is {self.error:.1e} from what {where} give"


def forward_origin(
    graph: Graph,
    sides: Mapping[str, Side],
    apart: Mapping[str, float],
    tolerance: float,
    roots: Iterable[str] = (),
) -> Origin | None:
    """The node whose values differ by themselves. apart: {tensor: relative L2 between the sides}, in graph order."""
    fed = frozenset(roots)
    order = [name for name in apart if name not in fed]
    return _origin(order, apart, tolerance, lambda name: _VALUES.origin_at(graph, sides, name, apart[name]))


def backward_origin(
    graph: Graph, sides: Mapping[str, Side], apart: Mapping[str, float], tolerance: float
) -> Origin | None:
    """The node whose gradient differs by itself. apart: of gradients, in graph order."""
    order = list(apart)[::-1]
    return _origin(
        order, apart, tolerance, lambda name: _GRADIENTS.origin_at(graph, sides, name, apart[name])
    )


def _origin(
    order: Sequence[str],
    apart: Mapping[str, float],
    tolerance: float,
    origin_at: Callable[[str], Origin | None],
) -> Origin | None:
    """Of the tensors up to the first in excess, that with the largest error of its own; else the first one beyond.

    Not the very first with an error of its own: every node adds its rounding, which a deep network lifts to where a
    small defect could stand.
    """
    ahead = next((place for place, name in enumerate(order) if apart[name] > tolerance), len(order) - 1) + 1
    found: Origin | None = None
    for name in sorted(order[:ahead], key=lambda name: -apart[name]):
        if found is not None and apart[name] <= found.error:
            break
        one = origin_at(name)
        if one is not None and (found is None or one.error > found.error):
            found = one
    return found or next((one for name in order[ahead:] if (one := origin_at(name))), None)


def _segment(graph: Graph, name: str, side: Side) -> tuple[Node, ...]:
    """The nodes between what a side knows and a tensor, in topological order; constants' own are left out."""
    found: dict[str, Node] = {}
    stack = [name]
    while stack:
        node = graph.producer.get(stack.pop())
        if node is not None and node.name not in found:
            found[node.name] = node
            stack += [read for read in node.reads if read and read not in side.values]
    return tuple(node for node in graph.nodes if node.name in found)


def way_on(graph: Graph, name: str, side: Side) -> tuple[Node, ...]:
    """The nodes between a tensor and those behind it whose gradient a side knows, in topological order."""
    found: dict[str, Node] = {}
    stack = [name]
    while stack:
        for node in graph.consumers.get(stack.pop(), ()):
            floats = [given for given in node.outputs if given and graph.tensors[given].is_float]
            if floats and node.name not in found:
                found[node.name] = node
                stack += [given for given in floats if given not in side.gradients]
    return tuple(node for node in graph.nodes if node.name in found)


def _value_program(graph: Graph, name: str, side: Side) -> Program:
    known = [other for other in side.values if other != name]
    return assemble(graph, Builder(graph.opset), {name: graph.tensors[name]}, available=known)


def _gradient_program(graph: Graph, name: str, side: Side) -> Program:
    known = [other for other in side.gradients if other != name]
    return remainder_program(graph, observe((), (name,)), list(side.values), known, seeds=side.outputs)


@dataclass(frozen=True)
class _Pass:
    """What is computed anew in one direction. arrays: a side's own; program: computes one of them from those around it;
    nodes: between it and those.
    """

    arrays: Callable[[Side], Arrays]
    program: Callable[[Graph, str, Side], Program]
    nodes: Callable[[Graph, str, Side], tuple[Node, ...]]
    backward: bool

    def origin_at(self, graph: Graph, sides: Mapping[str, Side], name: str, apart: float) -> Origin | None:
        """The origin, where the own error of one side is about the whole difference."""
        errors = {label: self._own_error(graph, name, side, _on_runtime) for label, side in sides.items()}
        if max(errors.values()) < OWN * apart:
            return None
        errors = self._judged(graph, sides, name, OWN * apart) or errors
        label = max(errors, key=lambda key: errors[key])
        return Origin(name, self.nodes(graph, name, sides[label]), label, errors[label], self.backward)

    def _judged(
        self, graph: Graph, sides: Mapping[str, Side], name: str, excess: float
    ) -> dict[str, float] | None:
        """The own errors by ONNX's float64 evaluator, which shares no kernel with any side: the runtime's own may be
        inexact. None where it has no answer, or one that neither side comes near.
        """
        try:
            errors = {label: self._own_error(graph, name, side, _in_float64) for label, side in sides.items()}
        except RuntimeFailure:
            return None
        return errors if min(errors.values()) < excess <= max(errors.values()) else None

    def _own_error(
        self, graph: Graph, name: str, side: Side, run: Callable[[Program, Arrays], Arrays]
    ) -> float:
        """How far a side's array is from what the graph makes of the side's own arrays around it."""
        program = self.program(graph, name, side)
        given = side.given
        (found,) = run(program, {key: given[key] for key in program.inputs}).values()
        return relative_distance(found, self.arrays(side)[name])


def _on_runtime(program: Program, given: Arrays) -> Arrays:
    """The results of a program on ONNX Runtime, in the precision of the model."""
    proto, weights = program.apart()
    session = make_session(proto, ["CPUExecutionProvider"], weights=weights)
    return dict(zip(program.outputs, session.run(None, given), strict=True))


def _in_float64(program: Program, given: Arrays) -> Arrays:
    """The results of a program on ONNX's reference evaluator, in float64."""
    graph = in_precision(Graph.from_proto(program.proto), FLOAT64)
    double = assemble(graph, Builder(graph.opset), {name: graph.tensors[name] for name in graph.outputs})
    feeds = {n: a.astype(np.float64) if is_float(a.dtype) else a for n, a in given.items()}
    found = ReferenceSession(double.proto).run(feeds)
    return dict(zip(double.outputs, found, strict=True))


_VALUES = _Pass(lambda side: side.values, _value_program, _segment, backward=False)
_GRADIENTS = _Pass(lambda side: side.gradients, _gradient_program, way_on, backward=True)
