"""How far two right computations of one model may differ: more in half precision, and where it quantizes."""

from __future__ import annotations

import onnx

TOLERANCE = 1e-3
# Half precision rounds at 1e-3 (float16) and 8e-3 (bfloat16) per operation.
HALF_TOLERANCE = 5e-2
# A code that is rounded the other way moves an output by a quantum: kernels differ in the last bit before it.
QUANTIZED_TOLERANCE = 5e-2
QUANTIZERS = ("QuantizeLinear", "DynamicQuantizeLinear")
_HALF = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)


def quantizes(proto: onnx.ModelProto) -> bool:
    """Whether a model rounds values to codes."""
    return any(
        node.op_type in QUANTIZERS
        or node.op_type.startswith(("QLinear", "QGemm", "ConvInteger", "MatMulInteger"))
        for node in proto.graph.node
    )


def tolerance_of(proto: onnx.ModelProto) -> float:
    """Return the relative difference that is allowed between two computations of a model."""
    graph = proto.graph
    half = (
        any(tensor.data_type in _HALF for tensor in graph.initializer)
        or any(info.type.tensor_type.elem_type in _HALF for info in (*graph.input, *graph.output))
        or any(
            a.name == "to" and a.i in _HALF
            for node in graph.node
            if node.op_type == "Cast"
            for a in node.attribute
        )
    )
    if half or quantizes(proto):
        return max(HALF_TOLERANCE if half else 0.0, QUANTIZED_TOLERANCE if quantizes(proto) else 0.0)
    return TOLERANCE
