"""Give a file the axes of the user's model, where its samples do not lie along axis 0.

Methods are emitted on a view of the model with the samples first (analyzer/graph/samples/view.py). From such a file and
where the samples lie to the file with Transposes at its inputs and outputs. Maps, scores and errors have the samples
first, as in Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.explainer.description import Port
from analyzer.graph.samples.labels import Span
from converters.graph.nodes import rename_in

_LIKE_INPUTS = ("model", "baseline")
_LIKE_OUTPUTS = ("output", "attribution")


def with_stated_axes(
    proto: onnx.ModelProto, inputs: Sequence[Port], outputs: Sequence[Port], spans: Mapping[str, Span]
) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Move the axes of inputs and outputs in place, and return how they are then. spans: whole axes of samples."""
    graph = proto.graph
    infos = {info.name: info for info in (*graph.input, *graph.output)}
    renamed: dict[str, str] = {}
    before: list[onnx.NodeProto] = []
    after: list[onnx.NodeProto] = []

    def moved(port: Port, *, reads: bool) -> Port:
        span = spans.get(port.of or port.name)
        if span is None or port.role not in (_LIKE_INPUTS if reads else _LIKE_OUTPUTS):
            return port
        axis, rank = span.axis, len(port.shape)
        first = [axis, *(k for k in range(rank) if k != axis)]
        back = [first.index(k) for k in range(rank)]
        inner = f"axes/{port.name}"
        renamed[port.name] = inner
        ends = [port.name, inner] if reads else [inner, port.name]
        node = helper.make_node(
            "Transpose", [ends[0]], [ends[1]], name=f"{inner}/moved", perm=first if reads else back
        )
        (before if reads else after).append(node)
        shape = tuple(port.shape[k] for k in back)
        kind = infos[port.name].type.tensor_type.elem_type
        infos[port.name].CopyFrom(helper.make_tensor_value_info(port.name, kind, shape))
        for tensor in graph.initializer:
            if tensor.name == port.name:
                array = np.ascontiguousarray(numpy_helper.to_array(tensor).transpose(back))
                tensor.CopyFrom(numpy_helper.from_array(array, port.name))
                port = replace(port, default=None if port.default is None else array.tolist())
        return replace(port, shape=shape)

    found = (
        tuple(moved(port, reads=True) for port in inputs),
        tuple(moved(port, reads=False) for port in outputs),
    )
    for node in graph.node:
        rename_in(node, renamed)
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    return found
