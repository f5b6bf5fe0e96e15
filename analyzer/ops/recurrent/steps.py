"""Differentiate a step of a Scan while it is being written.

The calls that a Builder has just made are a small graph, of tensors that do not broadcast against each other.
`pull_back` applies the chain rule to it (analyzer/ops/chain_rule.py). `push_forward` applies `pull_back` twice: it is
linear in its cotangents, and so the transpose of the transposed Jacobian, the Jacobian itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor, attribute_defaults
from analyzer.ops import chain_rule

Pairs = Sequence[tuple[Tensor, Tensor]]


def pull_back(op: Builder, since: int, cotangents: Pairs, wrt: Sequence[Tensor]) -> list[Tensor]:
    """Emit the gradients at `wrt` through the calls that `op` has made from number `since` on.

    cotangents: (output of a call, its cotangent). The cotangents of an output that comes more than once are added.
    """
    part = _graph_of(op, since, wrt)
    found: dict[str, Tensor] = {}
    for output, cotangent in cotangents:
        chain_rule.add(op, found, output, cotangent)
    active = chain_rule.active_tensors(part, [u.name for u in wrt])
    chain_rule.pull_back(part, op, found, active, broadcasts=False)
    return [found.get(u.name) or zeros(op, u) for u in wrt]


def push_forward(op: Builder, since: int, tangents: Pairs, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Emit the tangents of `outputs` of the calls from number `since` on. tangents: (tensor, its tangent)."""
    # The values of these cotangents are never read: nothing that is linear in them depends on them.
    cotangents = [Tensor(f"{op.prefix}cotangent {index}", y.dtype) for index, y in enumerate(outputs)]
    middle = len(op.calls)
    wrt = [u for u, _ in tangents]
    gradients = pull_back(op, since, list(zip(outputs, cotangents, strict=True)), wrt)
    seeds = [(g, tangent) for g, (_, tangent) in zip(gradients, tangents, strict=True)]
    return pull_back(op, middle, seeds, cotangents)


def zeros(op: Builder, like: Tensor) -> Tensor:
    """Emit zeros of the shape and dtype of a tensor, whatever it holds."""
    return op.Where(np.asarray(False), like, 0.0)


def _graph_of(op: Builder, since: int, inputs: Sequence[Tensor]) -> Graph:
    """Return the calls from number `since` on as a graph."""
    calls = op.calls[since:]
    read = (u for call in calls for u in call.inputs if u is not None)
    tensors = {t.name: t for t in (*inputs, *read, *(y for call in calls for y in call.outputs))}
    nodes = tuple(
        Node(
            name=call.outputs[0].name,
            op_type=call.op_type,
            domain="",
            inputs=tuple("" if u is None else u.name for u in call.inputs),
            outputs=tuple(y.name for y in call.outputs),
            attributes={**attribute_defaults(call.op_type, "", op.opset), **call.attributes},
        )
        for call in calls
    )
    return Graph(nodes, tensors, tuple(u.name for u in inputs), (), op.opset)
