"""Replace ONNX Runtime kernels that are inexact in their tails by exact compositions of its other kernels.

The runtime's float32 Sigmoid is a rational approximation with an absolute error of 1e-7: 3.7 % off at −16, and 1e-8 in
place of 1e-14 at −32. 1 / (1 + e⁻ˣ) on its Exp has a relative error of 3e-7 everywhere, for two more passes over the
tensor. Reads nodes or a model, returns the same with these nodes rewritten; the names of all tensors stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from onnx import helper, numpy_helper

from converters.weights.references import with_weights_fed

# These compute their gates by the same approximation inside one kernel.
INEXACT_CELLS = frozenset({"LSTM", "GRU"})


def exact_nodes(
    nodes: Iterable[onnx.NodeProto], wanted: Callable[[onnx.NodeProto], bool], one: str
) -> list[onnx.NodeProto]:
    """Return the nodes with every wanted Sigmoid written as 1 / (1 + e⁻ˣ). one: the name of a float32 constant 1."""
    found: list[onnx.NodeProto] = []
    for node in nodes:
        if node.op_type != "Sigmoid" or node.domain or not wanted(node):
            found.append(node)
            continue
        (x,), (y,) = node.input, node.output
        steps = (("Neg", [x]), ("Exp", [f"{y}/negated"]), ("Add", [f"{y}/exp", one]))
        for (op_type, reads), result in zip(steps, ("negated", "exp", "sum"), strict=True):
            found.append(helper.make_node(op_type, reads, [f"{y}/{result}"], name=f"{y}/{result}"))
        found.append(helper.make_node("Reciprocal", [f"{y}/sum"], [y], name=node.name))
    return found


def exact(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with its float32 Sigmoids rewritten; the model itself where it has none."""
    if not any(node.op_type == "Sigmoid" for node in proto.graph.node):
        return proto
    floats = _float32_tensors(proto)
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    one = "exact/one"
    nodes = exact_nodes(proto.graph.node, lambda node: node.output[0] in floats, one)
    if len(nodes) == len(proto.graph.node):
        return proto
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    copy.graph.initializer.append(numpy_helper.from_array(np.array(1, np.float32), one))
    return copy


def _float32_tensors(proto: onnx.ModelProto) -> frozenset[str]:
    """Return the tensors of the main graph that are known to be float32."""
    proto, _ = with_weights_fed(proto)
    # A model above 2 GiB that holds its weights cannot be inferred; it may state its types itself.
    with suppress(onnx.shape_inference.InferenceError, ValueError, EncodeError):
        proto = onnx.shape_inference.infer_shapes(proto)
    graph = proto.graph
    return frozenset(
        info.name
        for info in (*graph.value_info, *graph.output, *graph.input)
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    )
