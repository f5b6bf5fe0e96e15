"""Reverse-mode differentiation as a graph transformation: append nodes that compute ∂target/∂tensor.

From a canonical Graph, cotangents at some tensors and the tensors wanted (`wrt`), `sweep` emits plain
`ai.onnx` nodes through a Builder and returns the gradient of each wanted tensor. Only nodes between a
wanted tensor and a cotangent are differentiated. A tensor whose cotangent is given is never swept
through: the seed is one such tensor, gradients measured elsewhere (by a native framework) are others.
Refuses, by name, a node on that path that has no VJP rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from analyzer.errors import UnsupportedOp, note
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.ops import find
from analyzer.ops.chain_rule import active_tensors, carries_gradient, pull_back
from analyzer.ops.registry import Op
from analyzer.ops.rules import rules_of
from analyzer.target.suppressed import before_suppression

__all__ = [
    "active_tensors",
    "carries_gradient",
    "check_gradient_paths",
    "leading_tensors",
    "path_ends",
    "path_nodes",
    "quantizers_between",
    "refuse_zero_derivatives",
    "rules_of",
    "sweep",
]


def leading_tensors(graph: Graph, targets: Iterable[str]) -> frozenset[str]:
    """Float tensors on which one of the `targets` depends differentiably."""
    found = set(targets)
    for node in reversed(graph.nodes):
        if found.intersection(node.outputs):
            found.update(
                name for index, name in enumerate(node.reads) if name and carries_gradient(graph, node, index)
            )
    return frozenset(found)


def path_nodes(graph: Graph, roots: Iterable[str], targets: tuple[str, ...]) -> tuple[Node, ...]:
    """The nodes on a differentiable path from `roots` to one of the `targets`, in topological order."""
    active = active_tensors(graph, roots)
    leading = leading_tensors(graph, targets)
    return tuple(
        node
        for node in graph.nodes
        if any(name in active and name in leading for name in node.outputs)
        and any(
            name in active and carries_gradient(graph, node, index)
            for index, name in enumerate(node.reads)
            if name
        )
    )


def quantizers_between(graph: Graph, roots: Iterable[str], target: str) -> tuple[Node, ...]:
    """The nodes that round a float which depends on `roots` to codes that lead to the target, in order."""
    return _between(graph, roots, target, lambda rules: rules.quantizes)


def _between(
    graph: Graph, roots: Iterable[str], target: str, wanted: Callable[[type[Op]], bool]
) -> tuple[Node, ...]:
    nodes = [node for node in graph.nodes if (rules := find(node)) is not None and wanted(rules)]
    if not nodes:
        return ()
    active, leading = active_tensors(graph, roots), graph.ancestors([target])
    return tuple(node for node in nodes if node.inputs[0] in active and node.outputs[0] in leading)


def refuse_zero_derivatives(graph: Graph, roots: Iterable[str], target: str) -> None:
    """Raise UnsupportedOp where a quantizer or a draw lies between: its derivative is not what anybody asks for."""
    if found := quantizers_between(graph, roots, target):
        raise UnsupportedOp(
            f"{found[0]} lies between the input and the target and rounds: its derivative is zero. "
            "Fix: differentiate straight through the rounding with straight_through=True (--straight-through)"
        )
    if found := _between(graph, roots, target, lambda rules: rules.draws):
        raise UnsupportedOp(
            f"{found[0]} lies between the input and the target and draws at random from a distribution that depends on "
            "the input: it has no derivative. Fix: attribute a tensor downstream of it with wrt= (--wrt), or explain a "
            "tensor before it"
        )


_SHAPE_ALONE = {
    "Shape": 0,
    "Size": 0,
    "EyeLike": 0,
    "RandomNormalLike": 0,
    "RandomUniformLike": 0,
    "CastLike": 1,
}
"""Ops that read an input for its shape or type, not for its values."""


def check_gradient_paths(graph: Graph, wrt: Iterable[str], outputs: Sequence[str], *, named: bool) -> None:
    """Refuse gradients that are zero only because a step or a cast to integers lies on every path to the target.

    named: whether the caller named `wrt`. A tensor whose values do not change the target has the gradient 0, rightly.
    Raises UnsupportedOp where no tensor that changes the target has a differentiable path, or an input that is
    named has none; warns of an input that is not named.
    """
    wrt = list(dict.fromkeys(wrt))
    for output in outputs:
        refuse_zero_derivatives(graph, wrt, output)
    leading, changing = leading_tensors(graph, outputs), graph.ancestors(outputs)

    def by_value(node: Node, index: int) -> bool:
        return _SHAPE_ALONE.get(node.op_type) != index

    differentiable = leading_tensors(graph, (name for name in outputs if graph.tensors[name].is_float))
    lost, reaching = [], []
    # Imported here: the rule reads what is active.
    from analyzer.autodiff.cancelling import cancels, remainders

    stepped = bool(path_ends(graph, wrt, outputs)) or bool(remainders(graph, wrt, outputs))
    # The terms of a method lie behind its inputs, and may be many.
    cancelled = [name for name in wrt if name in graph.inputs] or wrt
    for name in wrt:
        if name in outputs or name not in changing:
            continue
        passes = name in differentiable
        steps = (
            stepped
            and name in cancelled
            and (path_ends(graph, [name], outputs) or remainders(graph, [name], outputs))
        )
        if passes and not (steps and cancels(graph, name, outputs)):
            reaching.append(name)
        elif not graph.descendants([name], by_value).isdisjoint(outputs):
            lost.append(name)
    inputs = [name for name in lost if name in graph.inputs]
    # The terms of a method may reach the target where no input does: sums between cancel what bypasses a step.
    others = graph.inputs if inputs else reaching
    if lost and (not set(reaching).intersection(others) or (named and inputs)):
        raise UnsupportedOp(_lost_path(graph, (inputs or lost)[0], outputs, leading))
    for name in inputs:
        note(_lost_path(graph, name, outputs, leading), UserWarning)


def path_ends(graph: Graph, roots: Iterable[str], targets: Iterable[str]) -> tuple[Node, ...]:
    """The nodes that read what depends on the roots, lead to a target, and pass no derivative on."""
    active, leading = active_tensors(graph, roots), graph.ancestors(targets)
    return tuple(
        node
        for node in graph.nodes
        if leading.intersection(node.outputs)
        and active.intersection(node.reads)
        and not any(name in active and carries_gradient(graph, node, i) for i, name in enumerate(node.reads))
    )


def _lost_path(graph: Graph, name: str, outputs: Sequence[str], leading: frozenset[str]) -> str:
    """Say where every path from a tensor to the target ends, and what to attribute in its place."""
    from analyzer.autodiff.cancelling import remainders

    ends = path_ends(graph, [name], outputs) or remainders(graph, [name], outputs)
    ends = ends or tuple(
        node for node in graph.nodes if name in node.reads and not _carries(graph, node, name)
    )
    behind = graph.descendants({output for node in ends for output in node.outputs if output})
    first = [
        output
        for node in graph.nodes
        for output in node.outputs
        if output in behind and output in leading and graph.tensors[output].is_float
        and not any(u in behind and u in leading and carries_gradient(graph, node, i) for i, u in enumerate(node.reads))
    ]  # fmt: skip
    where = ", ".join(str(node) for node in ends[:3]) or "ops without a derivative"
    first = [output for output in first if output not in outputs]
    proposal = before_suppression(graph)
    if proposal is not None and proposal.node in ends:
        fix = proposal.fix
    elif not first:
        fix = "explain a tensor that is computed before it, as in Target('logits') (--target logits=)"
    else:
        fix = f"attribute what is computed after it, wrt={first[:3]}"
    every = (
        "every path"
        if active_tensors(graph, [name]).isdisjoint(outputs)
        else "every path that does not cancel"
    )
    if any(node.op_type == "Round" for node in ends):
        fix += ", or differentiate through Round by straight_through=True"
    return (
        f"the gradient at {name!r} says nothing about the target: {every} to {outputs[0]!r} ends at {where}, "
        f"whose derivative is zero. Fix: {fix}."
    )


def _carries(graph: Graph, node: Node, name: str) -> bool:
    return any(u == name and carries_gradient(graph, node, i) for i, u in enumerate(node.reads))


def sweep(
    graph: Graph,
    op: Builder,
    cotangents: Mapping[str, Tensor],
    wrt: Iterable[str],
    seeds: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Emit the gradient of each tensor in `wrt`; zeros where the target does not depend on it.

    cotangents: the whole gradient at some tensors. seeds: what the target adds to that of others, which may be
    computed from one another, as probabilities are from logits.
    Raises UnsupportedOp where a node on the way has no rule.
    """
    wanted = [name for name in dict.fromkeys(wrt) if name not in cotangents]
    found = {name: op.shaped(seed, graph.tensors[name].shape) for name, seed in (seeds or {}).items()}
    if wanted:
        active = active_tensors(graph, wanted, blocked=cotangents) - cotangents.keys()
        pull_back(graph, op, found, active, cotangents)
    return {
        name: cotangents.get(name) or found.get(name) or _zeros_like(op, graph.tensors[name])
        for name in dict.fromkeys(wrt)
    }


def _zeros_like(op: Builder, x: Tensor) -> Tensor:
    """Zeros, whatever x holds: multiplying by zero would keep a NaN."""
    return op.Expand(op.tensor(np.zeros((), x.dtype)), op.Shape(x))
