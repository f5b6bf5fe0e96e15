"""Say, before running, what of a graph can be differentiated: the path, which backend covers it, what blocks.

Reads a canonical Graph, returns frozen records. A rule that exists may refuse a node's own attributes, so each
node's rule is tried: it emits its nodes, and what it refuses is the reason. Nothing is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx

from analyzer.autodiff.sweep import (
    active_tensors,
    carries_gradient,
    path_ends,
    path_nodes,
    quantizers_between,
    sweep,
)
from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.ops import find
from converters.graph.opset import CANONICAL_OPSET
from converters.passes.unroll import REASON_KEY

GRADIENT_GRAPH = "onnxruntime"
FRAMEWORKS = ("torch", "tensorflow")
STRAIGHT_THROUGH_HINT = (
    "it rounds to codes or reads them, so that its derivative is zero: --straight-through (straight_through=True) "
    "differentiates straight through the rounding"
)


@dataclass(frozen=True)
class DifferentiablePath:
    """The nodes between what is attributed and the outputs.

    roots: the float inputs; of a model without any, the first float tensors computed from its inputs (an embedding).
    outputs: the float outputs that depend on them.
    ends: where no path reaches an output, the nodes at which the derivative is zero.
    """

    roots: tuple[str, ...]
    from_inputs: bool
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    ends: tuple[Node, ...]


@dataclass(frozen=True)
class Blocker:
    """A node that a backend cannot take, why, and whether it lies on the path or merely has to be run."""

    node: Node
    reason: str
    on_path: bool


@dataclass(frozen=True)
class Coverage:
    """How many nodes of the path a backend covers, and each node that blocks it."""

    covered: int
    total: int
    blockers: tuple[Blocker, ...]


def differentiable_path(graph: Graph) -> DifferentiablePath:
    """The path from the float inputs, or else from the first float tensors, to the float outputs."""
    inputs = tuple(name for name in graph.inputs if graph.tensors[name].is_float)
    roots = inputs or inner_roots(graph)
    floats = [name for name in graph.outputs if graph.tensors[name].is_float]
    found = {id(node) for node in path_nodes(graph, roots, tuple(floats))}
    direct = {name for node in graph.nodes if id(node) in found for name in node.outputs}
    coded = {name: _path_of_codes(graph, roots, name) for name in floats if name not in direct}
    found.update(id(node) for nodes in coded.values() for node in nodes)
    nodes = tuple(node for node in graph.nodes if id(node) in found)
    reached = tuple(name for name in floats if name in direct or coded[name])
    return DifferentiablePath(
        roots, bool(inputs), reached, nodes, () if nodes else path_ends(graph, roots, graph.outputs)
    )


def _path_of_codes(graph: Graph, roots: Sequence[str], target: str) -> tuple[Node, ...]:
    """The nodes between where quantizers stand between: through codes, which carry no derivative themselves."""
    if not quantizers_between(graph, roots, target):
        return ()

    def passes(node: Node, index: int) -> bool:
        return carries_gradient(graph, node, index) or is_on_codes(graph, node)

    reached, leading = graph.descendants(roots, passes), graph.ancestors([target])
    return tuple(
        node
        for node in graph.nodes
        if leading.intersection(node.outputs)
        and any(name in reached and passes(node, index) for index, name in enumerate(node.inputs))
    )


def is_on_codes(graph: Graph, node: Node) -> bool:
    """Whether a node between quantizers rounds to codes or reads them."""
    rules = find(node)
    if rules is None or rules.has_bodies:
        # An integer input of a loop is a count, not a code.
        return False
    return rules.quantizes or any(graph.tensors[name].dtype.kind in "iu" for name in node.inputs[:1] if name)


def inner_roots(graph: Graph) -> tuple[str, ...]:
    """The float tensors computed from no float tensor but constants: what a lookup of integers gives.

    Only those that lead to a float output, and casts only where there is nothing better: an embedding is
    attributed, a mask made a float is not.
    """
    leading = graph.ancestors(name for name in graph.outputs if graph.tensors[name].is_float)
    computed = graph.descendants(graph.inputs)
    first = [
        node
        for node in graph.nodes
        if computed.intersection(node.reads)
        and not any(_is_variable_float(graph, name, computed) for name in node.reads if name)
        and any(name in leading and graph.tensors[name].is_float for name in node.outputs if name)
    ]
    chosen = [node for node in first if node.op_type not in ("Cast", "CastLike")] or first
    return tuple(n for node in chosen for n in node.outputs if n in leading and graph.tensors[n].is_float)


def _is_variable_float(graph: Graph, name: str, computed: frozenset[str]) -> bool:
    return name in computed and graph.tensors[name].is_float


def coverage(graph: Graph, path: DifferentiablePath) -> dict[str, Coverage]:
    """Per backend that runs the ONNX graph: its Coverage."""
    active = active_tensors(graph, path.roots)
    refused = {id(node): why for node in path.nodes if (why := vjp_refusal(graph, node, active)) is not None}
    on_codes = {id(node): STRAIGHT_THROUGH_HINT for node in path.nodes if is_on_codes(graph, node)}
    refused.update(on_codes)
    found = {GRADIENT_GRAPH: _coverage(path, path.nodes, refused)}
    for framework in FRAMEWORKS:
        # A framework runs the whole graph, not the differentiable part alone.
        missing = {id(n): why for n in graph.nodes if (why := form_refusal(n, framework)) is not None}
        missing.update(on_codes)
        found[framework] = _coverage(path, graph.nodes, missing)
    return found


def _coverage(path: DifferentiablePath, nodes: Sequence[Node], refused: dict[int, str]) -> Coverage:
    on_path = {id(node) for node in path.nodes}
    blockers = tuple(Blocker(n, refused[id(n)], id(n) in on_path) for n in nodes if id(n) in refused)
    covered = sum(id(node) not in refused for node in path.nodes)
    return Coverage(covered, len(path.nodes), blockers)


def vjp_refusal(graph: Graph, node: Node, active: frozenset[str]) -> str | None:
    """Why no derivative can be taken through a node as it is, or None: its rule is tried."""
    rules = find(node)
    if rules is None or rules.vjp is None:
        return unknown(node) if rules is None else "it has no VJP rule"
    alone = replace(graph, nodes=(node,))
    seeds = {
        name: Tensor(f"cotangent/{name}", graph.tensors[name].dtype, graph.tensors[name].shape)
        for name in node.outputs
        if name and name in active
    }
    try:
        sweep(alone, Builder(graph.opset), seeds, [name for name in node.reads if name in active])
    except UnsupportedOp as error:
        return str(error)
    return None


def form_refusal(node: Node, framework: str) -> str | None:
    """Why a framework cannot run a node, or None."""
    rules = find(node)
    if rules is None:
        return unknown(node)
    if getattr(rules, framework) is None:
        return f"it has no {framework} form"
    bodies = [
        Graph.from_body(one, CANONICAL_OPSET)
        for one in node.attributes.values()
        if isinstance(one, onnx.GraphProto)
    ]
    inside = ((inner, form_refusal(inner, framework)) for body in bodies for inner in body.nodes)
    return next((f"{inner} within it: {why}" for inner, why in inside if why is not None), None)


def unknown(node: Node) -> str:
    """Why an op that has no class is not covered."""
    if node.domain:
        return f"{node.domain} is no domain of the ONNX standard: only a runtime with that library runs it"
    return node.metadata.get(REASON_KEY, 'it has no rule yet: CONTRIBUTING.md, "Add an op"')
