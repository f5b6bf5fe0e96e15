"""An ONNX file that is being rewritten node by node: its constants, shapes and readers, and fresh names.

A `Rule` is given the Rewriter and a node, and returns the nodes that stand in its place, or None where it does not
apply. The rules stand in layer_rewrites.py and function_rewrites.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Rule = Callable[["Rewriter", onnx.NodeProto], list[onnx.NodeProto] | None]


class Rewriter:
    """A file that is being rewritten: its constants, shapes and readers, and fresh names."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        inferred = onnx.shape_inference.infer_shapes(proto, data_prop=True)
        self.constants = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer}
        self.shapes = {
            info.name: [axis.dim_value or axis.dim_param for axis in info.type.tensor_type.shape.dim]
            for info in (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
        }
        self.nodes = list(proto.graph.node)
        self.outputs = {info.name for info in proto.graph.output}
        self._taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}

    def fresh(self) -> str:
        name = f"rewritten_{len(self._taken)}"
        while name in self._taken:
            name += "_"
        self._taken.add(name)
        return name

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        name = self.fresh()
        self.constants[name] = np.asarray(value, dtype)
        return name

    def readers(self, name: str) -> list[onnx.NodeProto]:
        return [node for node in self.nodes if name in node.input]

    def node(self, op_type: str, *inputs: str, to: str = "", **attributes: Any) -> onnx.NodeProto:
        """A node that computes `to`, or a fresh tensor."""
        return helper.make_node(op_type, list(inputs), [to or self.fresh()], **attributes)

    def attribute(self, node: onnx.NodeProto, name: str, default: Any = None) -> Any:
        return next(
            (helper.get_attribute_value(entry) for entry in node.attribute if entry.name == name), default
        )

    def chain(self, x: str, to: str, *steps: tuple[Any, ...]) -> list[onnx.NodeProto]:
        """Nodes one after the other: (op, *further inputs, attributes), `...` standing for what came before."""
        made: list[onnx.NodeProto] = []
        for index, (op_type, *rest) in enumerate(steps):
            attributes = rest.pop() if rest and isinstance(rest[-1], dict) else {}
            inputs = [x if given is ... else given for given in rest] or [x]
            inputs = inputs if ... in rest or not rest else [x, *rest]
            name = to if to and index == len(steps) - 1 else self.fresh()
            made.append(helper.make_node(op_type, inputs, [name], **attributes))
            x = made[-1].output[0]
        return made
