"""Infer the types of a model, inside bodies of If, Loop and Scan, too.

ONNX's inference follows no values into a body. An Unsqueeze there whose axes are an initializer of the model has no
shape, and nothing that reads it has one: bodies get such constants as their own. A Reshape by a computed shape
has none either; the length of the shape at least tells the number of its axes.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence

import onnx
from onnx import helper

from converters.graph.inference import inferred_of
from converters.graph.nodes import is_standard, subgraphs
from converters.graph.tensors import shape_of

# Each round finds the ranks that depend on those of the round before.
_ROUNDS = 8
_Types = ChainMap[str, onnx.TypeProto]


def typed(proto: onnx.ModelProto) -> onnx.GraphProto:
    """Return the graph with the types of its tensors. Changes `proto`: its bodies get constants and ranks."""
    fed = {info.name for info in proto.graph.input}
    constants = {tensor.name: tensor for tensor in proto.graph.initializer if tensor.name not in fed}
    _give_constants(proto.graph, constants)
    for _ in range(_ROUNDS):
        found = inferred_of(proto).graph
        if not _state_ranks(proto.graph, found, ChainMap()):
            break
    return found


def types_of(graph: onnx.GraphProto) -> dict[str, onnx.TypeProto]:
    """Return the types that a graph states, those of its subgraphs aside."""
    types = {info.name: info.type for info in (*graph.value_info, *graph.output, *graph.input)}
    for tensor in graph.initializer:
        types[tensor.name] = helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return types


def _give_constants(graph: onnx.GraphProto, constants: Mapping[str, onnx.TensorProto]) -> None:
    """Give the bodies of a graph the constants of the model that they read."""
    for node in graph.node:
        for body in subgraphs(node):
            _give_constants(body, constants)
            own = {tensor.name for tensor in body.initializer} | {info.name for info in body.input}
            own.update(name for inner in body.node for name in inner.output)
            read = {name for inner in body.node for name in inner.input} - own
            body.initializer.extend(constants[name] for name in sorted(read & constants.keys()))


def _state_ranks(graph: onnx.GraphProto, known: onnx.GraphProto, outer: _Types) -> bool:
    """State the ranks of reshaped tensors whose rank inference left open. Returns whether there were any."""
    scope, stated = outer.new_child(types_of(known)), False
    for node, twin in zip(graph.node, known.node, strict=True):
        for body, inner in zip(subgraphs(node), subgraphs(twin), strict=True):
            stated |= _state_ranks(body, inner, scope)
        rank = _rank(node, scope)
        if rank is None or _rank_of(scope, node.output[0]) is not None:
            continue
        element = _element(scope, node)
        if element:
            for info in [info for info in graph.value_info if info.name == node.output[0]]:
                graph.value_info.remove(info)
            graph.value_info.append(helper.make_tensor_value_info(node.output[0], element, [None] * rank))
            stated = node.output[0] not in {info.name for info in graph.output} or stated
    return stated


def _rank(node: onnx.NodeProto, scope: _Types) -> int | None:
    """The number of axes that the length of a node's shape gives."""
    if is_standard(node, "Reshape"):
        return _length(scope, node.input[1])
    if is_standard(node, "Expand"):
        own, wanted = _rank_of(scope, node.input[0]), _length(scope, node.input[1])
        return None if own is None or wanted is None else max(own, wanted)
    return None


def _element(scope: _Types, node: onnx.NodeProto) -> int:
    for name in (node.output[0], node.input[0]):
        if name in scope and scope[name].tensor_type.elem_type:
            return int(scope[name].tensor_type.elem_type)
    return 0


def _length(scope: _Types, name: str) -> int | None:
    shape: Sequence[object] | None = shape_of(scope[name]) if name in scope else None
    size = shape[0] if shape is not None and len(shape) == 1 else None
    return size if isinstance(size, int) else None


def _rank_of(scope: _Types, name: str) -> int | None:
    shape = shape_of(scope[name]) if name in scope else None
    return None if shape is None else len(shape)
