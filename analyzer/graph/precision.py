"""A graph in another floating precision: its tensors, its constants, and the ops that name a floating type.

Reads a Graph, returns one with the same names. Half-precision models are analyzed in float32, where their weights are
exact and gradients do not underflow; float64 serves as the referee.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.graph.graph import Graph, Node, Tensor

DType = np.dtype[Any]
HALF: frozenset[DType] = frozenset({np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)})
FLOAT32: DType = np.dtype(np.float32)
FLOAT64: DType = np.dtype(np.float64)

# Casts to these decide a precision; a cast to float8 is a rounding that the model means.
_NUMBERS = {helper.np_dtype_to_tensor_dtype(dtype): dtype for dtype in (*HALF, FLOAT32, FLOAT64)}


def epsilon(dtype: DType) -> float:
    """The distance from 1 to the next number of a floating type, bfloat16 included."""
    finfo: Any = ml_dtypes.finfo
    return float(finfo(dtype).eps)


def precisions(graph: Graph) -> frozenset[DType]:
    """The floating types that occur in a graph."""
    return frozenset(tensor.dtype for tensor in graph.tensors.values() if tensor.is_float)


def in_precision(graph: Graph, precision: DType) -> Graph:
    """The whole graph in one floating precision."""
    return _with(graph, lambda dtype: precision)


def at_least_float32(graph: Graph) -> Graph:
    """A model of half-precision inputs and outputs, or weights, in float32; any other as it is.

    A model of float32 weights that rounds to half inside means that rounding.
    """
    border = [graph.tensors[name] for name in (*graph.inputs, *graph.outputs)]
    floats = {tensor.dtype for tensor in border if tensor.is_float}
    weights = any(t.dtype in HALF and t.constant is not None and t.shape for t in graph.tensors.values())
    if not weights and (not floats or not floats <= HALF):
        return graph
    return _with(graph, lambda dtype: FLOAT32 if dtype in HALF else dtype)


def _with(graph: Graph, chosen: Callable[[DType], DType]) -> Graph:
    return replace(
        graph,
        nodes=tuple(_node(node, chosen) for node in graph.nodes),
        tensors={name: _tensor(tensor, chosen) for name, tensor in graph.tensors.items()},
    )


def _tensor(tensor: Tensor, chosen: Callable[[DType], DType]) -> Tensor:
    if tensor.dtype not in _NUMBERS.values():
        return tensor
    dtype = chosen(tensor.dtype)
    constant = None if tensor.constant is None else tensor.constant.astype(dtype)
    return replace(tensor, dtype=dtype, constant=constant)


def _node(node: Node, chosen: Callable[[DType], DType]) -> Node:
    attributes = dict(node.attributes)
    for key in ("to", "dtype"):
        if attributes.get(key) in _NUMBERS:
            attributes[key] = helper.np_dtype_to_tensor_dtype(chosen(_NUMBERS[attributes[key]]))
    value = attributes.get("value")
    if isinstance(value, np.ndarray) and value.dtype in _NUMBERS.values():
        attributes["value"] = value.astype(chosen(value.dtype))
    if node.op_type == "ConstantOfShape" and value is None:
        attributes["value"] = np.zeros(1, chosen(FLOAT32))
    bodies = {key: _body(one, chosen) for key, one in attributes.items() if isinstance(one, onnx.GraphProto)}
    return replace(node, attributes={**attributes, **bodies})


def _body(body: onnx.GraphProto, chosen: Callable[[DType], DType]) -> onnx.GraphProto:
    """A body with other floating types: of its tensors, and of the ops that name one."""
    found = onnx.GraphProto()
    found.CopyFrom(body)
    for info in (*found.input, *found.output, *found.value_info):
        kind = info.type.tensor_type
        if kind.elem_type in _NUMBERS:
            kind.elem_type = helper.np_dtype_to_tensor_dtype(chosen(_NUMBERS[kind.elem_type]))
    for tensor in found.initializer:
        tensor.CopyFrom(_stored(tensor, chosen))
    for node in found.node:
        named = {attribute.name for attribute in node.attribute}
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype") and attribute.i in _NUMBERS:
                attribute.i = helper.np_dtype_to_tensor_dtype(chosen(_NUMBERS[attribute.i]))
            elif attribute.name == "value" and attribute.HasField("t"):
                attribute.t.CopyFrom(_stored(attribute.t, chosen))
            elif attribute.HasField("g"):
                attribute.g.CopyFrom(_body(attribute.g, chosen))
        if node.op_type == "ConstantOfShape" and "value" not in named:
            zero = numpy_helper.from_array(np.zeros(1, chosen(FLOAT32)))
            node.attribute.append(helper.make_attribute("value", zero))
    return found


def _stored(tensor: onnx.TensorProto, chosen: Callable[[DType], DType]) -> onnx.TensorProto:
    array = numpy_helper.to_array(tensor)
    if array.dtype not in _NUMBERS.values():
        return tensor
    return numpy_helper.from_array(array.astype(chosen(array.dtype)), tensor.name)
