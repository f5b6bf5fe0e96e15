"""What a framework computes inside of nodes: in every step of a Scan, and in an op that is written as others.

Reads a Graph and the types of its tensors at given sizes; gives the bytes of the tensors that are computed there, and
the number of ops. A tensor whose size only running shows is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.backends.batching.liveness import VIEWS, Types, types_of
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.graph.program import IR_VERSION
from analyzer.ops import find
from analyzer.ops.eager import Composed


@dataclass(frozen=True)
class Content:
    """The bytes of tensors, and the number of ops that compute them."""

    bytes: int = 0
    ops: int = 0

    def __add__(self, other: Content) -> Content:
        return Content(self.bytes + other.bytes, self.ops + other.ops)

    def times(self, count: int) -> Content:
        """That of so many of them."""
        return Content(self.bytes * count, self.ops * count)


def content_of(graph: Graph, names: Collection[str], types: Types, framework: str) -> Content:
    """What is computed inside of the nodes that compute these tensors, and the number of those nodes.

    types: of every tensor of the graph. framework: "torch" or "tensorflow".
    """
    nodes = [node for node in graph.nodes if any(name in names for name in node.outputs)]
    return sum((_inside(graph, node, types, framework) for node in nodes), Content(0, len(nodes)))


def _inside(graph: Graph, node: Node, types: Types, framework: str) -> Content:
    if node.op_type == "Scan" and not node.domain:
        return _in_steps(graph, node, types, framework)
    form = getattr(find(node), framework, None)
    if not isinstance(form, Composed):
        return Content()
    op = Builder(graph.opset)
    inputs = [tensor and _typed(tensor, types) for tensor in graph.inputs_of(node)]
    form.write(op, *inputs, **node.attributes)
    constants = {tensor.name: tensor.constant for tensor in inputs if tensor and tensor.constant is not None}
    read = {tensor.name for tensor in inputs if tensor}
    return _of_body(op.nodes, {**constants, **op.initializers}, read, graph.opset, types, framework)


def _typed(tensor: Tensor, types: Types) -> Tensor:
    shape, dtype = types.get(tensor.name, (tensor.shape, tensor.dtype))
    return Tensor(tensor.name, dtype, shape, tensor.constant)


def _in_steps(graph: Graph, node: Node, types: Types, framework: str) -> Content:
    """The body's content, as often as it is run: the length of the sequences, which lie along axis 0."""
    body = node.attributes["body"]
    states = len(node.inputs) - node.attributes["num_scan_inputs"]
    if any(name not in types for name in node.inputs if name):
        return Content()
    within = dict(types)
    for position, (info, name) in enumerate(zip(body.input, node.inputs, strict=True)):
        shape, dtype = types[name]
        within[info.name] = (shape if position < states else shape[1:]), dtype
    constants = {entry.name: numpy_helper.to_array(entry) for entry in body.initializer}
    outside = {name: graph.tensors[name].constant for name in node.captured if name in graph.tensors}
    constants |= {name: array for name, array in outside.items() if array is not None}
    read = {info.name for info in body.input} | set(node.captured)
    step = _of_body(body.node, constants, read, graph.opset, within, framework)
    return step.times(types[node.inputs[states]][0][0])


def _of_body(
    nodes: Collection[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    read: Collection[str],
    opset: int,
    types: Types,
    framework: str,
) -> Content:
    """The content of nodes that read tensors of these types, once."""
    fed = {name: types[name] for name in read if name in types and name not in constants}
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)
        for name, (shape, dtype) in fed.items()
    ]
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    model = helper.make_model(
        helper.make_graph(list(nodes), "inside", infos, [], weights),
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=IR_VERSION,
    )
    found = types_of(model, {name: shape for name, (shape, _) in fed.items()})
    graph = Graph.from_proto(model)
    known = {**{name: (array.shape, array.dtype) for name, array in constants.items()}, **found}
    own = {name for node in graph.nodes if node.op_type not in VIEWS for name in node.outputs if name}
    size = sum(
        int(np.prod(shape)) * dtype.itemsize for shape, dtype in (found[n] for n in own & found.keys())
    )
    return Content(size) + content_of(graph, graph.producer, known, framework)
