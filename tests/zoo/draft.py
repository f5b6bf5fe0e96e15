"""Write an ONNX graph op by op, each computed as it is written: shapes and scales are known at once.

From NumPy values to a ModelProto whose first axis is free. The values are those of a batch of 2 on ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

OPSET, IR_VERSION = 23, 10
SAMPLES = 2


@dataclass(frozen=True)
class Value:
    """A tensor of the graph and what it holds for the batch at hand."""

    name: str
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes at hand, the batch first."""
        return self.array.shape

    @property
    def width(self) -> int:
        """The size of axis 1: channels, or features of a table."""
        return self.array.shape[1]

    @cached_property
    def scale(self) -> float:
        """The standard deviation of all elements."""
        return float(self.array.std())


Operand = Value | np.ndarray | Sequence[int] | float | None


class Draft:
    """A graph in the making. rng: every draw of the network comes from it."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[Value] = []

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """A batch for every input."""
        return {value.name: value.array for value in self._inputs}

    def input(self, array: np.ndarray) -> Value:
        """A new input of the model; its first axis stays free."""
        value = Value(f"input_{len(self._inputs)}", array)
        self._inputs.append(value)
        return value

    def constant(self, array: np.ndarray | Sequence[int] | float) -> Value:
        """An initializer; a float becomes a float32 scalar, a list of ints int64."""
        if not isinstance(array, np.ndarray):
            array = np.array(array, np.float32 if isinstance(array, float) else np.int64)
        value = Value(f"constant_{len(self._initializers)}", array)
        self._initializers.append(numpy_helper.from_array(array, value.name))
        return value

    def op(self, op_type: str, *inputs: Operand, **attributes: Any) -> Value:
        """The only output of a new node."""
        return self.ops(op_type, 1, *inputs, **attributes)[0]

    def ops(self, op_type: str, outputs: int, *inputs: Operand, **attributes: Any) -> tuple[Value, ...]:
        """The outputs of a new node."""
        operands = [self._operand(given) for given in inputs]
        while operands[-1] is None:
            operands.pop()
        names = [f"{op_type.lower()}_{len(self._nodes)}{'abc'[k] if k else ''}" for k in range(outputs)]
        reads = ["" if one is None else one.name for one in operands]
        node = helper.make_node(op_type, reads, names, name=names[0], **attributes)
        arrays = computed(node, {one.name: one.array for one in operands if one is not None})
        self._nodes.append(node)
        return tuple(Value(name, array) for name, array in zip(names, arrays, strict=True))

    def layer(self, op_type: str, x: Value, weight: np.ndarray, bias: int | None, **attributes: Any) -> Value:
        """A weighted op whose weights are scaled so that its output varies by 1, with `bias` biases or none."""
        trial = helper.make_node(op_type, ["x", "w"], ["y"], **attributes)
        spread = float(computed(trial, {"x": x.array, "w": weight})[0].std())
        weight = weight / np.float32(max(spread, 1e-3))
        if bias is None:
            return self.op(op_type, x, weight, **attributes)
        return self.op(op_type, x, weight, self.normal(bias, scale=0.3), **attributes)

    def steadied(self, x: Value) -> Value:
        """x, multiplied by a constant where it has grown or shrunk much."""
        if 0.3 <= x.scale <= 3:
            return x
        return self.op("Mul", x, float(1 / max(x.scale, 1e-3)))

    def reshape(self, x: Value, *sizes: int) -> Value:
        """x with its batch kept and these sizes behind it."""
        return self.op("Reshape", x, [0, *sizes])

    def normal(self, *shape: int, scale: float = 1.0) -> np.ndarray:
        """Normal numbers, float32."""
        return (scale * self.rng.standard_normal(shape)).astype(np.float32)

    def gains(self, *shape: int) -> np.ndarray:
        """Numbers around 1, float32."""
        return self.rng.uniform(0.5, 1.5, shape).astype(np.float32)

    def chance(self, probability: float = 0.5) -> bool:
        """True this often."""
        return bool(self.rng.random() < probability)

    def pick(self, options: Sequence[Any]) -> Any:
        """One of these, all equally likely."""
        return options[int(self.rng.integers(len(options)))]

    def model(self, output: Value) -> onnx.ModelProto:
        """The model, its batch free."""
        outputs = [helper.make_tensor_value_info(output.name, onnx.TensorProto.FLOAT, _free(output.array))]
        inputs = [
            helper.make_tensor_value_info(one.name, _type(one.array), _free(one.array))
            for one in self._inputs
        ]
        graph = helper.make_graph(self._nodes, "random", inputs, outputs, self._initializers)
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
        )
        onnx.checker.check_model(proto)
        return proto

    def _operand(self, given: Operand) -> Value | None:
        return given if given is None or isinstance(given, Value) else self.constant(given)


def computed(node: onnx.NodeProto, arrays: dict[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of one node on ONNX Runtime."""
    inputs = [helper.make_tensor_value_info(name, _type(a), a.shape) for name, a in arrays.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output]
    graph = helper.make_graph([node], "node", inputs, outputs)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options, ["CPUExecutionProvider"])
    found: list[np.ndarray] = session.run(None, arrays)
    return found


def _type(array: np.ndarray) -> int:
    return helper.np_dtype_to_tensor_dtype(array.dtype)


def _free(array: np.ndarray) -> list[int | str]:
    return ["N", *array.shape[1:]]
