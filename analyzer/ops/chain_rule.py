"""The chain rule over a graph: from the gradients of some tensors to those of the tensors they are computed from.

`pull_back` applies one VJP rule a node, in reverse order, and adds what the rules contribute. The graph is that of a
model (analyzer/autodiff/sweep.py), or the step of a Scan that is being written (analyzer/ops/recurrent/steps.py).
Refuses a node on the path that has no rule, and broadcasts between tensors of unknown rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.ops.masking import entries as entries_of
from analyzer.ops.registry import Kind, find
from analyzer.ops.rules import rules_of
from analyzer.ops.support import sum_grown

NONE: Mapping[str, Tensor] = MappingProxyType({})


def carries_gradient(graph: Graph, node: Node, index: int) -> bool:
    """Whether a derivative can pass from the output of a node to `node.reads[index]`.

    An op without a class is taken to pass it on, so that it is refused and never silently skipped; what its
    subgraphs read from the graph around it comes behind its inputs.
    """
    if not graph.tensors[node.reads[index]].is_float:
        return False
    if not any(graph.tensors[name].is_float for name in node.outputs if name):
        return False
    rules = find(node)
    return rules is None or (rules.kind is not Kind.CONSTANT and index not in rules.inactive)


def active_tensors(graph: Graph, roots: Iterable[str], blocked: Iterable[str] = ()) -> frozenset[str]:
    """Float tensors that depend differentiably on `roots`, without passing through `blocked`."""
    stop = frozenset(blocked)

    def passes(node: Node, index: int) -> bool:
        return node.reads[index] not in stop and carries_gradient(graph, node, index)

    reached = graph.descendants(roots, passes)
    return frozenset(name for name in reached if graph.tensors[name].is_float)


def pull_back(
    graph: Graph,
    op: Builder,
    found: dict[str, Tensor],
    active: frozenset[str],
    given: Mapping[str, Tensor] = NONE,
    *,
    broadcasts: bool = True,
) -> None:
    """Emit the gradients of the `active` tensors, and add them to `found`.

    found: what is known to contribute to the gradients of tensors, by their names; it grows.
    given: whole gradients, which nothing is added to.
    broadcasts: False where no input of a node is smaller than its output; shapes may then be unknown.
    Raises UnsupportedOp where a node on the path has no rule.
    """
    for node in reversed(graph.nodes):
        # A gradient is given, or the sum of the contributions of its consumers, which have all been visited.
        gradients = [given.get(name) or found.get(name) for name in node.outputs]
        if any(g is not None for g in gradients):
            _through(graph, op, node, gradients, active, found, broadcasts)


def add(op: Builder, found: dict[str, Tensor], u: Tensor, entry: Tensor) -> None:
    """Add one contribution to the gradient of a tensor.

    Contributions are added as they come, two by two. The steps of an unrolled sequence contribute one gradient each, as
    large as the sequence; they are not to be held side by side. (Measured, ONNX Runtime's Sum of three takes as long as
    four Adds.)
    """
    entry = op.shaped(entry, u.shape)
    found[u.name] = op.shaped(op.Add(found[u.name], entry), u.shape) if u.name in found else entry


def _through(
    graph: Graph,
    op: Builder,
    node: Node,
    gradients: list[Tensor | None],
    active: frozenset[str],
    found: dict[str, Tensor],
    broadcasts: bool,
) -> None:
    """Apply one node's rule and add its contributions to `found`."""
    targets = [
        index
        for index, name in enumerate(node.reads)
        if name and name in active and carries_gradient(graph, node, index)
    ]
    if not targets:
        return
    rules = rules_of(node)
    if rules.has_bodies:
        assert rules.vjp is not None
        names = list(dict.fromkeys(node.reads[index] for index in targets))
        for name, entry in zip(names, rules.vjp(op, graph, node, gradients, names), strict=True):
            add(op, found, graph.tensors[name], entry)
        return
    outputs = graph.outputs_of(node)
    g, y = (tuple(gradients), tuple(outputs)) if rules.several_outputs else (gradients[0], outputs[0])
    if g is None:
        return
    with op.differentiating(node):
        entries = entries_of(op, rules, g, y, graph.inputs_of(node), node.attributes)
        assert len(entries) >= len(node.inputs), (
            f"{node}: {len(entries)} entries for {len(node.inputs)} inputs"
        )
        for index in targets:
            entry = entries[index]() if callable(entries[index]) else entries[index]
            if entry is None:
                continue
            u = graph.tensors[node.inputs[index]]
            if rules.broadcasts and broadcasts:
                assert outputs[0] is not None
                entry = unbroadcast(op, entry, outputs[0], u, node)
            add(op, found, u, entry)


def unbroadcast(op: Builder, g: Tensor, y: Tensor, u: Tensor, node: Node) -> Tensor:
    """Sum a contribution shaped like the output back to the shape of the input that was broadcast."""
    if y.shape is None or u.shape is None:
        raise UnsupportedOp(
            f"{node}: the rank of {(y if y.shape is None else u).name!r} is unknown. {TRACED}"
        )
    return sum_grown(op, g, y, u)
