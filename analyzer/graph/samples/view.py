"""A graph whose inputs and outputs have one sample after the other along axis 0: the same graph between moves of axes.

From a graph and an Arrangement to a graph of the same names. The tensors of the graph keep their names, but for the
inputs and outputs that are moved: under these names are the moved ones, under `stated(name)` those of the graph.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from analyzer.errors import AnalysisError
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.graph.samples.labels import Span
from analyzer.types import Sizes
from converters.types import Shape

_PREFIX = "stated/"


def stated(name: str) -> str:
    """The name in a view of a tensor of the original graph that has been moved."""
    return _PREFIX + name


def unstated(name: str) -> str:
    """The name in the original graph of a tensor of a view."""
    return name.removeprefix(_PREFIX)


def viewed(graph: Graph, arrangement: Arrangement, shapes: Mapping[str, Sizes]) -> Graph:
    """The graph with the samples along axis 0 of every input and output that the arrangement names.

    shapes: of these inputs and outputs as the graph has them, for any number of samples.
    """
    before, after = _Moves(graph), _Moves(graph)
    for name in (*arrangement.wrapped, *arrangement.spans):
        moves = before.input if name in graph.inputs else after.output
        moves(name, arrangement, shapes[name])
    renamed = before.renamed | after.renamed
    for node in graph.nodes:
        blocked = [name for name in node.captured if name in renamed]
        if blocked:
            raise AnalysisError(
                f"{node} reads {blocked[0]!r} inside its body, where its axes cannot be moved. Fix: "
                "export the model with the samples along the first axis"
            )
    middle = [
        replace(
            node,
            inputs=tuple(renamed.get(name, name) for name in node.inputs),
            outputs=tuple(renamed.get(name, name) for name in node.outputs),
        )
        for node in graph.nodes
    ]
    tensors = {**graph.tensors, **before.tensors, **after.tensors}
    if arrangement.alone:
        for name in graph.inputs:
            shape = tensors[name].shape
            if shape and not isinstance(shape[0], int):
                tensors[name] = replace(tensors[name], shape=(1, *shape[1:]))
    return replace(graph, nodes=(*before.nodes, *middle, *after.nodes), tensors=tensors)


class _Moves:
    """Nodes that move axes, and the tensors that they read and compute."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.renamed: dict[str, str] = {}

    def input(self, name: str, arrangement: Arrangement, shape: Sizes) -> None:
        """Feed the samples first; compute what the graph reads."""
        tensor = self.graph.tensors[name]
        given: Shape = tensor.shape if tensor.shape is not None else (None,) * len(shape)
        if name in arrangement.wrapped:
            self._rename(name, (1, *given))
            self._node("Squeeze", name, stated(name), axes=[0])
        elif (span := arrangement.spans.get(name)) is not None:
            lead, trail = given[: span.axis], given[span.axis + 1 :]
            inner = [size for size in (span.blocks, span.runs) if size > 1]
            samples = given[span.axis] if span.whole else None
            if isinstance(given[span.axis], int):
                samples = int(given[span.axis]) // (span.blocks * span.runs)  # type: ignore[arg-type]
            self._rename(name, (samples if samples is not None else "batch", *lead, *inner, *trail))
            order = _order_back(span, len(given))
            if span.whole:
                self._node("Transpose", name, stated(name), perm=order)
            else:
                self._node("Transpose", name, f"{stated(name)}/apart", perm=order)
                target = [0] * span.axis + [-1, *shape[span.axis + 1 :]]
                self._node("Reshape", f"{stated(name)}/apart", stated(name), shape=target)

    def output(self, name: str, arrangement: Arrangement, shape: Sizes) -> None:
        """Give an output with the samples first."""
        tensor = self.graph.tensors[name]
        given: Shape = tensor.shape if tensor.shape is not None else (None,) * len(shape)
        if name in arrangement.wrapped:
            self._rename(name, (1, *given))
            self._node("Unsqueeze", stated(name), name, axes=[0])
        elif (span := arrangement.spans.get(name)) is not None:
            if span.whole:
                order = [span.axis, *(axis for axis in range(len(given)) if axis != span.axis)]
                self._rename(name, tuple(given[axis] for axis in order))
                self._node("Transpose", stated(name), name, perm=order)
            else:
                # Runs of the first axis: each sample has several rows.
                self._rename(name, ("batch", span.runs, *given[1:]))
                self._node("Reshape", stated(name), name, shape=[-1, span.runs, *shape[1:]])

    def _rename(self, name: str, shape: Shape) -> None:
        tensor = self.graph.tensors[name]
        self.renamed[name] = stated(name)
        self.tensors[stated(name)] = replace(tensor, name=stated(name))
        self.tensors[name] = replace(tensor, shape=shape)

    def _node(self, op_type: str, read: str, made: str, **given: Any) -> None:
        inputs = [read]
        attributes: dict[str, Any] = {}
        for key, value in given.items():
            if key == "perm":
                attributes[key] = value
                continue
            constant, own = np.asarray(value, np.int64), f"arranged/{made}/{key}"
            while own in self.graph.tensors:
                # A file may have a tensor of any name; its value must stay.
                own = f"arranged/{own}"
            self.tensors[own] = Tensor(own, constant.dtype, constant.shape, constant)
            inputs.append(own)
        if op_type == "Reshape":
            attributes["allowzero"] = 0
        if made not in self.tensors and made not in self.graph.tensors:
            dtype = (self.tensors.get(read) or self.graph.tensors[read]).dtype
            self.tensors[made] = Tensor(made, dtype)
        self.nodes.append(Node(f"arranged/{made}", op_type, "", tuple(inputs), (made,), attributes))


def _order_back(span: Span, rank: int) -> list[int]:
    """The permutation from (N, lead, blocks, runs, trail) to (lead, blocks, N, runs, trail)."""
    lead = list(range(1, 1 + span.axis))
    blocks = [1 + span.axis] if span.blocks > 1 else []
    begin = 1 + span.axis + len(blocks)
    runs = [begin] if span.runs > 1 else []
    trail = list(range(begin + len(runs), begin + len(runs) + rank - span.axis - 1))
    return [*lead, *blocks, 0, *runs, *trail]
