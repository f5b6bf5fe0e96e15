"""A pool whose window is the whole image is a global one.

Rewrites a MutableGraph whose types are inferred: AveragePool and MaxPool without padding whose kernel has the image's
size.
"""

from __future__ import annotations

import onnx

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard

_GLOBAL = {"AveragePool": "GlobalAveragePool", "MaxPool": "GlobalMaxPool"}


def name_global_pools(graph: MutableGraph) -> bool:
    """Rename every one. Returns whether there was any."""
    found = [node for node in graph.nodes if is_standard(node, *_GLOBAL) and _is_global(graph, node)]
    for node in found:
        node.op_type = _GLOBAL[node.op_type]
        del node.attribute[:]
    return bool(found)


def _is_global(graph: MutableGraph, node: onnx.NodeProto) -> bool:
    shape = graph.shape(node.input[0])
    if shape is None or list(shape[2:]) != attribute(node, "kernel_shape") or any(node.output[1:]):
        return False
    plain = all(size == 1 for size in attribute(node, "dilations", None) or [])
    return plain and not any(attribute(node, "pads", None) or []) and _not_padded(node)


def _not_padded(node: onnx.NodeProto) -> bool:
    automatic = attribute(node, "auto_pad", None)
    return automatic in (None, b"NOTSET", b"VALID")
