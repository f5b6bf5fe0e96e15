"""Nodes that ONNX Runtime's WebGPU provider takes, and then fails on or computes wrongly when the model runs.

Found by running the standard's node tests on the provider (onnxruntime-webgpu 1.27.0) and, for the older provider,
stated in the comments of its page. `trap` returns the fault of a node, and `TRAP_FORMS` has forms that run.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from analyzer.explainer.runtimes.forms import PlainForm
from analyzer.explainer.runtimes.mutable import Writer
from analyzer.explainer.runtimes.transposed import as_convolution

# The older provider fails on Conv of volumes, (N, C, depth, height, width), too.
_NOT_OF_VOLUMES = {"webgpu": {"ConvTranspose"}, "jsep": {"Conv", "ConvTranspose"}}
_PLANE = 4


def trap(op: Writer, node: onnx.NodeProto, provider: str) -> str:
    """Return the fault of a node on a provider ("webgpu" or "jsep"); "" for nothing."""
    if node.op_type in _NOT_OF_VOLUMES[provider] and len(op.shape(node.input[0]) or ()) > _PLANE:
        return "takes it for volumes, and fails when it runs"
    if node.op_type == "MaxPool" and (
        (len(node.output) > 1 and node.output[1]) or op.attribute("storage_order")
    ):
        return "takes it with Indices, and fails when it runs"
    if node.op_type == "MatMul" and any(len(op.shape(name) or (0, 0)) == 1 for name in node.input):
        return "computes it wrongly for vectors"
    if node.op_type == "BatchNormalization" and op.attribute("training_mode"):
        return "takes it in training mode, and fails when it runs"
    if node.op_type == "Resize" and op.attribute("antialias"):
        return "takes it with antialias=1, and fails when it runs"
    if node.op_type == "Resize" and op.attribute("coordinate_transformation_mode") == "align_corners":
        return "computes it wrongly where it reduces and aligns corners" if _reduces(op, node) else ""
    return ""


def _reduces(op: Writer, node: onnx.NodeProto) -> bool:
    """Return whether a Resize makes an axis smaller; true where that is unknown."""
    if op.attribute("mode") == "nearest":
        return False
    scales, sizes = op.input(2), op.input(3)
    given = op.value(scales) if scales else None
    if given is not None and given.size:
        return bool((given < 1).any())
    before = op.shape(node.input[0])
    if before is None:
        return True
    wanted = op.value(sizes) if sizes else None
    axes = op.attribute("axes") or range(len(before))
    known: Sequence[Any] = op.shape(node.output[0]) or ()
    if wanted is not None:
        after: dict[int, Any] = dict(zip(axes, map(int, wanted), strict=True))
    else:
        after = {axis: known[axis] for axis in axes} if known else {}
    # Samples and channels are not resized, though their number may be unknown.
    spatial = [axis % len(before) for axis in axes]
    pairs = [(before[axis], after.get(one)) for axis, one in zip(spatial, axes, strict=True) if axis > 1]
    return any(not (isinstance(one, int) and isinstance(other, int) and one <= other) for one, other in pairs)


def _pool_in_float64(op: Writer) -> Sequence[str] | None:
    """Float64 has the same order as float32, and its MaxPool runs on the CPU."""
    (x,) = op.node.input
    element = op.element(x)
    values, *indices = op.same([op.Cast(x, to=TensorProto.DOUBLE)])
    return [op.Cast(values, to=element) if values else "", *indices]


def _product_of_vectors(op: Writer) -> str:
    """A row from the left, a column from the right; the axes that this adds go again."""
    a, b = op.node.input
    left, right = op.rank(a) == 1, op.rank(b) == 1
    product = op.MatMul(op.Unsqueeze(a, [0]) if left else a, op.Unsqueeze(b, [1]) if right else b)
    axes = [axis for axis, added in ((-2, left), (-1, right)) if added]
    return str(op.Squeeze(product, np.asarray(axes, np.int64)))


TRAP_FORMS: dict[str, PlainForm] = {
    "ConvTranspose": as_convolution,
    "MatMul": _product_of_vectors,
    "MaxPool": _pool_in_float64,
}
"""Forms of the same values that run."""
