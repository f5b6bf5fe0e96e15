"""Infer the shapes of a graph, with the values of its shape arithmetic where that is cheap.

Reads and returns a ModelProto. ONNX follows values through Cast, Gather, Concat and the like by an object for each
element of a vector: about 0.1 µs and 80 bytes, of every vector, so that one of 2³⁰ elements would take 80 GiB. A graph
in which such an op reads a vector of more than LONGEST elements is inferred without values.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx

LONGEST = 1 << 20
"""Elements of a vector whose values may be followed."""

_FOLLOWED = frozenset(
    ("Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"),
)


def inferred_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the types and shapes of its tensors. Raises what onnx.shape_inference raises."""
    plain: onnx.ModelProto = onnx.shape_inference.infer_shapes(proto)
    if _follows_long_vectors(plain.graph):
        return plain
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


def _follows_long_vectors(graph: onnx.GraphProto) -> bool:
    long = {info.name for info in (*graph.input, *graph.value_info, *graph.output) if _is_long(info.type)}
    long.update(t.name for t in graph.initializer if len(t.dims) == 1 and t.dims[0] > LONGEST)
    return bool(long) and _reads(graph.node, long)


def _is_long(known: onnx.TypeProto) -> bool:
    dims = list(known.tensor_type.shape.dim) if known.HasField("tensor_type") else []
    return len(dims) == 1 and dims[0].dim_value > LONGEST


def _reads(nodes: Iterable[onnx.NodeProto], long: set[str]) -> bool:
    """Return whether an op whose values are followed reads a long vector."""
    return any(
        (node.op_type in _FOLLOWED and not long.isdisjoint(node.input))
        or any(_reads(entry.g.node, long) for entry in node.attribute if entry.HasField("g"))
        for node in nodes
    )
