"""Find the tensors that may hold an infinity, or the large negative numbers of a mask, before running.

From a Graph to sets of tensor names. A value moves through layout and elementwise ops. A convolution or a matrix
product turns an infinity into NaN, so that nothing needs care behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from analyzer.graph.graph import Graph, Node, Tensor

MASKED = -1e3
"""What is at most this large in a whole row of a softmax is a mask, not a learned bias."""


def _ops(names: str) -> frozenset[str]:
    return frozenset(names.split())


_ABSORB = _ops(
    "Softmax LogSoftmax ReduceLogSumExp Exp Sigmoid Tanh Erf Atan HardSigmoid HardSwish Elu Selu Celu Softplus Relu "
    "ThresholdedRelu Clip Max Min ReduceMax ReduceMin MaxPool GlobalMaxPool Hardmax TopK"
)
"""Ops whose output and derivative are finite at some infinity."""
_PASS = _ops(
    "Abs Add Cast CastLike Celu Clip Compress Concat DepthToSpace Div Dropout Elu Expand Flatten Gather GatherElements "
    "GatherND GlobalMaxPool Identity LeakyRelu LogSoftmax Max MaxPool Mean Min Mul Neg PRelu Pad ReduceLogSumExp "
    "ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape ReverseSequence ScatterElements ScatterND Selu Shrink Slice "
    "Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Where"
)
_MAKE = frozenset({"Log", "LogSoftmax", "ReduceLogSum", "ReduceLogSumExp"})
"""Ops whose output may be infinite where their inputs are finite."""
_SOFTMAXES = frozenset({"Softmax", "LogSoftmax"})
_SCALE = frozenset({"Mul", "Div"})
_SHIFT = frozenset({"Add", "Sub", "Sum", "Identity", "Cast", "CastLike"})


def infinite_tensors(graph: Graph) -> frozenset[str]:
    """The float tensors that may hold an infinity: of a constant, of an input, of a logarithm of 0, of an overflow."""

    def is_source(tensor: Tensor) -> bool:
        if tensor.constant is None:
            return False
        # Two masks of the lowest number add up to an infinity.
        limit = float(np.finfo(_wide(tensor.dtype)).max) / 128
        return _largest(tensor.constant) >= limit

    found = {name for node in graph.nodes if node.op_type in _MAKE for name in node.outputs}
    return _carried(graph, is_source, _ABSORB, found)


def masking_tensors(graph: Graph) -> frozenset[str]:
    """The float tensors that may hold numbers as large as those of a mask."""

    def is_source(tensor: Tensor) -> bool:
        return tensor.constant is not None and _largest(tensor.constant) >= -MASKED

    return _carried(graph, is_source, _SOFTMAXES, set())


def softmax_axis(graph: Graph, name: str) -> int | None:
    """The axis, counted from the last, of the softmaxes that alone read a tensor, but for sums and scales on the way.

    None where anything else reads it: what is added to a whole row of such a tensor then does not cancel.
    """
    readers = graph.consumers.get(name, ())
    axes = {_axis_of(graph, node, name) for node in readers}
    return next(iter(axes)) if len(axes) == 1 and name not in graph.outputs else None


def _axis_of(graph: Graph, node: Node, name: str) -> int | None:
    if node.op_type in _SOFTMAXES:
        axis, rank = int(node.attributes["axis"]), graph.tensors[name].shape
        return axis if axis < 0 else None if rank is None else axis - len(rank)
    if node.op_type in _SCALE:
        constant = graph.tensors[node.inputs[1]].constant
        passes = node.inputs[0] == name and constant is not None and constant.size == 1
    else:
        passes = node.op_type in _SHIFT
    if not passes or graph.tensors[name].shape != graph.tensors[node.outputs[0]].shape:
        return None
    return softmax_axis(graph, node.outputs[0])


def _carried(
    graph: Graph, is_source: Callable[[Tensor], bool], absorbing: frozenset[str], found: set[str]
) -> frozenset[str]:
    """The float tensors that values of the sources reach, an input being one where an absorbing op reads it."""
    found |= {name for name, tensor in graph.tensors.items() if tensor.is_float and is_source(tensor)}
    heard: set[str] = set()
    for node in reversed(graph.nodes):
        if node.op_type in absorbing or (node.op_type in _PASS and heard.intersection(node.outputs)):
            heard.update(node.reads)
    found.update(name for name in graph.inputs if name in heard)
    for node in graph.nodes:
        if node.op_type in _PASS and found.intersection(node.reads):
            found.update(node.outputs)
    return frozenset(name for name in found if name in graph.tensors and graph.tensors[name].is_float)


def _wide(dtype: np.dtype) -> np.dtype:
    """A dtype that NumPy has limits of, in place of bfloat16."""
    return np.dtype(dtype if dtype.kind == "f" else np.float32)


def _largest(constant: np.ndarray) -> float:
    """The largest size of an element that is a number; 0 of nothing."""
    ends = np.asarray([constant.max(), constant.min()], np.float64) if constant.size else np.zeros(1)
    return float(np.nanmax(np.abs(ends), initial=0))
