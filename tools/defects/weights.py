"""Defects of constants: weights, biases, statistics, gates, scales, bounds."""

from __future__ import annotations

import numpy as np
import onnx

from tools.defects.edit import Edit
from tools.defects.kinds import defect

# The input that holds the weight, for each weighted op; MatMul and Einsum may have it on either side.
WEIGHT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "LSTM": 1, "GRU": 1, "RNN": 1}
BIAS = {
    "Conv": 2,
    "ConvTranspose": 2,
    "Gemm": 2,
    "LSTM": 3,
    "GRU": 3,
    "RNN": 3,
    "LayerNormalization": 2,
    "BatchNormalization": 2,
    "InstanceNormalization": 2,
    "GroupNormalization": 2,
}
GATES = {"LSTM": ("input", "output", "forget", "cell"), "GRU": ("update", "reset", "hidden")}


def _weight(edit: Edit, node: onnx.NodeProto) -> tuple[int, np.ndarray] | None:
    """Where a node reads its weight, and the weight."""
    places = [WEIGHT[node.op_type]] if node.op_type in WEIGHT else [0, 1]
    found = [(index, w) for index in places if (w := edit.constant(node, index)) is not None and w.ndim > 1]
    return found[0] if found else None


def _filters(edit: Edit, node: onnx.NodeProto, index: int) -> int:
    """The axis of a weight that runs over what the node puts out."""
    if node.op_type in ("ConvTranspose", "LSTM", "GRU", "RNN"):
        return 1
    if node.op_type == "Gemm":
        return 0 if edit.attribute(node, "transB") else 1
    return -1 if node.op_type == "MatMul" and index == 1 else 0


@defect("one wrong weight", "Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "Einsum")
def wrong_weight(edit: Edit, node: onnx.NodeProto) -> str | None:
    """One element is off by one to two standard deviations of the weight."""
    if (found := _weight(edit, node)) is None:
        return None
    index, w = found
    wrong, place = w.copy(), tuple(int(edit.rng.integers(size)) for size in w.shape)
    wrong[place] += w.std() * edit.rng.uniform(1, 2) * edit.pick([-1, 1])
    edit.give(node, index, wrong)
    return f"element {place}"


@defect("a filter scaled", "Conv", "ConvTranspose", "Gemm", "MatMul")
def filter_scaled(edit: Edit, node: onnx.NodeProto) -> str | None:
    """One output channel is too large or too small."""
    if (found := _weight(edit, node)) is None:
        return None
    index, w = found
    axis, factor = _filters(edit, node, index), edit.pick([0.5, 0.9, 1.1, 2.0])
    channel = int(edit.rng.integers(w.shape[axis]))
    wrong = np.moveaxis(w.copy(), axis, 0)
    wrong[channel] *= np.float32(factor)
    edit.give(node, index, np.moveaxis(wrong, 0, axis))
    return f"channel {channel} times {factor}"


@defect("two channels swapped", "Conv", "ConvTranspose", "Gemm", "MatMul")
def channels_swapped(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Two output channels of the weight stand in each other's place."""
    if (found := _weight(edit, node)) is None:
        return None
    index, w = found
    axis = _filters(edit, node, index)
    if w.shape[axis] < 2:
        return None
    order = np.arange(w.shape[axis])
    a, b = edit.rng.choice(order, 2, replace=False)
    order[[a, b]] = order[[b, a]]
    edit.give(node, index, np.take(w, order, axis))
    return f"channels {a} and {b}"


@defect("kernel flipped", "Conv", "ConvTranspose")
def kernel_flipped(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A convolution for a correlation."""
    w = edit.constant(node, 1)
    if w is None or max(w.shape[2:]) == 1:
        return None
    edit.give(node, 1, np.flip(w, tuple(range(2, w.ndim))))
    return "along every axis"


@defect("kernel transposed", "Conv", "ConvTranspose")
def kernel_transposed(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Height for width."""
    w = edit.constant(node, 1)
    if w is None or w.ndim != 4 or w.shape[2] != w.shape[3] or w.shape[2] == 1:
        return None
    edit.give(node, 1, w.swapaxes(2, 3))
    return "height and width exchanged"


@defect("square weight transposed", "Gemm", "MatMul")
def weight_transposed(edit: Edit, node: onnx.NodeProto) -> str | None:
    """(in, out) for (out, in), which a square weight lets pass."""
    found = _weight(edit, node)
    if found is None or found[1].ndim != 2 or found[1].shape[0] != found[1].shape[1]:
        return None
    edit.give(node, found[0], found[1].T)
    return "rows and columns exchanged"


@defect("gates swapped", "LSTM", "GRU")
def gates_swapped(edit: Edit, node: onnx.NodeProto) -> str | None:
    """Two gates of a recurrent layer in another framework's order."""
    gates = GATES[node.op_type]
    arrays = {index: edit.constant(node, index) for index in (1, 2, 3)}
    if arrays[1] is None or arrays[2] is None:
        return None
    order = np.arange(len(gates))
    a, b = edit.rng.choice(order, 2, replace=False)
    order[[a, b]] = order[[b, a]]
    for index, array in arrays.items():
        if array is not None:
            count = len(gates) * (2 if index == 3 else 1)
            rows = array.reshape(array.shape[0], count, -1)
            whole = np.concatenate([order, order + len(gates)]) if index == 3 else order
            edit.give(node, index, rows[:, whole].reshape(array.shape))
    return f"{gates[a]} and {gates[b]}"


@defect("bias dropped", *BIAS, "Add")
def bias_dropped(edit: Edit, node: onnx.NodeProto) -> str | None:
    """No bias."""
    return _biased(edit, node, 0)


@defect("bias added twice", *BIAS, "Add")
def bias_twice(edit: Edit, node: onnx.NodeProto) -> str | None:
    """The bias counts double, as where two layers both add it."""
    return _biased(edit, node, 2)


def _biased(edit: Edit, node: onnx.NodeProto, factor: int) -> str | None:
    places = [BIAS[node.op_type]] if node.op_type in BIAS else [0, 1]
    found = [index for index in places if edit.constant(node, index) is not None]
    if not found:
        return None
    bias = edit.constant(node, found[0])
    assert bias is not None
    if not np.isfinite(bias).all():
        return None
    edit.give(node, found[0], bias * np.float32(factor))
    return f"bias of {bias.size} times {factor}"


@defect("stale statistic", "BatchNormalization")
def stale_statistic(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A mean or variance of before training, or one that lags behind."""
    index, fresh = edit.pick([(3, 0.0), (4, 1.0)])
    statistic = edit.constant(node, index)
    if statistic is None:
        return None
    share = np.float32(edit.pick([0.1, 0.5, 1.0]))
    edit.give(node, index, statistic + share * (np.float32(fresh) - statistic))
    return f"the {'mean' if index == 3 else 'variance'}, {share:.0%} of the way back to {fresh:g}"


@defect("scale missing", "Mul", "Div")
def scale_missing(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A constant factor is forgotten: attention's scale, a layer scale, a residual's."""
    found = [index for index in (0, 1) if edit.constant(node, index) is not None]
    if not found or (node.op_type == "Div" and found[0] == 0):
        return None
    factor = edit.constant(node, found[0])
    assert factor is not None
    edit.give(node, found[0], np.ones_like(factor))
    return f"a factor of {factor.size} elements"


@defect("wrong clip bound", "Clip")
def clip_bound(edit: Edit, node: onnx.NodeProto) -> str | None:
    """A bound that is too wide or too narrow."""
    places = [index for index in (1, 2) if edit.constant(node, index) is not None]
    if not places:
        return None
    index = edit.pick(places)
    bound = edit.constant(node, index)
    assert bound is not None
    edit.give(node, index, (bound + np.float32(edit.pick([-0.3, 0.3]))).astype(bound.dtype))
    return f"the {'lower' if index == 1 else 'upper'} bound off by 0.3"


@defect("index off by one", "Gather")
def index_off(edit: Edit, node: onnx.NodeProto) -> str | None:
    """The neighbour of every element is taken."""
    indices, read = edit.array(node, 1), edit.shape(node.input[0])
    axis = edit.attribute(node, "axis")
    if indices is None or not read or not isinstance(read[axis], int):
        return None
    edit.give(node, 1, np.asarray((indices + 1) % read[axis], indices.dtype))
    return "the next of each"
