"""Write Scans whose tensors have names, and differentiate their steps while they are being written.

The calls that a Builder has just made are a small graph, of tensors that do not broadcast against each other.
`pull_back` applies the chain rule to it (analyzer/ops/chain_rule.py). `push_forward` applies `pull_back` twice: it is
linear in its cotangents, and so the transpose of the transposed Jacobian, the Jacobian itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor, attribute_defaults
from analyzer.ops import chain_rule

Pairs = Sequence[tuple[Tensor, Tensor]]
Tree = Mapping[str, Any]
"""Tensors by name, or further trees."""
NamedStep = Callable[[Builder, dict[str, Tensor], Tree], tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]
"""From the states and one element of each sequence to the next states and an element of each output."""


def scan(
    op: Builder, step: NamedStep, states: Mapping[str, Tensor], sequences: Tree, reverse: bool
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Emit a Scan along axis 0 of the sequences. Return the last states, and the outputs' elements stacked."""
    names: list[str] = []

    def flat(op: Builder, begin: list[Tensor], elements: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        following, outputs = step(op, dict(zip(states, begin, strict=True)), _like(sequences, iter(elements)))
        names[:] = outputs
        return [following[name] for name in states], list(outputs.values())

    last, rows = op.scan(flat, list(states.values()), list(_leaves(sequences)), reverse)
    return dict(zip(states, last, strict=True)), dict(zip(names, rows, strict=True))


def pull_back(op: Builder, since: int, cotangents: Pairs, wrt: Tree) -> Tree:
    """Emit the gradients at the tensors `wrt` through the calls that `op` has made from number `since` on.

    cotangents: (output of a call, its cotangent). The cotangents of an output that comes more than once are added.
    """
    roots = list(_leaves(wrt))
    part = _graph_of(op, since, roots)
    found: dict[str, Tensor] = {}
    for output, cotangent in cotangents:
        chain_rule.add(op, found, output, cotangent)
    active = chain_rule.active_tensors(part, [u.name for u in roots])
    chain_rule.pull_back(part, op, found, active, broadcasts=False)
    return _like(wrt, (found.get(u.name) or zeros(op, u) for u in roots))


def push_forward(op: Builder, since: int, tangents: Pairs, outputs: Tree) -> Tree:
    """Emit the tangents of `outputs` of the calls from number `since` on. tangents: (tensor, its tangent)."""
    # The values of these cotangents are never read: nothing that is linear in them depends on them.
    names = (f"{op.prefix}cotangent {index}" for index, _ in enumerate(_leaves(outputs)))
    cotangents = _like(outputs, (Tensor(n, y.dtype) for n, y in zip(names, _leaves(outputs), strict=True)))
    middle = len(op.calls)
    pairs = list(zip(_leaves(outputs), _leaves(cotangents), strict=True))
    gradients = pull_back(op, since, pairs, {str(i): u for i, (u, _) in enumerate(tangents)})
    seeds = [(g, tangent) for g, (_, tangent) in zip(gradients.values(), tangents, strict=True)]
    return pull_back(op, middle, seeds, cotangents)


def _leaves(tree: Tree) -> Iterator[Tensor]:
    """Yield the tensors of a tree in order."""
    for branch in tree.values():
        if isinstance(branch, Tensor):
            yield branch
        else:
            yield from _leaves(branch)


def _like(tree: Tree, tensors: Iterator[Tensor]) -> dict[str, Any]:
    """Return a tree of the same form with other tensors, in order."""
    return {
        name: next(tensors) if isinstance(branch, Tensor) else _like(branch, tensors)
        for name, branch in tree.items()
    }


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
