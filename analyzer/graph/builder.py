"""Write the nodes of gradients: tensors with dtypes and shapes, Scans, and outputs that the model left out.

`op.Mul(g, op.Sigmoid(x))` appends two nodes (converters/graph/builder.py). Python numbers take the dtype of the first
floating tensor among the arguments of their node, else of its first tensor. Equal constants are stored once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.graph.graph import Node, Tensor, is_float
from converters.graph.builder import NodeBuilder
from converters.types import Shape

Argument = Tensor | np.ndarray | float | int | bool | Sequence[int] | None
ScanStep = Callable[["Builder", list[Tensor], list[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""What a Scan does with the states and one element of each sequence: the next states, an element of each output."""

_BOOLEAN = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf"}
)
# Ops that do the same to every step of a stack of them; Gemm becomes a MatMul.
_PER_ELEMENT = _BOOLEAN | frozenset(
    [
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Elu",
        "Exp",
        "Gemm",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Mul",
        "Neg",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sub",
        "Sum",
        "Tanh",
        "ThresholdedRelu",
        "Where",
    ]
)
_INT64 = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero"})


@dataclass(frozen=True)
class EmittedNode:
    """One emitted node, as it was called."""

    op_type: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any]


class Builder(NodeBuilder[Tensor]):
    """Collects the nodes and constants of a new part of a graph.

    masked: whether a cotangent of 0 stays 0 past infinite derivatives (analyzer/ops/masking.py).
    """

    def __init__(self, opset: int, prefix: str = "") -> None:
        super().__init__()
        self.opset = opset
        self.prefix = prefix
        self.calls: list[EmittedNode] = []
        self.stated: dict[str, Tensor] = {}
        self.notes: dict[str, Any] = {}
        self.initializers: dict[str, np.ndarray] = {}
        self.masked = False
        self._constants: dict[tuple[Any, ...], Tensor] = {}
        self._count = 0
        self._current: Node | None = None
        self._extra: dict[str, tuple[Node, dict[int, Tensor]]] = {}

    def is_tensor(self, value: Any) -> bool:
        """Return whether an argument is a Tensor."""
        return isinstance(value, Tensor)

    def like(self, arguments: Sequence[Argument]) -> np.dtype[Any] | None:
        """Return the dtype of the first floating tensor among the arguments, else of the first tensor of numbers."""
        dtypes = [a.dtype for a in arguments if isinstance(a, Tensor) and a.dtype.kind != "b"]
        return next((dtype for dtype in dtypes if is_float(dtype)), dtypes[0] if dtypes else None)

    def number(self, value: float, like: np.dtype[Any] | None) -> Tensor:
        """Return a Python number as a constant: a bool stays one, others take the dtype `like`, else float32."""
        return self.constant(np.asarray(value, bool if isinstance(value, bool) else like or np.float32))

    def constant(self, array: np.ndarray) -> Tensor:
        """Return a constant. Equal constants are stored once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.fresh("constant")
            self.initializers[name] = array
            self._constants[key] = Tensor(name, array.dtype, array.shape, array)
        return self._constants[key]

    def fresh(self, stem: str) -> str:
        """Return a name that this builder has not given yet."""
        self._count += 1
        return f"{self.prefix}{stem}_{self._count}"

    def name_of(self, tensor: Tensor) -> str:
        """Return the name of a tensor."""
        return tensor.name

    def results(
        self, op_type: str, inputs: Sequence[Tensor | None], names: Sequence[str], attributes: dict[str, Any]
    ) -> Sequence[Tensor]:
        """Return the outputs of a node with their dtype, and record the call."""
        dtype = _output_dtype(op_type, inputs, attributes)
        outputs = tuple(Tensor(name, dtype) for name in names)
        self.calls.append(EmittedNode(op_type, tuple(inputs), outputs, attributes))
        return outputs

    def shaped(self, tensor: Tensor, shape: Shape | None) -> Tensor:
        """The same tensor, stated to have this shape: a runtime that knows shapes arranges memory better."""
        if shape is None:
            return tensor
        return self.stated.setdefault(tensor.name, replace(tensor, shape=shape))

    def note(self, tensor: Tensor, what: Any) -> Tensor:
        """The same tensor, with what its rule knows of it for the rules that follow: `notes` has it by name."""
        self.notes[tensor.name] = what
        return tensor

    def nested(self, stem: str) -> Builder:
        """Return the Builder of a body, which may read any tensor of this one.

        A name means one tensor in a graph and its subgraphs, and a constant is stored once for all of them.
        """
        inner = Builder(self.opset, prefix=f"{self.fresh(stem)}/")
        inner.initializers, inner._constants, inner.masked = self.initializers, self._constants, self.masked
        return inner

    def choose(
        self, condition: Tensor, bodies: Sequence[onnx.GraphProto], like: Sequence[Tensor]
    ) -> list[Tensor]:
        """Emit an If over two bodies, for true and for false. like: tensors of the types and shapes of its results."""
        names = [self.fresh("If") for _ in like]
        then_branch, else_branch = bodies
        self.write(
            "If",
            [condition.name],
            names,
            name=names[0],
            then_branch=then_branch,
            else_branch=else_branch,
        )
        return [Tensor(name, t.dtype, t.shape) for name, t in zip(names, like, strict=True)]

    def scan(
        self, step: ScanStep, states: Sequence[Tensor], sequences: Sequence[Tensor], reverse: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Emit a Scan along axis 0 of the sequences: the last states, and the outputs' elements stacked.

        The step is written by a Builder of its own, and may read any tensor of this one. `reverse` goes from the
        last element to the first; the outputs stand in the order of the sequences. All states and outputs have
        one floating dtype, that of the first state. What does not depend on the states is computed outside.
        """
        inner = self.nested("Scan")
        # Steps are differentiated by placeholder cotangents (analyzer/ops/recurrent), whose values no mask may read.
        inner.masked = False
        begin = [Tensor(inner.fresh("state"), t.dtype) for t in states]
        elements = [Tensor(inner.fresh("element"), t.dtype) for t in sequences]
        following, outputs = step(inner, begin, elements)
        whole = dict(zip((t.name for t in elements), sequences, strict=True))
        self._lift(inner, whole, {t.name for t in begin})
        last = [inner.Identity(t) for t in following]
        rows = [None if t.name in whole else inner.Identity(t) for t in outputs]
        results = [*last, *(row for row in rows if row is not None)]
        live, needed = _live(inner.nodes, results)
        # A Scan without a sequence would not know its length.
        read = [name for name in whole if name in needed] or [elements[0].name]
        inputs = [*begin, *(Tensor(name, whole[name].dtype) for name in read)]
        found = self.emit(
            "Scan",
            (*states, *(whole[name] for name in read)),
            outputs=len(results),
            body=helper.make_graph(
                live, inner.prefix.rstrip("/"), [_info(t) for t in inputs], [_info(t) for t in results]
            ),
            num_scan_inputs=len(read),
            scan_input_directions=[int(reverse)] * len(read),
            scan_output_directions=[int(reverse)] * (len(results) - len(last)),
        )
        tensors = iter([found] if len(results) == 1 else found)
        ends = [next(tensors) for _ in last]
        return ends, [
            whole[t.name] if row is None else next(tensors) for t, row in zip(outputs, rows, strict=True)
        ]

    def _lift(self, inner: Builder, whole: dict[str, Tensor], states: set[str]) -> None:
        """Compute outside of a Scan, for all steps at once, what does not depend on its states.

        `whole` has the sequence of each of the body's tensors that is known outside, and grows.
        """
        inside = states | whole.keys() | {t.name for call in inner.calls for t in call.outputs}
        kept = []
        for node, call in zip(inner.nodes, inner.calls, strict=True):
            names = {t.name for t in call.inputs if t is not None}
            if call.op_type not in _PER_ELEMENT or not names & whole.keys() or names & inside - whole.keys():
                kept.append(node)
                continue
            inputs = [None if t is None else whole.get(t.name, t) for t in call.inputs]
            if call.op_type == "Gemm":
                result = self._stacked_product(inputs, call.attributes)
            else:
                result = self.emit(call.op_type, inputs, **call.attributes)
            whole[call.outputs[0].name] = result
        inner.nodes[:] = kept

    def _stacked_product(self, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
        """A Gemm of two matrices, the first of which is now a stack of them."""
        a, b = inputs
        return self.MatMul(a, self.Transpose(b, perm=[1, 0]) if attributes.get("transB") else b)

    @staticmethod
    def dtype_of(tensor: Tensor) -> int:
        """The ONNX number of a tensor's dtype, for `Cast(…, to=…)`."""
        return int(helper.np_dtype_to_tensor_dtype(tensor.dtype))

    @contextmanager
    def differentiating(self, node: Node) -> Iterator[None]:
        """While a rule runs, the node it differentiates: `forward_output` speaks of that node."""
        previous, self._current = self._current, node
        try:
            yield
        finally:
            self._current = previous

    def forward_output(self, index: int, dtype: type = np.int64) -> Tensor:
        """An optional output of the node being differentiated that the model itself may have left out."""
        node = self._current
        assert node is not None, "forward_output is for rules"
        if index < len(node.outputs) and node.outputs[index]:
            return Tensor(node.outputs[index], np.dtype(dtype))
        _, outputs = self._extra.setdefault(node.name, (node, {}))
        return outputs.setdefault(index, Tensor(f"{self.prefix}{node.name}.{index}", np.dtype(dtype)))

    @property
    def extra_outputs(self) -> Mapping[str, Node]:
        """The nodes of the model that must grow an output, by the name of that output."""
        return {tensor.name: node for node, outputs in self._extra.values() for tensor in outputs.values()}

    def copy(self, node: Node, renamed: Mapping[str, str], grown: Builder | None = None) -> None:
        """Append a node of a model's graph under its own names, but for outputs in `renamed`.

        `grown` is the Builder whose rules asked for optional outputs of the model's nodes.
        """
        outputs = [renamed.get(name, name) for name in node.outputs]
        if grown is not None and node.name in grown._extra:
            for index, tensor in sorted(grown._extra[node.name][1].items()):
                outputs += [""] * (index + 1 - len(outputs))
                outputs[index] = tensor.name
        given = {key: value for key, value in node.attributes.items() if value is not None}
        given = {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        self.write(node.op_type, node.inputs, outputs, name=node.name, domain=node.domain, **given)


def _live(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[Tensor]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, and every tensor that these read."""
    needed = {tensor.name for tensor in outputs}
    live = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(node.input)
    return live[::-1], needed


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, Builder.dtype_of(tensor), None)


def _output_dtype(op_type: str, inputs: Sequence[Tensor | None], attributes: dict[str, Any]) -> np.dtype[Any]:
    if op_type in _BOOLEAN:
        return np.dtype(bool)
    if op_type in _INT64:
        return np.dtype(np.int64)
    if op_type == "Cast":
        return np.dtype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    if op_type == "ConstantOfShape":
        value = attributes.get("value")
        return numpy_helper.to_array(value).dtype if value is not None else np.dtype(np.float32)
    if op_type == "OneHot":
        assert inputs[2] is not None
        return inputs[2].dtype
    position = 1 if op_type in ("Where", "CastLike") else 0
    first = inputs[position]
    assert first is not None, f"{op_type} needs its input {position}"
    return first.dtype
