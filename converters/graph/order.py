"""Put the nodes of a model in topological order, which ONNX asks for and ONNX Runtime does without.

Converters to half precision and other rewriters append their nodes at a file's end. Returns the model itself where
its order is right, or where there is none: a circle is left to the checker, which names it.
"""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

import onnx

from converters.graph.nodes import reads


def in_order(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every node of its main graph behind those that it reads from."""
    nodes = list(proto.graph.node)
    writers = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    before = {index: {writers[n] for n in reads(node) if n in writers} for index, node in enumerate(nodes)}
    if all(first < index for index, firsts in before.items() for first in firsts):
        return proto
    try:
        order = list(TopologicalSorter(before).static_order())
    except CycleError:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.node[:]
    copy.graph.node.extend(nodes[index] for index in order)
    return copy
