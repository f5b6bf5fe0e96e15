"""Store the weights of a finished model in float16, and compute in float32 as before: the file has half the size.

Reads a ModelProto and returns another one. Each large float32 initializer is stored in float16, and a Cast gives the
nodes its float32 values. A weight w becomes w (1 + e), |e| ≤ 2⁻¹¹; forward and backward pass read the same rounded
weights, so that an explanation stays complete to the rounding of float32. Float16 arithmetic would lose that: sums over
space, exponentials and variances overflow or round in it, and no kernel of ONNX Runtime on a CPU is faster for it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from analyzer.explainer.runtimes.mutable import MutableModel, read_in

LARGEST = float(np.finfo(np.float16).max)
"""Larger weights stay in float32."""
ROUNDING = 2.0**-11
"""The largest relative error of a weight of ordinary size; tensors that lose more, in L2, stay in float32."""
# Smaller tensors hold sizes, scales and epsilons, and save nothing.
_SMALLEST = 256


def to_float16(proto: onnx.ModelProto, keep: Collection[str] = ()) -> onnx.ModelProto:
    """Return the model with its weights stored in float16; inputs, outputs and arithmetic stay as they are.

    keep: names of initializers that stay in float32. An initializer that is an input or an output, too, stays, and so
    does one with values beyond 65504, or with values so small that float16 rounds them by more than 2⁻¹¹ in L2.
    """
    model = MutableModel(proto)
    graph = model.proto.graph
    fixed = {info.name for info in (*graph.input, *graph.output)} | set(keep)
    read = set(read_in(graph))
    casts = []
    large = [tensor for tensor in graph.initializer if np.prod(tensor.dims) >= _SMALLEST]
    for tensor in (*large, *model.heavy.values()):
        name = tensor.name
        half = None if name in fixed or name not in read else _half(tensor)
        if half is None:
            continue
        stored = model.fresh(f"{name}/float16")
        model.replace_initializer(name, numpy_helper.from_array(half, stored))
        casts.append(helper.make_node("Cast", [stored], [name], name=f"{stored}/cast", to=TensorProto.FLOAT))
    model.take_nodes([*casts, *graph.node])
    return model.finished()


def _half(tensor: onnx.TensorProto) -> np.ndarray | None:
    """Return a float32 tensor rounded to float16, None where it must stay."""
    if tensor.data_type != TensorProto.FLOAT:
        return None
    full = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = full.astype(np.float16)
    if not np.isfinite(full).all() or not np.isfinite(half).all():
        return None
    error = np.linalg.norm((half.astype(np.float32) - full).ravel().astype(np.float64))
    return half if error <= ROUNDING * np.linalg.norm(full.ravel().astype(np.float64)) else None
