"""Gradient defects: the forward pass is right, and one backend's backward pass is wrong.

Planted by replacing a rule while a check runs: the VJP of one node on ONNX Runtime, the sum over what one node
broadcast, the form of an op in PyTorch or TensorFlow, the choice at exact ties, or, in a PyTorch source, the op of one
node by an autograd Function whose backward is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from unittest.mock import patch

import numpy as np

from analyzer.graph.graph import Graph, Node
from analyzer.ops import chain_rule, find
from analyzer.ops.support import scatter_flat
from tools.defects.networks import Network

COMPOSED = ("LSTM", "GRU", "RNN", "GridSample")
WAYS = ("scaled", "of the wrong sign", "dropped", "transposed")
FACTORS = {"scaled": 1.1, "of the wrong sign": -1.0, "dropped": 0.0}


# What is chosen instead, in words; the VJP and the PyTorch form that choose it.
WrongChoice = tuple[str, Callable[..., Any], Callable[..., Any]]


@dataclass(frozen=True)
class WrongRule:
    """A rule that can be made wrong. backend: whose; nodes: at which it then is; planted: makes it so for a while."""

    kind: str
    backend: str
    nodes: frozenset[str]
    op_type: str
    detail: str
    planted: Callable[[], AbstractContextManager[Any]]


def wrong_rule(network: Network, rng: np.random.Generator) -> WrongRule | None:
    """A random rule of a random kind that this network uses; None where it uses none of the kind."""
    graph = Graph.from_proto(network.proto)
    path = graph.ancestors(graph.outputs[:1]) & graph.descendants(network.wrt or graph.inputs)
    nodes = [node for node in graph.nodes if node.outputs[0] in path and _has_rule(graph, node, path)]
    makers = [_wrong_vjp, _wrong_sum, _wrong_form]
    if network.tie is not None:
        makers = [_wrong_choice]
    elif network.model.source is not None:
        makers = [_wrong_function]
    return makers[int(rng.integers(len(makers)))](network, graph, nodes, rng)


def _has_rule(graph: Graph, node: Node, path: frozenset[str]) -> bool:
    rules = find(node)
    moves = rules is not None and rules.vjp is not None and not rules.several_outputs
    return moves and any(
        chain_rule.carries_gradient(graph, node, i) for i, n in enumerate(node.inputs) if n in path
    )


def _wrong_vjp(network: Network, graph: Graph, nodes: list[Node], rng: np.random.Generator) -> WrongRule:
    """The VJP of one node, on ONNX Runtime."""
    node, way = nodes[int(rng.integers(len(nodes)))], WAYS[int(rng.integers(len(WAYS)))]
    rules = find(node)
    assert rules is not None and rules.vjp is not None
    right = rules.vjp

    def wrong(op: Any, g: Any, y: Any, *inputs: Any, **attributes: Any) -> tuple[Any, ...]:
        entries = right(op, g, y, *inputs, **attributes)
        if y.name != node.outputs[0]:
            return tuple(entries)
        return tuple(None if entry is None else partial(_spoilt, op, entry, way) for entry in entries)

    return WrongRule(
        f"VJP {way}", "onnxruntime", frozenset([node.name]), node.op_type, "of one node",
        lambda: patch.object(rules, "vjp", wrong),
    )  # fmt: skip


def _spoilt(op: Any, entry: Any, way: str) -> Any:
    entry = entry() if callable(entry) else entry
    if entry is None:
        return None
    if way == "transposed":
        # Where the last two axes differ in length, what was meant for one element goes to its neighbour instead.
        shape = entry.shape or ()
        if len(shape) > 1 and shape[-1] == shape[-2] and isinstance(shape[-1], int):
            return op.Transpose(entry, perm=[*range(len(shape) - 2), len(shape) - 1, len(shape) - 2])
        return op.Slice(entry, [-1], [np.iinfo(np.int64).min], [len(shape) - 1], [-1]) if shape else entry
    return op.Mul(entry, FACTORS[way])


def _wrong_sum(
    network: Network, graph: Graph, nodes: list[Node], rng: np.random.Generator
) -> WrongRule | None:
    """What one node broadcast is not summed: the mean is taken for the sum."""
    fitting = [node for node in nodes if (rules := find(node)) is not None and rules.broadcasts]
    fitting = [node for node in fitting if len({graph.tensors[n].shape for n in node.inputs if n}) > 1]
    if not fitting:
        return None
    node, right = fitting[int(rng.integers(len(fitting)))], chain_rule.unbroadcast

    def wrong(op: Any, g: Any, y: Any, u: Any, at: Node) -> Any:
        total = right(op, g, y, u, at)
        if at.name != node.name or total is g:
            return total
        count = op.Div(op.Size(y), op.Size(u))
        return op.Div(total, op.Cast(count, to=op.dtype_of(g)))

    return WrongRule(
        "broadcast not summed", "onnxruntime", frozenset([node.name]), node.op_type, "the mean for the sum",
        lambda: patch.object(chain_rule, "unbroadcast", wrong),
    )  # fmt: skip


def _wrong_form(network: Network, graph: Graph, nodes: list[Node], rng: np.random.Generator) -> WrongRule:
    """The derivative of an op in a framework, at all its nodes."""
    op_type = nodes[int(rng.integers(len(nodes)))].op_type
    # The forms of composed ops are made of other ops' forms, and go wrong with them.
    at = [node for node in nodes if node.op_type == op_type]
    at += [node for node in graph.nodes if node.op_type in COMPOSED and node.op_type != op_type]
    rules = find(next(node for node in at if node.op_type == op_type))
    way = WAYS[int(rng.integers(3))]
    backend = ("torch", "torch", "tensorflow")[int(rng.integers(3))]
    right = getattr(rules, backend)

    def wrong(framework: Any, *arguments: Any, **attributes: Any) -> Any:
        y = right(framework, *arguments, **attributes)
        return (_torch_backward if backend == "torch" else _tensorflow_backward)(framework, FACTORS[way], y)

    return WrongRule(
        f"derivative {way}", backend, frozenset(node.name for node in at), op_type, f"of {len(at)} nodes",
        lambda: patch.object(rules, backend, wrong),
    )  # fmt: skip


def _torch_backward(torch: Any, factor: float, y: Any) -> Any:
    """y itself, through an autograd Function whose backward is wrong by a factor."""

    class Wrong(torch.autograd.Function):  # type: ignore[misc]
        @staticmethod
        def forward(context: Any, y: Any) -> Any:
            return y.clone()

        @staticmethod
        def backward(context: Any, g: Any) -> Any:
            return factor * g

    return Wrong.apply(y)


def _tensorflow_backward(tf: Any, factor: float, y: Any) -> Any:
    """y itself, with a custom gradient that is wrong by a factor."""
    return tf.custom_gradient(lambda x: (tf.identity(x), lambda g: factor * g))(y)


def _wrong_choice(
    network: Network, graph: Graph, nodes: list[Node], rng: np.random.Generator
) -> WrongRule | None:
    """Another subgradient at exact ties."""
    tie = network.tie
    assert tie is not None
    node = graph.producer[tie.tensor]
    if tie.at is None:
        detail, vjp, form = _last_of_equals(node, next(iter(network.feeds.values())).shape[1:])
    else:
        detail, vjp, form = _other_slope(node, tie.at, float(rng.choice([-1.0, 0.5, 1.5])))
    rules = find(node)
    if rng.random() < 0.5:
        return WrongRule(
            "wrong choice at exact ties", "onnxruntime", frozenset([node.name]), node.op_type, detail,
            lambda: patch.object(rules, "vjp", vjp),
        )  # fmt: skip
    alike = [n.name for n in nodes if n.op_type == node.op_type]
    return WrongRule(
        "wrong choice at exact ties", "torch", frozenset([node.name, *alike]), node.op_type, detail,
        lambda: patch.object(rules, "torch", form),
    )  # fmt: skip


def _other_slope(node: Node, at: float, slope: float) -> WrongChoice:
    """Where x lies on the kink, this derivative."""
    rules, tensor = find(node), node.outputs[0]
    assert rules is not None and rules.vjp is not None and rules.torch is not None
    right, form = rules.vjp, rules.torch

    def wrong_vjp(op: Any, g: Any, y: Any, x: Any, *others: Any, **attributes: Any) -> tuple[Any, ...]:
        first, *rest = right(op, g, y, x, *others, **attributes)
        if y.name != tensor:
            return (first, *rest)
        entry = first() if callable(first) else first
        return (op.Where(op.Equal(x, at), op.Mul(g, slope), entry), *rest)

    def wrong_form(torch: Any, x: Any, *others: Any, **attributes: Any) -> Any:
        y = form(torch, x, *others, **attributes)
        moved = torch.where(x == at, slope * x, y)
        return y.detach() + (moved - moved.detach())

    return f"{slope} where x = {at:g}", wrong_vjp, wrong_form


def _last_of_equals(node: Node, shape: tuple[int, ...]) -> WrongChoice:
    """Of equal maxima the last one has the whole gradient. shape: of what is read, whole numbers, a sample."""
    rules, tensor = find(node), node.outputs[0]
    assert rules is not None and rules.vjp is not None and rules.torch is not None
    right, form = rules.vjp, rules.torch
    # Rises by less than the step between two whole numbers: it decides among equals alone.
    rise = np.linspace(0, 0.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)

    def wrong_vjp(op: Any, g: Any, y: Any, x: Any, *others: Any, **attributes: Any) -> tuple[Any, ...]:
        if (y[0] if rules.several_outputs else y).name != tensor:
            return tuple(right(op, g, y, x, *others, **attributes))
        lifted = replace(op.Add(x, rise), shape=x.shape)
        if rules.several_outputs:
            _, places = op.MaxPool(lifted, outputs=2, **attributes)
            return (scatter_flat(op, g[0], places, x),)
        highest = replace(getattr(op, node.op_type)(lifted, *others, **attributes), shape=y.shape)
        return tuple(right(op, g, highest, lifted, *others, **attributes))

    def wrong_form(torch: Any, x: Any, *others: Any, **attributes: Any) -> Any:
        y = form(torch, x, *others, **attributes)
        # The same op elsewhere, as in the normalization of a map, reads other shapes.
        if tuple(x.shape[1:]) != shape:
            return y
        lifted = form(torch, x + torch.as_tensor(rise, dtype=x.dtype), *others, **attributes)
        found = lifted[0] if rules.several_outputs else lifted
        moved = found - found.detach()
        return (y[0].detach() + moved, *y[1:]) if rules.several_outputs else y.detach() + moved

    return "the last of equal maxima", wrong_vjp, wrong_form


def _wrong_function(
    network: Network, graph: Graph, nodes: list[Node], rng: np.random.Generator
) -> WrongRule | None:
    """An autograd Function in the PyTorch source."""
    import torch

    source: Any = network.model.source
    known = {one.name: one for one in source.program.graph.nodes if one.op == "call_function"}
    fitting = [node for node in nodes if node.outputs[0] in known]
    if not fitting:
        return None
    node, way = fitting[int(rng.integers(len(fitting)))], WAYS[int(rng.integers(3))]
    place = known[node.outputs[0]]
    right = place.target

    def computed(*arguments: Any, **keywords: Any) -> Any:
        return _torch_backward(
            torch, FACTORS[way], getattr(right, "impl_aten", right)(*arguments, **keywords)
        )

    computed.__name__ = str(right)

    @contextmanager
    def planted() -> Iterator[None]:
        place.target = computed
        try:
            yield
        finally:
            place.target = right

    return WrongRule(
        f"backward of a Function {way}", "source", frozenset([node.name]), node.op_type, str(right), planted
    )
