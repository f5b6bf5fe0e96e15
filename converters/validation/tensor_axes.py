"""Refuse sizes of the wrong form, axes that a tensor lacks or that are stated twice, and orders of axes that are none.

Reads a MutableGraph whose types are inferred. Axes beyond any rank are refused on reading (ranges.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from converters.errors import InvalidModel
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard
from converters.passes.axes import takes_axes
from converters.validation.ranges import validate_forms

# Ops whose `axis` is one of their first input's.
_ALONG = (
    *("ArgMax", "ArgMin", "Concat", "Compress", "Flatten", "Gather", "GatherElements", "Hardmax"),
    *("LayerNormalization", "LogSoftmax", "LpNormalization", "RMSNormalization", "ScatterElements"),
    *("Softmax", "Split", "SplitToSequence", "TopK"),
)


def refuse_axes(graph: MutableGraph) -> None:
    """Raise InvalidModel for the first node whose axes are not those of its first input, or not in a vector."""
    for node in graph.nodes:
        if is_standard(node):
            validate_forms(node, graph.constants, f"node {node.name or node.output[0]!r} ({node.op_type})")
        if is_standard(node, *_ALONG):
            _refuse_beyond(graph, node)
        elif is_standard(node, "Transpose"):
            _refuse_no_order(graph, node)
        elif takes_axes(node):
            axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
            _refuse_wrong(graph, node, attribute(node, "axes") if axes is None else axes)


def _refuse_wrong(graph: MutableGraph, node: onnx.NodeProto, axes: Sequence[int] | np.ndarray | None) -> None:
    """Raise InvalidModel for axes that the tensor does not have, or that are stated twice."""
    shape = graph.shape(node.input[0])
    if shape is None or axes is None:
        return
    given = np.ravel(axes).tolist()
    # A number is reduced along an axis that it does not have.
    rank = max(len(shape) + (len(given) if node.op_type == "Unsqueeze" else 0), 1)
    if len({axis % rank for axis in given}) < len(given) or any(not -rank <= axis < rank for axis in given):
        raise InvalidModel(
            f"node {node.name or node.output[0]!r} ({node.op_type}): expected different axes of a tensor of {rank} axes"
            f", got {given}. Fix: export the model again"
        )


def _refuse_beyond(graph: MutableGraph, node: onnx.NodeProto) -> None:
    """Raise InvalidModel for an axis that the tensor does not have."""
    shape, axis = graph.shape(node.input[0]), attribute(node, "axis")
    if shape is None or axis is None:
        return
    # A number has one axis for most runtimes. Flatten may take all axes for the first.
    rank = max(len(shape), 1)
    if not -rank <= axis < rank + (node.op_type == "Flatten"):
        raise InvalidModel(
            f"node {node.name or node.output[0]!r} ({node.op_type}): expected an axis of a tensor of {len(shape)} "
            f"axes, got {axis}. Fix: export the model again"
        )


def _refuse_no_order(graph: MutableGraph, node: onnx.NodeProto) -> None:
    """Raise InvalidModel for a permutation that is not one of the tensor's axes."""
    order, shape = attribute(node, "perm"), graph.shape(node.input[0])
    axes = len((order or ()) if shape is None else shape)
    if order and sorted(order) != list(range(axes)):
        raise InvalidModel(
            f"node {node.name or node.output[0]!r} (Transpose): expected a permutation of {axes} axes, got {order}. "
            "Fix: export the model again"
        )
