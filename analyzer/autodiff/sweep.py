"""Reverse-mode differentiation as a graph transformation: append nodes that compute ∂target/∂tensor.

From a canonical Graph, cotangents at some tensors and the tensors wanted (`wrt`), `sweep` emits plain
`ai.onnx` nodes through a Builder and returns the gradient of each wanted tensor. Only nodes between a
wanted tensor and a cotangent are differentiated. A tensor whose cotangent is given is never swept
through: the seed is one such tensor, gradients measured elsewhere (by a native framework) are others.
Refuses, by name, a node on that path that has no VJP rule.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from analyzer.autodiff.masking import entries as entries_of
from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Graph, Node, Shape, Tensor
from analyzer.ops import find
from analyzer.ops.registry import Kind, Op
from converters.passes.unroll import REASON_KEY


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
        warnings.warn(_lost_path(graph, name, outputs, leading), stacklevel=4)


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
    if not first:
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
        for node in reversed(graph.nodes):
            # A gradient is given, or the sum of what its consumers, all of them swept by now, contributed.
            gradients = [cotangents.get(name) or found.get(name) for name in node.outputs]
            if any(g is not None for g in gradients):
                _pull_back(graph, op, node, gradients, active, found)
    return {
        name: cotangents.get(name) or found.get(name) or _zeros_like(op, graph.tensors[name])
        for name in dict.fromkeys(wrt)
    }


def _pull_back(
    graph: Graph,
    op: Builder,
    node: Node,
    gradients: list[Tensor | None],
    active: frozenset[str],
    found: dict[str, Tensor],
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
            if rules.broadcasts:
                assert outputs[0] is not None
                entry = unbroadcast(op, entry, outputs[0], u, node)
            # Added as it comes, two by two: the steps of an unrolled sequence contribute one gradient each, as large
            # as the sequence, which are not to be held side by side. (Measured, ONNX Runtime's Sum of three takes as
            # long as four Adds.)
            entry = op.shaped(entry, u.shape)
            found[u.name] = op.shaped(op.Add(found[u.name], entry), u.shape) if u.name in found else entry


_IN_FLOW = {
    "If": "compute both branches in the model, and choose with Where",
    "Loop": "export the model with a fixed number of steps",
    "Scan": "export the model with a fixed number of steps",
}
"""What to do about control flow that depends on the values of the input."""
_CLASSICAL = "ai.onnx.ml"
_OF_CLASSICAL = {
    "SVMClassifier": "write its decision function in standard ops, the kernel with MatMul and Exp, or explain an "
    "SVMRegressor, which has a gradient",
}
"""What to do about ops of classical machine learning that have no rule."""


def rules_of(node: Node) -> type[Op]:
    """The class of a node's op. Raises UnsupportedOp where it has none, or none with a VJP."""
    rules = find(node)
    if rules is None or rules.vjp is None:
        op_type = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if node.op_type.startswith("TreeEnsemble"):
            raise UnsupportedOp(
                f"node {node.name!r} ({op_type}) is piecewise constant: its gradient is zero wherever it exists. "
                "Fix: use a method for trees, such as TreeSHAP, or explain a differentiable model"
            )
        reason = f": {node.metadata[REASON_KEY]}" if REASON_KEY in node.metadata else ""
        raise UnsupportedOp(
            f"node {node.name!r} ({op_type}) lies between the input and the target and has no VJP rule{reason}. "
            f"Fix: {_way_around(node)}"
        )
    return rules


def _way_around(node: Node) -> str:
    """Return how to explain a model with an op that has no VJP rule."""
    if node.domain == _CLASSICAL:
        return _OF_CLASSICAL.get(
            node.op_type, "export the model without this step, and explain the tensor before it"
        )
    if node.domain:
        return "replace custom ops by standard ops, or by functions in the file"
    other = _IN_FLOW.get(node.op_type, 'add a rule: CONTRIBUTING.md, "Add an op"')
    return f'use backend="source" on a converted model, or {other}'


def unbroadcast(op: Builder, g: Tensor, y: Tensor, u: Tensor, node: Node) -> Tensor:
    """Sum a contribution shaped like the output back to the shape of the input that was broadcast."""
    if y.shape is None or u.shape is None:
        raise UnsupportedOp(
            f"{node}: the rank of {(y if y.shape is None else u).name!r} is unknown. {TRACED}"
        )
    lead = len(y.shape) - len(u.shape)
    padded: Shape = (1,) * lead + u.shape
    if any(_ambiguous(small, large) for small, large in zip(padded, y.shape, strict=True)):
        return _unbroadcast_dynamic(op, g, y, u, lead)
    axes = [
        i for i, (small, large) in enumerate(zip(padded, y.shape, strict=True)) if small == 1 and large != 1
    ]
    kept = [axis for axis in axes if axis >= lead]
    if kept:
        g = op.ReduceSum(g, kept, keepdims=1)
    if lead:
        g = op.ReduceSum(g, list(range(lead)), keepdims=0)
    return g


def _ambiguous(small: int | str | None, large: int | str | None) -> bool:
    """Whether it cannot be told before running if an axis was broadcast."""
    if isinstance(small, int):
        return False
    return small is None or small != large


def _unbroadcast_dynamic(op: Builder, g: Tensor, y: Tensor, u: Tensor, lead: int) -> Tensor:
    shape = op.Shape(u)
    padded = op.Concat([1] * lead, shape, axis=0) if lead else shape
    axes = op.Squeeze(op.NonZero(op.Not(op.Equal(op.Shape(y), padded))), [0])
    return op.Reshape(op.ReduceSum(g, axes, keepdims=1, noop_with_empty_axes=1), shape, allowzero=1)


def _zeros_like(op: Builder, x: Tensor) -> Tensor:
    """Zeros, whatever x holds: multiplying by zero would keep a NaN."""
    return op.Expand(op.tensor(np.zeros((), x.dtype)), op.Shape(x))
