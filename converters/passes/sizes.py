"""A canonical model at given input sizes: the shape of every tensor, and all shape arithmetic, as constants.

Reads a canonical ModelProto and a shape per input, returns a new one with the same tensor names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from converters.graph.fixed_point import settle
from converters.graph.mutable import MutableGraph
from converters.passes.branches import forget_shapes_in_bodies
from converters.passes.constants import fold_constants
from converters.passes.shapes import fix_shapes


def at_sizes(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> onnx.ModelProto:
    """The model for inputs of exactly these shapes. Raises InvalidModel where the model does not take them."""
    return _at(proto, shapes).to_proto()


def types_at(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, onnx.TypeProto]:
    """The type and shape of every tensor, as far as they are known, for inputs of exactly these shapes.

    Raises InvalidModel where the model does not take them.
    """
    graph = _at(proto, shapes)
    names = {name for node in proto.graph.node for name in node.output if name}
    names.update(info.name for info in proto.graph.input)
    return {name: known for name in names if (known := graph.typed(name)) is not None}


def _at(proto: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> MutableGraph:
    working = onnx.ModelProto()
    working.CopyFrom(proto)
    graph = MutableGraph(working)
    for info in graph.inputs:
        for axis, size in zip(info.type.tensor_type.shape.dim, shapes.get(info.name, ()), strict=False):
            axis.dim_value = size
    graph.types.clear()
    forget_shapes_in_bodies(working.graph.node)
    for info in graph.outputs:
        info.type.tensor_type.ClearField("shape")

    def fix() -> bool:
        graph.infer_types()
        changed = fix_shapes(graph)
        return fold_constants(graph) or changed

    settle(fix)
    return graph
