"""Find where two readings part: the node that computes something else, not merely the first tensor that shows it.

Every tensor is computed anew, by the graph's own node, from the *same side's* values of what it reads; every gradient
likewise by our rule from the same side's gradients behind it. Rounding that has piled up before a node is in its inputs
on both counts, so what is left is the node's own error: at the defect it is the whole difference, elsewhere rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.backends.onnxruntime import make_session
from analyzer.checks.kinks import Arrays, Side
from analyzer.checks.metrics import distance
from analyzer.emitter import Emitter
from analyzer.graph import Graph, Node
from analyzer.program import Program, assemble
from analyzer.request import gradient_name, observe, remainder_program

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
        names = ", ".join(f"{node.op_type} {node.name!r}" for node in self.nodes[-3:])
        more = f" and {len(self.nodes) - 3} more before" if len(self.nodes) > 3 else ""
        what = f"the gradient at {self.tensor!r}" if self.backward else f"{self.tensor!r}"
        where = "what follows it" if self.backward else "its own inputs"
        return f"{names}{more}: {what} of {self.side} is {self.error:.1e} from what {where} give"


def forward_origin(
    graph: Graph, sides: Mapping[str, Side], apart: Mapping[str, float], roots: Iterable[str] = ()
) -> Origin | None:
    """The first node whose values differ by themselves. apart: {tensor: relative L2 between the sides}."""
    fed = frozenset(roots)
    order = [name for name in apart if name not in fed]
    return _first(order, apart, sides, lambda name, side: _value_program(graph, name, side), graph, False)


def backward_origin(graph: Graph, sides: Mapping[str, Side], apart: Mapping[str, float]) -> Origin | None:
    """The first node of the backward pass whose gradient differs by itself. apart: of gradients, in graph order."""
    order = list(apart)[::-1]
    return _first(order, apart, sides, lambda name, side: _gradient_program(graph, name, side), graph, True)


def _first(
    order: Sequence[str],
    apart: Mapping[str, float],
    sides: Mapping[str, Side],
    program_of: Callable[[str, Side], Program],
    graph: Graph,
    backward: bool,
) -> Origin | None:
    for name in order:
        errors = {
            label: _own_error(program_of(name, side), name, side, backward) for label, side in sides.items()
        }
        label = max(errors, key=lambda key: errors[key])
        if errors[label] >= OWN * apart[name]:
            nodes = _consumers(graph, name) if backward else _segment(graph, name, sides[label])
            return Origin(name, nodes, label, errors[label], backward)
    return None


def _value_program(graph: Graph, name: str, side: Side) -> Program:
    known = [other for other in side.values if other != name]
    return assemble(graph, Emitter(graph.opset), {name: graph.tensors[name]}, available=known)


def _gradient_program(graph: Graph, name: str, side: Side) -> Program:
    known = [other for other in side.gradients if other != name]
    return remainder_program(graph, observe((), (name,)), list(side.values), known)


def _own_error(program: Program, name: str, side: Side, backward: bool) -> float:
    """How far a side's tensor, or gradient, is from what the graph makes of the side's own arrays around it."""
    given: dict[str, np.ndarray] = {
        **side.values,
        **{gradient_name(key): array for key, array in side.gradients.items()},
    }
    session = make_session(program.proto, ["CPUExecutionProvider"])
    (found,) = session.run(None, {key: given[key] for key in program.inputs})
    mine: Arrays = side.gradients if backward else side.values
    return distance(found, mine[name]).relative_l2


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


def _consumers(graph: Graph, name: str) -> tuple[Node, ...]:
    return tuple(
        node
        for node in graph.consumers.get(name, ())
        if any(graph.tensors[o].is_float for o in node.outputs if o)
    )
