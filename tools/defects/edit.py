"""A model that a defect is planted in: its graph, read and rewritten node by node.

From a canonical ModelProto, of which a copy is edited; the original stays as it is. Every rewritten constant gets a
name of its own, so that a weight which two nodes share goes wrong at one of them alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.graph.graph import Graph


class Edit:
    """A copy of a model, and what is known of its tensors before it is touched. rng: draws what goes wrong, and how."""

    def __init__(self, proto: onnx.ModelProto, rng: np.random.Generator) -> None:
        self.rng = rng
        self.before = Graph.from_proto(proto)
        self.proto = onnx.ModelProto()
        self.proto.CopyFrom(proto)
        self._nodes = {node.output[0]: node for node in self.proto.graph.node}

    def node(self, output: str) -> onnx.NodeProto:
        """The node that computes a tensor, by its first output."""
        return self._nodes[output]

    def constant(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """What a node reads there, where that is a floating constant."""
        array = self.array(node, index)
        return array if array is not None and array.dtype.kind == "f" else None

    def array(self, node: onnx.NodeProto, index: int) -> np.ndarray | None:
        """What a node reads there, where that is a constant."""
        name = node.input[index] if index < len(node.input) else ""
        return self.before.tensors[name].constant if name else None

    def give(self, node: onnx.NodeProto, index: int, array: np.ndarray) -> None:
        """Let a node read another constant there."""
        node.input[index] = self.add_constant(array, f"{node.output[0]}/planted_{index}")

    def add_constant(self, array: np.ndarray, name: str) -> str:
        """A new initializer; returns its name."""
        self.proto.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def attribute(self, node: onnx.NodeProto, name: str) -> Any:
        """An attribute, its default from the schema where the node does not state it."""
        return self.before.producer[node.output[0]].attributes[name]

    def set(self, node: onnx.NodeProto, **attributes: Any) -> None:
        """State attributes anew; None leaves one out."""
        kept = [one for one in node.attribute if one.name not in attributes]
        given = [helper.make_attribute(k, v) for k, v in attributes.items() if v is not None]
        del node.attribute[:]
        node.attribute.extend([*kept, *given])

    def become(self, node: onnx.NodeProto, op_type: str, *more: np.ndarray, **attributes: Any) -> None:
        """Turn a node into one of another op that reads the same first input, and constants behind it."""
        del node.attribute[:]
        del node.input[1:]
        node.op_type, node.domain = op_type, ""
        for index, array in enumerate(more, 1):
            node.input.append("")
            self.give(node, index, array)
        self.set(node, **attributes)

    def insert_before(self, node: onnx.NodeProto, index: int, op_type: str, operand: np.ndarray) -> None:
        """Put an op with a constant between a node and what it reads there."""
        name, read = f"{node.output[0]}/planted_{index}", node.input[index]
        info = next(one for one in self.proto.graph.value_info if one.name == read)
        self.proto.graph.value_info.add().CopyFrom(info)
        self.proto.graph.value_info[-1].name = name
        new = helper.make_node(op_type, [read, self.add_constant(operand, f"{name}/c")], [name], name)
        node.input[index] = name
        place = [one.output[0] for one in self.proto.graph.node].index(node.output[0])
        self.proto.graph.node.insert(place, new)

    def shape(self, name: str) -> tuple[Any, ...]:
        """The shape of a tensor as the graph states it; () where it does not."""
        return self.before.tensors[name].shape or ()

    def pick(self, options: Any) -> Any:
        """One of these, all equally likely."""
        options = list(options)
        return options[int(self.rng.integers(len(options)))]
