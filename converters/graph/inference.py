"""Infer the shapes of a graph, with the values of its shape arithmetic where that is cheap.

Reads and returns a ModelProto. ONNX follows values through Cast, Gather, Concat and the like by an object for each
element of a vector: about 1 µs and 150 bytes, of every vector, so that one of 2³⁰ elements would take 160 GiB. A graph
in which such ops read vectors of more than LONGEST elements is inferred without values.

The length of a vector may itself be such a value. Those lengths are found first, by runs in which the ops that read a
vector of unknown length are hidden from inference.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Iterator

import onnx

LONGEST = 1 << 20
"""Elements of the vectors whose values may be followed, all together."""

_FOLLOWED = frozenset(
    ("Add", "Cast", "Concat", "Gather", "Mul", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"),
)
_SIZED = frozenset(
    (
        *("AffineGrid", "BlackmanWindow", "CenterCropPad", "Col2Im", "ConstantOfShape", "DFT", "Expand"),
        *("HammingWindow", "HannWindow", "MaxUnpool", "MelWeightMatrix", "OneHot", "Pad", "Range", "Reshape"),
        *("Resize", "RoiAlign", "STFT", "Slice", "Split", "SplitToSequence", "Tile", "TopK", "Upsample"),
    )
)
"""Ops whose results have sizes that values give."""
# No op belongs to this domain: inference keeps the types that are stated for the results of its nodes.
_HIDDEN = "onnxplain.hidden"
# Each round finds the lengths that depend on those of the round before it.
_ROUNDS = 8
_Lengths = ChainMap[str, int | None]


def inferred_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the types and shapes of its tensors. Raises what onnx.shape_inference raises."""
    plain: onnx.ModelProto = onnx.shape_inference.infer_shapes(proto)
    if _has_short_vectors(plain):
        return onnx.shape_inference.infer_shapes(proto, data_prop=True)
    return plain


def _has_short_vectors(known: onnx.ModelProto) -> bool:
    """Return whether the vectors whose values would be followed have at most LONGEST elements, all together.

    known: the model with the types that are inferred without values.
    """
    for _ in range(_ROUNDS):
        reads = list(_reads(known.graph, ChainMap()))
        if sum(length for _, length, _ in reads) > LONGEST:
            return False
        if all(complete for _, _, complete in reads) or not _has_sizes_from_values(known.graph):
            return True
        try:
            found = _with_lengths_from_values(known)
        except onnx.shape_inference.InferenceError:
            return False
        if list(_sizes(found.graph)) == list(_sizes(known.graph)):
            # A vector whose length no run finds has no values to follow.
            return True
        known = found
    return False


def _with_lengths_from_values(known: onnx.ModelProto) -> onnx.ModelProto:
    """Infer once more, with values; the ops that read a vector of unknown length follow none."""
    hiding = onnx.ModelProto()
    hiding.CopyFrom(known)
    hidden = [node for node, _, complete in _reads(hiding.graph, ChainMap()) if not complete]
    for node in hidden:
        node.domain = _HIDDEN
    hiding.opset_import.add(domain=_HIDDEN, version=1)
    found = onnx.shape_inference.infer_shapes(hiding, data_prop=True)
    for node in _nodes(found.graph):
        node.domain = "" if node.domain == _HIDDEN else node.domain
    return onnx.shape_inference.infer_shapes(found)


def _reads(graph: onnx.GraphProto, outer: _Lengths) -> Iterator[tuple[onnx.NodeProto, int, bool]]:
    """Every node whose values are followed, the elements of the vectors that it reads, and whether these are all."""
    lengths = outer.new_child({info.name: _length(info.type) for info in _infos(graph)})
    lengths.update({t.name: t.dims[0] if len(t.dims) == 1 else 0 for t in graph.initializer})
    for node in graph.node:
        for body in _bodies(node):
            yield from _reads(body, lengths)
        if node.op_type in _FOLLOWED:
            each = [lengths.get(name) for name in node.input if name]
            yield node, sum(length or 0 for length in each), None not in each


def _length(known: onnx.TypeProto) -> int | None:
    """The elements of a vector, 0 for what is no vector; None where they are unknown."""
    if not known.tensor_type.HasField("shape"):
        return None
    dims = known.tensor_type.shape.dim
    if len(dims) != 1:
        return 0
    return int(dims[0].dim_value) if dims[0].HasField("dim_value") else None


def _has_sizes_from_values(graph: onnx.GraphProto) -> bool:
    return any(node.op_type in _SIZED for node in _nodes(graph))


def _sizes(graph: onnx.GraphProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The sizes of every tensor, 0 where one is unknown."""
    for info in _infos(graph):
        yield info.name, tuple(int(dim.dim_value) for dim in info.type.tensor_type.shape.dim)
    for node in graph.node:
        for body in _bodies(node):
            yield from _sizes(body)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for body in _bodies(node):
            yield from _nodes(body)


def _bodies(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    return [entry.g for entry in node.attribute if entry.HasField("g")]


def _infos(graph: onnx.GraphProto) -> Iterable[onnx.ValueInfoProto]:
    return (*graph.input, *graph.value_info, *graph.output)
