"""Write the axes of Squeeze, Unsqueeze and the reductions as the standard says: a vector that is stated.

Rewrites a MutableGraph whose types are inferred. Axes given as a scalar, as PyTorch's exporter does, become a vector.
A Squeeze without axes removes every axis of size 1 when it runs; a symbolic size counts as larger than 1, so that
the rank of the result is that of the export, and a batch of one keeps its axis.
"""

from __future__ import annotations

import numpy as np
import onnx

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import is_standard

_WITH_AXES = ("Squeeze", "Unsqueeze")


def state_axes(graph: MutableGraph) -> bool:
    """State the axes of every node as a vector. Returns whether a node changed."""
    changed = False
    for node in graph.nodes:
        if not takes_axes(node):
            continue
        axes = graph.constants.get(node.input[1]) if len(node.input) > 1 else None
        if axes is not None and axes.ndim == 0:
            _set_axes(graph, node, axes.reshape(1))
            changed = True
        elif node.op_type == "Squeeze" and not states_axes(node):
            changed |= _state_squeezed(graph, node)
    return changed


def takes_axes(node: onnx.NodeProto) -> bool:
    """Whether a node is a Squeeze, an Unsqueeze or a reduction."""
    return is_standard(node) and (node.op_type in _WITH_AXES or node.op_type.startswith("Reduce"))


def states_axes(node: onnx.NodeProto) -> bool:
    """Whether the axes of a Squeeze are stated, as an input or an attribute."""
    return (len(node.input) > 1 and bool(node.input[1])) or any(a.name == "axes" for a in node.attribute)


def _state_squeezed(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    """Give a Squeeze without axes those whose size is stated as 1. Returns whether they are known."""
    shape = graph.shape(node.input[0])
    if shape is None or None in shape or graph.opsets.get("", 0) < 13:
        return False
    axes = [axis for axis, size in enumerate(shape) if size == 1]
    if axes:
        _set_axes(graph, node, np.array(axes, np.int64))
    else:
        graph.set_inputs(node, node.input[:1])
        node.op_type = "Identity"
    return True


def _set_axes(graph: MutableGraph, node: onnx.NodeProto, axes: np.ndarray) -> None:
    name = graph.fresh(f"{node.output[0]}.axes")
    graph.constants[name] = axes.astype(np.int64)
    graph.set_inputs(node, [node.input[0], name])
