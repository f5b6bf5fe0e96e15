"""Explain a disagreement of gradients by decisions at kinks, or refuse to.

Rounding moves the decisions of ReLU, MaxPool, Clip… whose input sits on the kink, and gradients jump. Such an excess
is excused only where three things are shown: some node's local derivative differs between the two sides although its
inputs agree within the tolerance (the decision, named and counted); each side's gradient is exactly the backward pass,
by our rules, of its own forward values; and with these decisions held equal, one side's backward pass gives the other's
gradient. A wrong rule or a wrong layer fails the second, a difference of another kind beside the decisions the third.
Where a side took another subgradient at an exact tie (ties.py), the gradients that show it are taken as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from analyzer.autodiff import path_nodes
from analyzer.backends.onnxruntime import make_session
from analyzer.checks.metrics import distance
from analyzer.emitter import Emitter
from analyzer.graph import Graph, Node
from analyzer.ops import find
from analyzer.ops.registry import Kind
from analyzer.program import Program, assemble
from analyzer.request import gradient_name, observe, remainder_program, seed_name

Arrays = dict[str, np.ndarray]

# A decision changes a derivative by its whole size; rounding of a smooth one by far less.
JUMP = 1e-2


@dataclass(frozen=True)
class Decision:
    """A node whose local derivative differs between two sides, at `count` elements."""

    node: Node
    count: int

    def __str__(self) -> str:
        plural = "s" * (self.count > 1)
        return f"{self.count} decision{plural} of {self.node.op_type} {self.node.outputs[0]!r}"


@dataclass(frozen=True)
class Tie:
    """Decisions that a side took otherwise than our rules at exact ties, and the tensors whose gradient shows it."""

    tensors: tuple[str, ...]
    decisions: tuple[Decision, ...]


@dataclass(frozen=True)
class Side:
    """One backend's reading: values and gradients by tensor name, on the same inputs, and its own choices at ties.

    seeds: the weights of the explained scalar over every output that it is made of.
    """

    values: Arrays
    gradients: Arrays
    ties: tuple[Tie, ...] = ()
    seeds: Arrays = field(default_factory=dict)

    @property
    def outputs(self) -> tuple[str, ...]:
        """What the explained scalar is made of."""
        return tuple(self.seeds)

    @property
    def given(self) -> Arrays:
        """What a program that goes on from it is fed, by the names of the program's inputs."""
        gradients = {gradient_name(name): array for name, array in self.gradients.items()}
        return {**self.values, **gradients, **{seed_name(name): array for name, array in self.seeds.items()}}

    @property
    def tied(self) -> list[Decision]:
        """Its own choices at ties."""
        return [decision for tie in self.ties for decision in tie.decisions]

    @property
    def chosen(self) -> tuple[str, ...]:
        """The tensors whose gradients show a choice of its own."""
        return tuple(name for tie in self.ties for name in tie.tensors)


@dataclass(frozen=True)
class Explanation:
    """Why two sides' gradients differ. held: one side's reading with the other's decisions, and its choices at ties."""

    text: str
    held: Side


def explain(graph: Graph, a: Side, b: Side, wrt: Sequence[str], tolerance: float) -> Explanation | None:
    """Why the gradients of two sides at `wrt` differ: the decisions, or None where they do not explain it.

    The side that chose otherwise at exact ties, where there is one, is b.
    """
    a, b = (_completed(graph, wrt, side) for side in (a, b))
    decisions = differing_decisions(graph, wrt, a.outputs, a.values, b.values, tolerance)
    if not decisions and not b.ties:
        return None
    if not all(follows_rules(graph, side, tolerance, wrt) for side in (a, b)):
        return None
    held = {name: b.values[name] for name in _held(graph, wrt, a.outputs, decisions)}
    alike = replace(b, values={**a.values, **held})
    apart = _backward_error(graph, alike, wrt)
    if apart > tolerance:
        return None
    reasons = [
        f"{listed(found)} {where}"
        for found, where in ((decisions, "within rounding of a kink"), (b.tied, "at an exact tie"))
        if found
    ]
    return Explanation(f"{'; '.join(reasons)}; held equal, the gradients agree to {apart:.0e}", alike)


def listed(decisions: Sequence[Decision]) -> str:
    """Decisions as a phrase, the first few by name."""
    shown = "; ".join(str(decision) for decision in decisions[:3])
    return shown + (f"; and {len(decisions) - 3} more nodes" if len(decisions) > 3 else "")


def _held(
    graph: Graph, roots: Sequence[str], outputs: tuple[str, ...], decisions: Sequence[Decision]
) -> set[str]:
    """The tensors that the decisions hang on, and those of decisions that share one with them.

    A maximum is looked for among the values it was taken from: a node's input and output are of one side.
    """
    held = {name for one in decisions for name in _read_and_given(graph, one.node)}
    nodes = [_read_and_given(graph, node) for node in decision_nodes(graph, roots, outputs)]
    while grown := {name for names in nodes if held.intersection(names) for name in names} - held:
        held |= grown
    return held


def decision_tensors(graph: Graph, roots: Sequence[str], outputs: tuple[str, ...]) -> frozenset[str]:
    """The tensors that decisions at kinks hang on: what nodes with a value-dependent derivative read and give."""
    return frozenset(
        name
        for node in decision_nodes(graph, roots, outputs)
        for name in _read_and_given(graph, node)
        if graph.tensors[name].is_float or name in node.outputs
    )


def _read_and_given(graph: Graph, node: Node) -> list[str]:
    """What a node reads that is no constant, and all that it gives: the places that TopK chose, a shape to fill."""
    names = (*node.inputs, *node.outputs)
    return [name for name in names if name and graph.tensors[name].constant is None]


def differing_decisions(
    graph: Graph, roots: Sequence[str], outputs: tuple[str, ...], a: Arrays, b: Arrays, tolerance: float
) -> list[Decision]:
    """The nodes on the path whose local derivative jumps between the values of two sides, in graph order."""
    counted = ((node, jumps(graph, node, a, b, tolerance)) for node in decision_nodes(graph, roots, outputs))
    return [Decision(node, count) for node, count in counted if count]


def decision_nodes(graph: Graph, roots: Sequence[str], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes on the path from the roots whose derivative depends on their values and may jump."""
    found = []
    for node in path_nodes(graph, roots, outputs):
        rules = find(node)
        kinds = (Kind.HOMOGENEOUS, Kind.ELEMENTWISE)
        if (
            rules is not None
            and rules.kind in kinds
            and rules.vjp is not None
            and _local_derivative(graph, node)
        ):
            found.append(node)
    return found


def _completed(graph: Graph, roots: Sequence[str], side: Side) -> Side:
    """A side with the values that it lacks at decisions computed from those it has."""
    missing = sorted(decision_tensors(graph, roots, side.outputs) - side.values.keys())
    if not missing:
        return side
    wanted = {name: graph.tensors[name] for name in missing}
    program = assemble(graph, Emitter(graph.opset), wanted, available=list(side.values))
    session = make_session(program.proto, ["CPUExecutionProvider"])
    found = session.run(list(program.outputs.values()), {name: side.values[name] for name in program.inputs})
    return replace(side, values={**side.values, **dict(zip(program.outputs, found, strict=True))})


def jumps(graph: Graph, node: Node, a: Arrays, b: Arrays, tolerance: float = np.inf) -> int:
    """At how many elements the derivative of one node differs, its inputs being equal within rounding."""
    names = _read_and_given(graph, node)
    if any(name not in a or name not in b for name in names):
        return 0
    if all(np.array_equal(a[name], b[name]) for name in names):
        return 0
    floats = [name for name in names if graph.tensors[name].is_float]
    if any(distance(a[name], b[name]).relative_l2 > tolerance for name in floats):
        return 0
    program = _local_derivative(graph, node)
    if program is None:
        return 0
    session = make_session(program.proto, ["CPUExecutionProvider"])
    y = node.outputs[0]
    results = []
    for side in (a, b):
        feeds = {**side, gradient_name(y): np.ones_like(side[y])}
        results.append(session.run(None, {name: feeds[name] for name in program.inputs}))
    count = 0
    for left, right in zip(*results, strict=True):
        scale = max(float(np.abs(left).max(initial=0.0)), float(np.abs(right).max(initial=0.0)))
        count += int((np.abs(left - right) > JUMP * scale).sum()) if scale else 0
    return count


def _local_derivative(graph: Graph, node: Node) -> Program | None:
    """The VJP of one node as a program of its own values; None where it does not depend on them."""
    wrt = tuple(
        name
        for name in dict.fromkeys(node.inputs)
        if name and graph.tensors[name].is_float and graph.tensors[name].constant is None
    )
    alone = Graph((node,), graph.tensors, graph.inputs, (node.outputs[0],), graph.opset)
    program = remainder_program(alone, observe((), wrt), graph.tensors.keys(), [node.outputs[0]])
    reads_values = any(name != gradient_name(node.outputs[0]) for name in program.inputs)
    return program if reads_values else None


def follows_rules(
    graph: Graph,
    side: Side,
    tolerance: float,
    wrt: Sequence[str] | None = None,
) -> bool:
    """Whether a side's gradients are the backward pass, by our rules and its choices at ties, of its own values."""
    at = list(side.gradients) if wrt is None else wrt
    return _backward_error(graph, side, at) <= tolerance


def _backward_error(graph: Graph, side: Side, wrt: Sequence[str]) -> float:
    """How far gradients are from what our rules give on the side's forward values: the worst relative L2.

    The gradients that show a choice at a tie are taken as they are.
    """
    program = remainder_program(graph, observe((), wrt), list(side.values), side.chosen, seeds=side.outputs)
    session = make_session(program.proto, ["CPUExecutionProvider"])
    given = side.given
    found = session.run(
        [program.outputs[gradient_name(name)] for name in wrt], {name: given[name] for name in program.inputs}
    )
    return max(
        distance(array, side.gradients[name]).relative_l2 for name, array in zip(wrt, found, strict=True)
    )
