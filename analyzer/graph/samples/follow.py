"""Follow the samples of a batch through a graph, node by node.

From a graph, the sizes of its tensors and the labels of its inputs to the labels of every tensor that is wanted. A
rule that lacks a size or a constant mixes all that its node reads; `unknown` then names what it lacks.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.graph.graph import Graph, Node
from analyzer.graph.samples.labels import FREE, MIXED, Labels, Span, constant, packed, span_of
from analyzer.graph.samples.moves import MOVES
from analyzer.graph.samples.rules import RULES, Step, Unknown, everything
from analyzer.types import Sizes

SizesOf = Callable[[str], Sizes | None]


@dataclass(frozen=True)
class Followed:
    """labels: of every tensor on the way. mixed: the first tensor that mixes samples. unknown: the first that a rule
    lacked.
    """

    labels: Mapping[str, Labels]
    samples: int
    mixed: str | None
    unknown: str | None

    def span(self, name: str, sizes: SizesOf) -> Span | None:
        """Where the samples lie in a tensor; None where they are mixed, or laid out in another way."""
        shape = sizes(name)
        labels = self.labels.get(name)
        if shape is None or labels is None or labels.ndim > len(shape):
            return None
        # Sizes that depend on values differ from those that the rules follow: nothing is known then.
        aligned = zip(labels.shape[::-1], tuple(shape)[::-1], strict=False)
        if any(own not in (1, size) for own, size in aligned):
            return None
        return span_of(labels, shape, self.samples)


def follow(
    graph: Graph, sizes: SizesOf, given: Mapping[str, Labels], samples: int, wanted: Sequence[str]
) -> Followed:
    """Follow labels from the inputs to the tensors wanted. given: labels of inputs, FREE elsewhere."""
    needed = graph.ancestors(wanted)
    labels: dict[str, Labels] = dict(given)
    mixed = unknown = None
    for node in graph.nodes:
        if needed.isdisjoint(node.outputs):
            continue
        parts = [None if not name else _labels_of(graph, labels, name, sizes) for name in node.inputs]
        try:
            found = _found(graph, node, parts, labels, sizes)
        except Unknown as lacking:
            unknown = unknown or str(lacking)
            found = [constant(0, MIXED)] * len(node.outputs)
        for name, one in zip(node.outputs, found, strict=False):
            if name:
                labels[name] = one
                if mixed is None and (one == MIXED).any():
                    mixed = name
    return Followed(labels, samples, mixed, unknown)


def _found(
    graph: Graph,
    node: Node,
    parts: Sequence[Labels | None],
    labels: Mapping[str, Labels],
    sizes: SizesOf,
) -> Sequence[Labels]:
    captured = [labels[name] for name in node.captured if name in labels]
    step = Step(graph, node, [*parts, *captured], sizes)
    own = [part for part in step.labels if part is not None]
    if all((part == FREE).all() for part in own):
        return [constant(_rank(graph, name, sizes)) if name else constant(0) for name in node.outputs]
    known = node.domain == "" and not node.captured
    rule = (RULES.get(node.op_type) or MOVES.get(node.op_type)) if known else None
    if rule is None or any((part == MIXED).all() for part in own):
        return everything(step)
    for name in node.inputs:
        if name and graph.tensors[name].shape is None and sizes(name) is None:
            raise Unknown(name)
    try:
        found = rule(step)
    except (IndexError, ValueError) as error:
        # The graph holds positions of its own number of samples.
        raise Unknown(node.outputs[0]) from error
    return [packed(one) for one in found]


def _labels_of(graph: Graph, labels: Mapping[str, Labels], name: str, sizes: SizesOf) -> Labels:
    found = labels.get(name)
    if found is not None:
        return found
    return constant(_rank(graph, name, sizes))


def _rank(graph: Graph, name: str, sizes: SizesOf) -> int:
    shape = graph.tensors[name].shape
    known = sizes(name) if shape is None else shape
    return 0 if known is None else len(known)


def sizes_at(graph: Graph, symbols: Mapping[str, int]) -> SizesOf:
    """The sizes of tensors where their symbols, and products and sums of these, are known."""

    def sizes(name: str) -> Sizes | None:
        shape = graph.tensors[name].shape
        if shape is None:
            return None
        found = [axis if isinstance(axis, int) else _value(axis, symbols) for axis in shape]
        return None if None in found else tuple(int(size) for size in found if size is not None)

    return sizes


def _value(text: str | None, symbols: Mapping[str, int]) -> int | None:
    """What an expression such as "3*batch" comes to; None where it is not known."""
    if text is None or text in symbols:
        return None if text is None else symbols[text]
    try:
        return _evaluated(ast.parse(text, mode="eval").body, symbols)
    except (SyntaxError, KeyError, TypeError, ZeroDivisionError):
        return None


def _evaluated(node: ast.expr, symbols: Mapping[str, int]) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.Name):
        return symbols[node.id]
    operations: dict[type, Callable[[int, int], int]] = {
        ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.FloorDiv: np.floor_divide,
    }  # fmt: skip
    if isinstance(node, ast.BinOp) and type(node.op) in operations:
        return int(operations[type(node.op)](_evaluated(node.left, symbols), _evaluated(node.right, symbols)))
    raise TypeError
