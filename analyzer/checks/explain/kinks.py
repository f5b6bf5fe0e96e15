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

from analyzer.autodiff.request import gradient_name, seed_name
from analyzer.autodiff.sweep import path_nodes
from analyzer.checks.metrics import relative_distance
from analyzer.checks.read.passes import Passes
from analyzer.graph.graph import Graph, Node
from analyzer.ops import find
from analyzer.ops.registry import Kind
from analyzer.types import Arrays

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


def explain(passes: Passes, a: Side, b: Side, wrt: Sequence[str], tolerance: float) -> Explanation | None:
    """Why the gradients of two sides at `wrt` differ: the decisions, or None where they do not explain it.

    The side that chose otherwise at exact ties, where there is one, is b.
    """
    a, b = (_completed(passes, wrt, side) for side in (a, b))
    decisions = differing_decisions(passes, wrt, a.outputs, a.values, b.values, tolerance)
    if not decisions and not b.ties:
        return None
    if not all(follows_rules(passes, side, tolerance, wrt) for side in (a, b)):
        return None
    held = {name: b.values[name] for name in _held(passes, wrt, a.outputs, decisions)}
    alike = replace(b, values={**a.values, **held})
    apart = _backward_error(passes, alike, wrt)
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
    passes: Passes, roots: Sequence[str], outputs: tuple[str, ...], decisions: Sequence[Decision]
) -> set[str]:
    """The tensors that the decisions hang on, and those of decisions that share one with them.

    A maximum is looked for among the values it was taken from: a node's input and output are of one side.
    """
    graph = passes.graph
    held = {name for one in decisions for name in _read_and_given(graph, one.node)}
    nodes = [_read_and_given(graph, node) for node in decision_nodes(passes, roots, outputs)]
    while grown := {name for names in nodes if held.intersection(names) for name in names} - held:
        held |= grown
    return held


def decision_tensors(passes: Passes, roots: Sequence[str], outputs: tuple[str, ...]) -> frozenset[str]:
    """The tensors that decisions at kinks hang on: what nodes with a value-dependent derivative read and give."""
    graph = passes.graph
    return frozenset(
        name
        for node in decision_nodes(passes, roots, outputs)
        for name in _read_and_given(graph, node)
        if graph.tensors[name].is_float or name in node.outputs
    )


def _read_and_given(graph: Graph, node: Node) -> list[str]:
    """What a node reads that is no constant, and all that it gives: the places that TopK chose, a shape to fill."""
    names = (*node.inputs, *node.outputs)
    return [name for name in names if name and graph.tensors[name].constant is None]


def differing_decisions(
    passes: Passes, roots: Sequence[str], outputs: tuple[str, ...], a: Arrays, b: Arrays, tolerance: float
) -> list[Decision]:
    """The nodes on the path whose local derivative jumps between the values of two sides, in graph order."""
    nodes = decision_nodes(passes, roots, outputs)
    counted = ((node, jumps(passes, node, a, b, tolerance)) for node in nodes)
    return [Decision(node, count) for node, count in counted if count]


def decision_nodes(passes: Passes, roots: Sequence[str], outputs: tuple[str, ...]) -> list[Node]:
    """The nodes on the path from the roots whose derivative depends on their values and may jump."""
    found = []
    for node in path_nodes(passes.graph, roots, outputs):
        rules = find(node)
        kinds = (Kind.HOMOGENEOUS, Kind.ELEMENTWISE)
        if rules is not None and rules.kind in kinds and rules.vjp is not None and passes.derivative(node):
            found.append(node)
    return found


def _completed(passes: Passes, roots: Sequence[str], side: Side) -> Side:
    """A side with the values that it lacks at decisions computed from those it has."""
    missing = sorted(decision_tensors(passes, roots, side.outputs) - side.values.keys())
    if not missing:
        return side
    return replace(side, values={**side.values, **passes.values(missing, side.values).run(side.values)})


def jumps(passes: Passes, node: Node, a: Arrays, b: Arrays, tolerance: float = np.inf) -> int:
    """At how many elements the derivative of one node differs, its inputs being equal within rounding."""
    names = _read_and_given(passes.graph, node)
    if any(name not in a or name not in b for name in names):
        return 0
    if all(np.array_equal(a[name], b[name]) for name in names):
        return 0
    floats = [name for name in names if passes.graph.tensors[name].is_float]
    if any(relative_distance(a[name], b[name]) > tolerance for name in floats):
        return 0
    derivative = passes.derivative(node)
    if derivative is None:
        return 0
    y = node.outputs[0]
    left, right = (derivative.run({**side, gradient_name(y): np.ones_like(side[y])}) for side in (a, b))
    return sum(_jumping(left[name], right[name]) for name in left)


def _jumping(left: np.ndarray, right: np.ndarray) -> int:
    """The number of elements at which two derivatives differ by more than rounding."""
    scale = max(float(np.abs(left).max(initial=0.0)), float(np.abs(right).max(initial=0.0)))
    return int((np.abs(left - right) > JUMP * scale).sum()) if scale else 0


def follows_rules(
    passes: Passes,
    side: Side,
    tolerance: float,
    wrt: Sequence[str] | None = None,
) -> bool:
    """Whether a side's gradients are the backward pass, by our rules and its choices at ties, of its own values."""
    at = list(side.gradients) if wrt is None else wrt
    return _backward_error(passes, side, at) <= tolerance


def _backward_error(passes: Passes, side: Side, wrt: Sequence[str]) -> float:
    """How far gradients are from what our rules give on the side's forward values: the worst relative L2.

    The gradients that show a choice at a tie are taken as they are.
    """
    found = passes.gradients(wrt, side.values, side.chosen, side.outputs).run(side.given)
    return max(relative_distance(found[gradient_name(name)], side.gradients[name]) for name in wrt)
